"""The safety monitor inside the agent: it runs every tick and has the last word."""
