"""The front door: one command, one file a verb. Wires rooms together, decides nothing."""
