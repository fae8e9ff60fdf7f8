"""The recorder: everything that happened, in an append log that survives kill -9 and power cuts."""
