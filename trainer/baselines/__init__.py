"""Rule-based baselines, batched over robots, and the search that tunes them."""
