"""What never goes down: versions of metadata, release counters, time. Outside of TUF's cache, and written twice.

STATE/floor/{a,b}.json, one after the other, each synced: a torn write leaves the other, a lost TUF cache both.
"""

import fcntl
from pathlib import Path
from typing import Annotated

import msgspec

from contracts.atomic import make_folder, sync_folder, write_atomically
from contracts.canonical import hash_of
from contracts.manifest import Digest
from contracts.trust import Code, TrustError

FLOOR_FOLDER = "floor"
FLOOR_FILES = ("a.json", "b.json")
LOCK_FILE = "lock"
FLOOR_MAX_BYTES = 64 * 1024
SKEW_MAX_S = 120.0
"""Clocks are set back a little by NTP."""


class Floor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The highest that was ever verified here."""

    counters: dict[str, Annotated[int, msgspec.Meta(ge=0)]] = {}
    """Policy name -> release counter."""
    versions: dict[str, Annotated[int, msgspec.Meta(ge=0)]] = {}
    """Repository/role/hash of the role's keys -> version: new keys begin anew, as TUF's recovery wants it.

    So does the hub's time (ns), by the keys that sign it: a thief who sets it forward loses that with the key.
    """
    verified_wall_ns: Annotated[int, msgspec.Meta(ge=0)] = 0

    def raised(self, other: "Floor") -> "Floor":
        """The higher of both in everything."""
        return Floor(
            _highest(self.counters, other.counters),
            _highest(self.versions, other.versions),
            max(self.verified_wall_ns, other.verified_wall_ns),
        )

    def time_ns(self, clock: str) -> int:
        """The latest time that was verified here; ``clock`` is the hub's (``edge_agent.update.clock``)."""
        return max(self.verified_wall_ns, self.versions.get(clock, 0))

    def check_time(self, now_wall_ns: int, clock: str) -> None:
        """Raises TrustError for a clock that was turned back."""
        back_s = (self.time_ns(clock) - now_wall_ns) / 1e9
        if back_s > SKEW_MAX_S:
            raise TrustError(
                Code.CLOCK_BACK, f"the clock is {back_s:.0f} s behind the last verified time; set it right"
            )

    def check_versions(self, versions: dict[str, int]) -> None:
        """Raises TrustError for metadata older than what was verified here, cache or no cache."""
        for name, version in versions.items():
            if version < self.versions.get(name, 0):
                raise TrustError(
                    Code.BELOW_FLOOR,
                    f"{name.rsplit('/', 1)[0]} {version} is older than {self.versions[name]}, verified here before",
                )

    def check_counter(self, policy_name: str, counter: int) -> None:
        """Raises TrustError below the release counter."""
        if counter < self.counters.get(policy_name, 0):
            raise TrustError(
                Code.COUNTER_TOO_LOW,
                f"release counter {counter} of {policy_name} is below {self.counters[policy_name]}; to go back, "
                "release the old policy again under a higher counter",
            )


class _Written(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    floor: Floor
    hash: Digest


class FloorStore:
    """The floor of one robot on disk."""

    def __init__(self, state: Path) -> None:
        """Nothing is read yet."""
        self._folder = state / FLOOR_FOLDER
        self._paths = [self._folder / name for name in FLOOR_FILES]

    def read(self) -> Floor:
        """The floor; nothing on a robot that never had an update. Raises TrustError when both copies are damaged."""
        found, damaged = [], []
        for path in self._paths:
            try:
                with path.open("rb") as file:
                    written = msgspec.json.decode(file.read(FLOOR_MAX_BYTES), type=_Written)
                if hash_of(written.floor) != written.hash:
                    raise ValueError("its hash does not fit")
                found.append(written.floor)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                damaged.append(f"{path}: {error}")
        if damaged and not found:
            raise TrustError(
                Code.FLOOR_DAMAGED, f"{damaged[0]}; no copy of the floor is whole, set this robot up anew"
            )
        floor = Floor()
        for one in found:
            floor = floor.raised(one)
        return floor

    def lift(self, floor: Floor) -> None:
        """Raise the floor to ``floor`` where that is higher; raises OSError, TrustError.

        Comms and its check do so at the same time: one after the other, or one would take back what the other raised.
        """
        make_folder(self._folder)
        with (self._folder / LOCK_FILE).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            new = self.read().raised(floor)
            data = msgspec.json.encode(_Written(new, hash_of(new)))
            for path in self._paths:
                write_atomically(path, data, folder=False)
            sync_folder(self._folder)


def _highest(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in sorted({*one, *other})}
