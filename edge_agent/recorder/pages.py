"""A log by row number, however long it is: only the blocks that are looked at are in memory."""

from bisect import bisect_right
from collections import OrderedDict
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from contracts.decision import DECISION_DTYPE
from contracts.errors import LogFormatError
from edge_agent.recorder.incidents import Incident
from edge_agent.recorder.reading import LiveSegment, LogIndex
from edge_agent.recorder.sealed import PartKind, SealedSegment

BLOCKS_KEPT = 16
Rows = npt.NDArray[np.void]


class Page:
    """A block of a sealed segment, or a whole live one: how many decisions, when, how bad."""

    def __init__(self, source: SealedSegment | LiveSegment, block: int) -> None:
        self.source, self.block = source, block
        if isinstance(source, LiveSegment):
            rows = source.decisions
            self.count = len(rows)
            self.seqs = (int(source.seqs[0]), int(source.seqs[-1])) if self.count else (0, 0)
            self.wall_ns = (int(rows["wall_ns"][0]), int(rows["wall_ns"][-1])) if self.count else (0, 0)
            self.worst = int(rows["verdict"].max(initial=0))
        else:
            entry = source.blocks[block]
            self.count = 0 if source.lost_class(block, PartKind.SAMPLES) else entry.decisions
            self.seqs, self.wall_ns, self.worst = (
                (entry.first_seq, entry.last_seq),
                entry.wall_ns,
                entry.verdict_max,
            )

    def rows(self) -> Rows:
        """Its decisions; raises LogFormatError."""
        return (
            self.source.decisions
            if isinstance(self.source, LiveSegment)
            else self.source.decisions(self.block)
        )

    def numbers(self) -> npt.NDArray[np.uint64]:
        """Their sequence numbers."""
        return (
            self.source.seqs
            if isinstance(self.source, LiveSegment)
            else self.source.decision_seqs(self.block)
        )


class Pages:
    """All decisions of an opened log, numbered from 0."""

    def __init__(self, index: LogIndex) -> None:
        """Nothing is read yet."""
        pages = [Page(segment, block) for segment in index.sealed for block in range(len(segment.blocks))]
        pages += [Page(live, 0) for live in index.live]
        self.pages = [page for page in pages if page.count]
        self._starts = [0, *accumulate(page.count for page in self.pages)]
        self._cache: OrderedDict[int, Rows] = OrderedDict()
        self.damage: list[str] = []

    def __len__(self) -> int:
        return self._starts[-1]

    def rows(self, low: int, high: int) -> Rows:
        """DECISION_DTYPE[high - low], cut to what there is."""
        low, high = max(low, 0), min(high, len(self))
        parts = []
        at = low
        while at < high:
            number = bisect_right(self._starts, at) - 1
            start = self._starts[number]
            parts.append(self._page(number)[at - start : high - start])
            at = start + self.pages[number].count
        return np.concatenate(parts) if parts else np.zeros(0, DECISION_DTYPE)

    def seq(self, row: int) -> int:
        """The sequence number of a row; IndexError outside."""
        number = bisect_right(self._starts, row) - 1
        return int(self.pages[number].numbers()[row - self._starts[number]])

    def row_of(self, incident: Incident) -> int:
        """The row of an incident's decision; of an event, the last decision before it."""
        for number, page in enumerate(self.pages):
            if (
                page.seqs[0] <= incident.seq <= page.seqs[1]
                and page.wall_ns[0] <= incident.wall_ns <= page.wall_ns[1]
            ):
                place = int(np.searchsorted(page.numbers(), incident.seq, side="right")) - 1
                return self._starts[number] + max(place, 0)
        before = [n for n, page in enumerate(self.pages) if page.wall_ns[1] <= incident.wall_ns]
        return self._starts[before[-1] + 1] - 1 if before else 0

    def worst(self, columns: int) -> list[int]:
        """The worst verdict of each of ``columns`` equal parts of the log, by pages."""
        result = [-1] * columns
        for number, page in enumerate(self.pages):
            first = self._starts[number] * columns // max(len(self), 1)
            last = (self._starts[number + 1] - 1) * columns // max(len(self), 1)
            for column in range(first, last + 1):
                result[column] = max(result[column], page.worst)
        return result

    def _page(self, number: int) -> Rows:
        if number not in self._cache:
            try:
                rows = self.pages[number].rows()
            except LogFormatError as error:
                self.damage.append(str(error))
                rows = np.zeros(self.pages[number].count, DECISION_DTYPE)
            self._cache[number] = rows
            while len(self._cache) > BLOCKS_KEPT:
                self._cache.popitem(last=False)
        self._cache.move_to_end(number)
        return self._cache[number]
