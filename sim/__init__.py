"""The warehouse: floors, robots, people and orders, in PyBullet and in a compiled twin of the same task."""

import hashlib
import os
import sys
import tempfile
from pathlib import Path


def _use_fresh_compile_cache() -> None:
    """Give compiled code a cache of its own per version of the sources.

    Numba notices a change in a function's own file, not in a file whose functions it inlines: a stale twin
    would go on running an old safety rule.
    """
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for room in ("sim", "navigation", "safety", "contracts"):
        for path in sorted((root / room).rglob("*.py")):
            digest.update(path.read_bytes())
    base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "outrider"
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError:
        base = Path(tempfile.gettempdir()) / "outrider"
    folder = os.environ.setdefault("NUMBA_CACHE_DIR", str(base / f"numba-{digest.hexdigest()[:16]}"))
    if "numba" in sys.modules:  # it reads the environment once, when it is imported
        sys.modules["numba"].config.CACHE_DIR = folder


_use_fresh_compile_cache()
