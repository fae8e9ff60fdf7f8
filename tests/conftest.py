"""For all tests."""

import signal

# A shell that starts a suite in the background has it ignore SIGINT. What a test starts would inherit that, and no
# Ctrl-C would ever reach it.
signal.signal(signal.SIGINT, signal.default_int_handler)
