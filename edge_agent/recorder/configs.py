"""Which settings stand behind the short digest that every decision bears: told in the log, and found there again."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from contracts.decision import digest_runs
from contracts.framelog import Event
from edge_agent.effective import EFFECTIVE_MAX_BYTES, read_config, short_digest

CONFIG_EVENT = "control_config"
PART_BYTES = 8 * 1024
"""Of one event: the whole of a usual configuration."""
PARTS_MAX = EFFECTIVE_MAX_BYTES // PART_BYTES
Detail = dict[str, str | int | float | bool]


class ConfigTeller:
    """Finds digests that this process has not told of yet."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir, self._told = state_dir, set[str]()

    def news(self, digests: npt.NDArray[np.uint8]) -> Iterator[Detail]:
        """Details of the events that are due for digests uint8[n, 8]; of one whose file is gone, none."""
        for _, _, digest in digest_runs(digests):
            if not digest or digest in self._told:
                continue
            self._told.add(digest)
            text = read_config(self._state_dir, bytes.fromhex(digest))
            if text is None:
                continue
            parts = [text[at : at + PART_BYTES] for at in range(0, len(text), PART_BYTES)]
            for number, part in enumerate(parts):
                # Latin-1 maps bytes one to one: a character may lie across two parts.
                yield {
                    "digest": digest, "part": number, "parts": len(parts), "text": part.decode("latin-1"),
                }  # fmt: skip


def configs_in(events: Iterable[tuple[int, Event]]) -> dict[str, bytes | None]:
    """The settings that a log's events tell of, by digest in order of appearance; None where they are not whole."""
    parts: dict[str, dict[int, bytes]] = {}
    for _, event in events:
        if event.name == CONFIG_EVENT:
            detail = event.detail
            own = parts.setdefault(str(detail.get("digest", "")), {})
            own[int(detail.get("part", 0))] = str(detail.get("text", "")).encode("latin-1", "replace")
    found: dict[str, bytes | None] = {}
    for digest, own in parts.items():
        text = b"".join(own[number] for number in sorted(own))
        found[digest] = text if short_digest(text).hex() == digest else None
    return found
