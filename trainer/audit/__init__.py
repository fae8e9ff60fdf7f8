"""Whether the reward asks for what is wanted: its terms one by one, against trips that arrive, fast and untouched."""
