"""Who proposes a command: the policy, the one before it, or the rules. Loading happens beside the tick."""
