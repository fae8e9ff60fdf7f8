"""The hub's database and data folder."""
