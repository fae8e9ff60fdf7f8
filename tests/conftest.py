"""For all tests."""

import signal

# A shell that starts a suite in the background has it ignore SIGINT, and what a test starts would inherit that: no Ctrl-C
# would ever reach it.
signal.signal(signal.SIGINT, signal.default_int_handler)
