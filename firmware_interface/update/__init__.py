"""Firmware images: signed, read, sent."""
