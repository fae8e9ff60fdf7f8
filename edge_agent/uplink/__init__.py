"""The way to the hub: one connection, records out, offers and bundles in. Works offline by waiting."""
