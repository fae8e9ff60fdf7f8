"""Rollouts: which robot should run which release, and how far each has come."""
