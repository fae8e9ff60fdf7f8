"""The warehouse: floors, robots, people and orders, in PyBullet and in a compiled twin of the same task."""
