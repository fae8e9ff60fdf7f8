"""The reference firmware as a process: compiled here, in real or in virtual time."""
