"""What leaves the tick: the command, and the record of how it came about."""
