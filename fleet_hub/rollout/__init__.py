"""Rollouts: approved plans, stage by stage, with gates on behaviour."""
