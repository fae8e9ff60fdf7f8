"""Who else commands the base: two commanders on one ``cmd_vel`` are one too many, and the monitor holds only one.

An endpoint that this robot's own process left behind when it was killed stays in the graph for as long as DDS waits for
it (20 s): it is known by its id, which is on disk before the first command, and does not count.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from contracts.atomic import write_atomically

TOPIC = "cmd_vel"
OWN_FILE = "commanders.json"
OWN_MAX = 16
FILE_MAX_BYTES = 64 * 1024
CHECK_NS = 1_000_000_000
UNKNOWN = "_UNKNOWN_"


class Rivals:
    """Looks into the ROS graph once a second. Make it before the node's own publisher, then call ``own``.

    Args:
        node: the node, in the robot's namespace.
        state_dir: the robot's own folder, where ids of its own endpoints are kept.
    """

    def __init__(self, node: Any, state_dir: Path) -> None:
        self._node, self._path = node, state_dir / OWN_FILE
        self._topic = node.resolve_topic_name(TOPIC)
        self._mine = self._read()
        self._before = set(self._endpoints())
        self._due_ns = 0
        self.found = ""
        """Who else there is, for people; "" for nobody."""

    def own(self) -> None:
        """The node's own publisher has been made: the new endpoint of that name is it."""
        name = self._node.get_fully_qualified_name()
        new = [key for key, who in self._endpoints().items() if key not in self._before and who == name]
        if len(new) == 1:  # with two of that name none is surely ours, and both count
            self._mine = [*self._mine, *new][-OWN_MAX:]
        with suppress(OSError):  # without the file a killed predecessor counts until DDS forgets it
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, msgspec.json.encode(self._mine), durable=False)

    def look(self, now_ns: int, at_once: bool = False) -> str:
        """Who else there is, looked up when it is due (or ``at_once``)."""
        if at_once or now_ns >= self._due_ns:
            self._due_ns = now_ns + CHECK_NS
            others = [who for key, who in self._endpoints().items() if key not in self._mine]
            self.found = (
                f"somebody else publishes {self._topic} ({', '.join(sorted(others))})" if others else ""
            )
        return self.found

    def _endpoints(self) -> dict[str, str]:
        """Id: node, of everybody who publishes the topic."""
        found = {}
        for info in self._node.get_publishers_info_by_topic(self._topic):
            who = f"{info.node_namespace.rstrip('/')}/{info.node_name}"
            found[bytes(info.endpoint_gid).hex()] = "a node not known yet" if UNKNOWN in who else who
        return found

    def _read(self) -> list[str]:
        try:
            with self._path.open("rb") as file:
                return msgspec.json.decode(file.read(FILE_MAX_BYTES), type=list[str])[-OWN_MAX:]
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return []
