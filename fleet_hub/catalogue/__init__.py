"""Releases: what bundles the fleet may run, verified before they are taken in."""
