"""A TCP line as bad radio makes it: lost segments are stalls, for TCP sends them again; slow, late, and cut.

CURVE rides on TCP, so loss never shows as missing bytes: it shows as time, and at last as a cut in mid-frame.
"""

import random
import socket
import time
from collections import deque

from tests.support.line import Line

SEGMENT_BYTES = 16 * 1024
RETRY_S = 0.2
"""TCP's first retransmission timeout (RFC 6298's lower end in Linux); doubled each time the same segment is lost."""
RETRIES_MAX = 4
QUEUE_MAX_BYTES = 256 * 1024


class BadLine(Line):
    """``loss`` is a share of segments, ``cut_after`` how many segments a connection lives on average."""

    _turn_s = 0.005

    def __init__(
        self, port: int, draw: random.Random, loss: float, delay_s: float, bytes_a_s: float, cut_after: float
    ) -> None:
        super().__init__(port)
        self._draw, self._loss, self._delay_s, self._bytes_a_s = draw, loss, delay_s, bytes_a_s
        self._cut_after = cut_after
        self._queues: dict[socket.socket, deque[tuple[float, socket.socket, bytes]]] = {}
        self.cuts = self.lost = 0

    def turn(self) -> None:
        """Hand on what has arrived by now."""
        now_s = time.monotonic()
        for source, queue in list(self._queues.items()):
            while queue and queue[0][0] <= now_s:
                _, target, data = queue.popleft()
                try:
                    target.sendall(data)
                except OSError:
                    self._end(source)
                    break
            if source.fileno() < 0:
                self._queues.pop(source, None)

    def _forward(self, source: socket.socket, target: socket.socket, to_robot: bool) -> None:
        queue = self._queues.setdefault(source, deque())
        if sum(len(data) for _, _, data in queue) > QUEUE_MAX_BYTES:
            time.sleep(0.001)
            return
        try:
            data = source.recv(SEGMENT_BYTES)
        except OSError:
            data = b""
        if data and self._draw.random() < 1.0 / self._cut_after:
            self.cuts += 1
            data = data[: self._draw.randrange(len(data))]  # the rest of the frame never comes
            self._count(data, to_robot)
            self._end(source)
            return
        if not data:
            self._end(source)
            return
        self._count(data, to_robot)
        stall_s, retry_s = 0.0, RETRY_S
        for _ in range(RETRIES_MAX):
            if self._draw.random() >= self._loss:
                break
            self.lost += 1
            stall_s, retry_s = stall_s + retry_s, 2.0 * retry_s
        before_s = queue[-1][0] if queue else 0.0
        wire_s = len(data) / self._bytes_a_s
        queue.append((max(before_s, time.monotonic() + self._delay_s) + wire_s + stall_s, target, data))

    def _count(self, data: bytes, to_robot: bool) -> None:
        if to_robot:
            self.to_robot_bytes += len(data)
