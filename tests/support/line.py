"""A TCP line between a robot and its hub that can be cut, and that counts what goes to the robot."""

import contextlib
import selectors
import socket
import threading

BLOCK_BYTES = 64 * 1024


class Line(threading.Thread):
    """Forwards every connection to ``port``; one thread, until ``close``."""

    _turn_s = 0.05

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._ending = self._dark = False
        self.to_robot_bytes = 0

    def run(self) -> None:
        while not self._ending:
            for key, _ in self._selector.select(self._turn_s):
                if key.data is None:
                    self._accept()
                else:
                    self._forward(key.fileobj, *key.data)  # type: ignore[arg-type]
            self.turn()
            if self._dark:
                self._end_all()

    def turn(self) -> None:
        """What else is due; nothing on a good line."""

    def _accept(self) -> None:
        robot, _ = self._listener.accept()
        try:
            if self._dark:
                raise ConnectionRefusedError
            hub = socket.create_connection(("127.0.0.1", self._target), 1.0)
        except OSError:
            robot.close()
            return
        self._pairs.append((robot, hub))
        self._selector.register(robot, selectors.EVENT_READ, (hub, False))
        self._selector.register(hub, selectors.EVENT_READ, (robot, True))

    def _forward(self, source: socket.socket, target: socket.socket, to_robot: bool) -> None:
        try:
            data = source.recv(BLOCK_BYTES)
            if data:
                target.sendall(data)
        except OSError:
            data = b""
        if to_robot:
            self.to_robot_bytes += len(data)
        if not data:
            self._end(source)

    def _end(self, one: socket.socket) -> None:
        for pair in [pair for pair in self._pairs if one in pair]:
            self._pairs.remove(pair)
            for side in pair:
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(side)
                side.close()

    def _end_all(self) -> None:
        for robot, _ in list(self._pairs):
            self._end(robot)

    def cut(self) -> None:
        """Every connection ends, and none is made until ``mend``."""
        self._dark = True

    def mend(self) -> None:
        """Connections can be made again."""
        self._dark = False

    def close(self) -> None:
        """End it."""
        self._ending = True
        self.join()
        self._end_all()
        self._listener.close()
        self._selector.close()
