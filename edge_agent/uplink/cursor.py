"""Reads frames back out of the log that is being written: the log is the send queue."""

from pathlib import Path

from contracts.framelog import frame_end, list_segments, walk_frames

READ_BYTES = 512 * 1024


class LogCursor:
    """A place in one log: the next record to be read."""

    def __init__(self, folder: Path) -> None:
        """Nothing is opened before ``seek``."""
        self._folder = folder
        self._log_id = ""
        self._path: Path | None = None
        self._offset = 0
        self.next_seq = 1

    def seek(self, log_id: str, seq: int) -> None:
        """Go to record ``seq``; where the log begins later (older segments are gone), to its first."""
        self._log_id, self.next_seq = log_id, seq
        self._path = None

    def read(self, last_seq: int, count_max: int, bytes_max: int) -> tuple[int, int, bytes]:
        """(first sequence, count, frames) of the next records up to ``last_seq``; count 0 for none."""
        for _ in range(2):
            if self.next_seq > last_seq or (self._path is None and not self._locate()):
                break
            first, count, frames = self._take(last_seq, count_max, bytes_max)
            if count:
                self.next_seq += count
                return first, count, frames
            self._path = None
        return self.next_seq, 0, b""

    def _locate(self) -> bool:
        mine = [s for s in list_segments(self._folder) if s.header and s.header.log_id == self._log_id]
        before = [s for s in mine if s.header and s.header.first_seq <= self.next_seq]
        if not before:
            return False
        segment = before[-1]
        self._path, self._offset = segment.path, segment.data_start
        data = segment.path.read_bytes()
        for _, seq, at in walk_frames(data, segment.data_start):
            if seq >= self.next_seq:
                break
            self._offset = frame_end(data, at)
        return True

    def _take(self, last_seq: int, count_max: int, bytes_max: int) -> tuple[int, int, bytes]:
        assert self._path is not None
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(min(READ_BYTES, bytes_max))
        except FileNotFoundError:
            return self.next_seq, 0, b""
        count = end = 0
        for _, seq, at in walk_frames(data):
            if seq != self.next_seq + count or seq > last_seq or count >= count_max:
                break
            count, end = count + 1, frame_end(data, at)
        self._offset += end
        return self.next_seq, count, data[:end]
