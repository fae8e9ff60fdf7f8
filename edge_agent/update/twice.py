"""State without which a robot would have no policy, or take no order: written twice, for a copy may be damaged.

Each copy is replaced atomically, so a kill or a power cut never tears one; a bad disk may. The second copy may be one
step behind after a kill: it is read only where the first is damaged.
"""

from pathlib import Path
from typing import TypeVar

import msgspec

from contracts.atomic import sync_folder, write_atomically

T = TypeVar("T")
COPY_SUFFIX = ".copy"


def write_twice(path: Path, value: object) -> None:
    """Write ``value`` as JSON to ``path``, then to its copy; raises OSError.

    Both names become durable together, before this returns: a power cut earlier leaves each file whole, old or new.
    """
    data = msgspec.json.encode(value)
    for place in (path, copy_of(path)):
        write_atomically(place, data, folder=False)
    sync_folder(path.parent)


def read_twice(path: Path, kind: type[T], bytes_max: int) -> T | None:
    """What was written last; None when there never was anything.

    Raises:
        ValueError: No copy is whole.
    """
    damaged = ""
    for place in (path, copy_of(path)):
        try:
            with place.open("rb") as file:
                return msgspec.json.decode(file.read(bytes_max), type=kind)
        except FileNotFoundError:
            continue
        except (msgspec.MsgspecError, UnicodeDecodeError, OSError) as error:
            damaged = damaged or str(error)
    if damaged:
        raise ValueError(damaged)
    return None


def copy_of(path: Path) -> Path:
    """Where the second copy lies."""
    return path.with_name(path.name + COPY_SUFFIX)
