"""The C library's allocator in a process that takes in large messages all day."""

import ctypes

BUFFER_MAX_BYTES = 4 * 1024 * 1024
"""Larger pieces come from the kernel each time, and go back to it at once."""
KEPT_FREE_BYTES = 32 * 1024 * 1024
"""At the end of each heap, for the next messages."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_message_buffers() -> bool:
    """Keep the memory of messages for the messages after them; False where the C library is not glibc.

    By itself glibc gives pieces of 128 KiB, a batch of records, back to the kernel, which then clears every page of the
    next one: a fifth of the time that a record costs between the socket and the disk.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, BUFFER_MAX_BYTES) and mallopt(_M_TRIM_THRESHOLD, KEPT_FREE_BYTES))
