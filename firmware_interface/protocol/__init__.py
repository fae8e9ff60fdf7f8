"""What goes over the wire: the schema, the frames made from it, and their bytes."""
