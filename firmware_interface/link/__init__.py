"""The host's side of the link: a pure state machine, and a thread that carries it."""
