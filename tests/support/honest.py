"""A process with many robots that update themselves as robots do, for ``tests/system/test_honest_updates``.

Link, routes, updater and check are the agent's own, files and fsyncs too; the check runs in a thread in the place of a
child (``benchmarks._update_agents``), control takes everything. Any of them may be ended and started again, and each
has a clock that is wrong by as much as is allowed.
"""

import itertools
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import zmq

from benchmarks._update_agents import ThreadChecker, open_files
from contracts.canonical import digest_hex
from contracts.keyring import MIRROR_PUBLIC_FILE
from contracts.messages import Chunk, FileChunk, FromRobot, Hello, RolloutReport, Wait
from contracts.observation import ROUTING_LAYOUT
from edge_agent.update.mailbox import ControlMailbox
from edge_agent.update.updater import State, Updater
from edge_agent.uplink.link import HubLink
from edge_agent.uplink.routes import Routes

CHECKS_AT_ONCE = 4
TURN_S = 0.01
CLOCK_OFF_MAX_S = 50.0
"""Twice as much, from one reading to the next, is within the 120 s that a clock may be set back."""
REFUSALS_MAX = 50
RESTARTS_MAX = 2
"""Of one robot before it comes to rest: a busy machine would never let it get to an end."""


class Site(NamedTuple):
    """Where robots find what they need."""

    hub: str
    mirror: str
    keys: Path
    states: Path


class Tally:
    """What robots have done."""

    def __init__(self) -> None:
        self.updates: set[tuple[str, str]] = set()
        self.counts: Counter[str] = Counter()
        self.refusals: list[str] = []

    def hear(self, robot: str, message: FromRobot) -> None:
        """What a robot says to the hub."""
        if isinstance(message, RolloutReport):
            self.counts[message.state] += 1
            if message.state == "active":
                self.updates.add((robot, message.digest))
            if message.state in ("refused", "failed") and len(self.refusals) < REFUSALS_MAX:
                self.refusals.append(f"{robot} {message.state} {message.code}: {message.reason}")


class Robot:
    """One robot; ``start`` again after ``end`` goes on with what is on disk."""

    def __init__(
        self, name: str, model: str, site: Site, pool: ThreadPoolExecutor, tally: Tally, seed: int
    ) -> None:
        self.name, self._model, self._site, self._pool, self._tally = name, model, site, pool, tally
        self._draw = random.Random(f"{seed} {name}")
        self._keys, self.state = site.keys / "robots" / name, site.states / name
        self._boots = itertools.count(1)
        self.updater: Updater | None = None
        self.restarts_left = RESTARTS_MAX

    def start(self, context: "zmq.Context[Any]") -> None:
        """Come up and connect."""
        boot = digest_hex(f"{self.name} {next(self._boots)}".encode())[:32]
        hello = Hello(self.name, boot, boot, 0, self._model, ROUTING_LAYOUT.hash(), "", "")
        self._hub = HubLink(self._site.hub, self._keys, lambda: hello, self._draw.randrange(1 << 30), context)
        self._mirror: HubLink | None = None
        if (self._keys / MIRROR_PUBLIC_FILE).exists():
            seed = self._draw.randrange(1 << 30)
            self._mirror = HubLink(
                self._site.mirror, self._keys, lambda: hello, seed, context, MIRROR_PUBLIC_FILE
            )
        self._routes = Routes(self._hub, self._mirror, time.monotonic_ns, self._note)
        checker = ThreadChecker(self._pool, self._keys, self.state, lambda: None, self._model, self._wall_ns)
        self.updater = Updater(
            self.state, checker, self._send, self._note, self._keys, self.name, self._wall_ns,
            draw=self._draw, other_way=self._routes.other_way,
        )  # fmt: skip
        self._control = ControlMailbox(self.state)

    def end(self) -> None:
        """Gone in the middle of whatever it did; nothing is written down."""
        if self.updater is not None:
            self.updater.close()
            self._hub.close()
            if self._mirror:
                self._mirror.close()
            self.updater = None

    def turn(self, now_ns: int) -> None:
        """As comms does, and control."""
        updater = self.updater
        if updater is None:
            return
        for message in self._hub.receive(now_ns):
            updater.on_message(message, now_ns)
        self._hub.step(now_ns, 0)
        if self._mirror:
            for message in self._mirror.receive(now_ns):
                if isinstance(message, Chunk | FileChunk | Wait) and self._routes.heard(message):
                    self._tally.counts["by_mirror"] += isinstance(message, Chunk)
                    updater.on_message(message, now_ns)
            self._mirror.step(now_ns, 0)
            if self._routes.step(now_ns):
                updater.on_online(now_ns)
        updater.step(now_ns)
        if updater.state is State.WAITING and (candidate := self._control.poll()):
            self._control.answer(candidate, True)
            self.restarts_left = RESTARTS_MAX

    @property
    def may_be_ended(self) -> bool:
        """Whether it is in the middle of something, and was not ended too often in that."""
        return self.updater is not None and self.updater.state is not State.IDLE and self.restarts_left > 0

    def _send(self, message: FromRobot) -> bool:
        self._tally.hear(self.name, message)
        return self._routes.send(message)

    def _note(self, name: str, **fields: Any) -> None:
        del fields
        self._tally.counts[name] += 1

    def _wall_ns(self) -> int:
        return time.time_ns() + int(self._draw.uniform(-1.0, 1.0) * CLOCK_OFF_MAX_S * 1e9)


def work(robots: list[tuple[str, str]], site: Site, seed: int, restart_s: float, orders: Connection) -> None:
    """A process. ``robots`` are (name, model); every ``restart_s`` one that is busy is ended and started again.

    Hears ("end", names), ("start", names), ("tell",) and ("stop",); answers each.
    """
    import edge_agent.update.golden  # noqa: F401 - once, before any clock runs

    open_files()
    context: zmq.Context[Any] = zmq.Context()
    context.max_sockets = 4 * len(robots) + 64
    draw, tally, pool = random.Random(seed), Tally(), ThreadPoolExecutor(CHECKS_AT_ONCE)
    fleet = {name: Robot(name, model, site, pool, tally, seed) for name, model in robots}
    for robot in fleet.values():
        robot.start(context)
    restart_ns = time.monotonic_ns()
    while True:
        now_ns = time.monotonic_ns()
        for robot in fleet.values():
            robot.turn(now_ns)
        busy = [robot for robot in fleet.values() if robot.may_be_ended]
        if busy and now_ns - restart_ns > restart_s * 1e9 * draw.uniform(0.5, 1.5):
            restart_ns, robot = now_ns, draw.choice(busy)
            tally.counts[f"restarted {robot.updater.state.value}" if robot.updater else ""] += 1
            robot.restarts_left -= 1
            robot.end()
            robot.start(context)
        if orders.poll(TURN_S):
            what, *names = orders.recv()
            for name in names:
                if name in fleet:
                    fleet[name].end()
                    if what == "start":
                        fleet[name].start(context)
            orders.send((tally.updates, tally.counts, tally.refusals) if what == "tell" else None)
            if what == "stop":
                break
    for robot in fleet.values():
        robot.end()
    pool.shutdown()
    context.destroy(0)
