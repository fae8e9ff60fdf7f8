"""The demonstration: the whole loop on one machine, by the same commands a user would type."""
