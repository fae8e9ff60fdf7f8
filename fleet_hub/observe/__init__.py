"""What the hub says about itself, for Prometheus."""
