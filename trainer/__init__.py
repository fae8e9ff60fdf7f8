"""Learning, evaluation, export and release of policies."""
