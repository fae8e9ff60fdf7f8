"""The monitor that has the last word. It can only reduce a command; it imports no inference and no navigation."""
