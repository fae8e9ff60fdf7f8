"""A read-only mirror of image metadata and bundles, verified here and verified again by every robot."""
