"""Signing. The only user of private release keys; robots and the hub can only verify."""
