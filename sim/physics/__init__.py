"""PyBullet's bodies and contacts behind the ``Physics`` protocol."""

import os
import sys


def _import_without_banner() -> None:
    """Import PyBullet with standard output and error turned away: its C code prints a build time there."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for descriptor in (1, 2):
            os.dup2(nowhere, descriptor)
        import pybullet  # noqa: F401
    finally:
        for descriptor, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(nowhere)


_import_without_banner()
