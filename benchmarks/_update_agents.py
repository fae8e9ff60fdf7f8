"""For ``benchmarks.update_fleet``: many agents to a process, their own link, updater and check; and bare sockets."""

import multiprocessing
import os
import queue
import resource
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import zmq

from contracts.canonical import digest_hex
from contracts.messages import (
    Chunk,
    FetchFile,
    FileChunk,
    FromHub,
    FromRobot,
    Hello,
    encode,
)
from contracts.observation import ROUTING_LAYOUT
from contracts.robot import AMR_SMALL
from contracts.trust import Code, TrustError, Wanted
from edge_agent.update.check import check
from edge_agent.update.checker import CheckRequest, CheckResult
from edge_agent.update.fetchers import AskingFetcher
from edge_agent.update.mailbox import ControlMailbox
from edge_agent.update.slots import SlotStore
from edge_agent.update.updater import State, Updater
from edge_agent.uplink.link import HubLink
from fleet_hub.limits import DOWNLOAD_CHUNK_BYTES

WORKERS = 4
CHECKS_AT_ONCE = 16
"""A process; threads that mostly wait for the hub or the disk."""
STEP_S = 0.1
"""How often every agent looks at its timers."""
POLL_MS = 5
WAIT_MAX_S = 300.0
ANSWER_MAX_S = 60.0
SPAWN = multiprocessing.get_context("spawn")


def open_files() -> None:
    """One descriptor a socket and more."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)


class QueueFetcher(AskingFetcher):
    """The pipe between a checking process and comms, between two threads."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self._tell = tell
        self.questions: queue.SimpleQueue[FetchFile] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[FileChunk | None] = queue.SimpleQueue()

    def ask(self, question: FetchFile) -> FileChunk:
        """One question, one answer."""
        self.questions.put(question)
        self._tell()
        try:
            answer = self.answers.get(timeout=ANSWER_MAX_S)
        except queue.Empty:
            answer = None
        if answer is None:
            raise TrustError(Code.UNREACHABLE, "no answer")
        return answer


class ThreadChecker:
    """``BundleChecker`` with a thread in the place of its child; what is checked is the same."""

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        keys: Path,
        state: Path,
        tell: Callable[[], None],
        model: str = AMR_SMALL.name,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._pool, self._keys, self._state, self._tell = pool, keys, state, tell
        self._model, self._wall_ns = model, wall_ns
        self._future: Future[CheckResult] | None = None
        self._fetcher = QueueFetcher(tell)

    def start(self, path: Path, now_ns: int, wanted: Wanted) -> None:
        """Begin as soon as a thread is free; a check that still runs is ended."""
        del now_ns
        self.cancel()
        self._fetcher = QueueFetcher(self._tell)
        request = CheckRequest(str(path), str(self._keys), self._model, str(self._state), wanted)
        self._future = self._pool.submit(check, request, self._fetcher, self._wall_ns)
        self._future.add_done_callback(lambda _: self._tell())

    def question(self) -> FetchFile | None:
        """What the check wants."""
        try:
            return self._fetcher.questions.get_nowait()
        except queue.Empty:
            return None

    def answer(self, chunk: FileChunk) -> None:
        """What came."""
        self._fetcher.answers.put(chunk)

    def result(self, now_ns: int) -> CheckResult | None:
        """None while it lasts."""
        del now_ns
        if self._future is None or not self._future.done():
            return None
        result, self._future = self._future.result(), None
        return result

    def cancel(self) -> None:
        """End it: as with a child that is killed, nothing of it goes on when the next begins."""
        if self._future is not None:
            if not self._future.cancel():
                self._fetcher.answers.put(None)
                wait([self._future])
            self._future = None


class Agent:
    """One robot's link and updater, with a control that takes everything."""

    def __init__(
        self,
        name: str,
        endpoint: str,
        keys: Path,
        state: Path,
        context: Any,
        pool: ThreadPoolExecutor,
        news: "queue.SimpleQueue[Agent]",
    ) -> None:
        own = keys / "robots" / name
        log_id = digest_hex(name.encode())[:32]
        self.name, self.state = name, state
        hello = Hello(name, log_id, log_id, 0, AMR_SMALL.name, ROUTING_LAYOUT.hash(), "", "")
        self.link = HubLink(endpoint, own, lambda: hello, int(log_id[:8], 16), context)
        checker = ThreadChecker(pool, own, state, lambda: news.put(self))
        self.updater = Updater(state, checker, self._send, lambda *_a, **_k: None, own, name)
        self.control = ControlMailbox(state)
        self.trust_bytes = self.other_bytes = 0

    def _send(self, message: FromRobot) -> bool:
        self._count(message)
        return self.link.send(message)

    def hear(self, now_ns: int) -> None:
        """Take what came, as comms does."""
        for message in self.link.receive(now_ns):
            self._count(message)
            self.updater.on_message(message, now_ns)

    def _count(self, message: FromHub | FromRobot) -> None:
        """Bytes on the wire beside the bundle's own."""
        size = len(encode(message)) - (len(message.data) if isinstance(message, Chunk) else 0)
        if isinstance(message, FetchFile | FileChunk):
            self.trust_bytes += size
        else:
            self.other_bytes += size

    def step(self, now_ns: int) -> None:
        """Timers, and control's answer."""
        self.link.step(now_ns, 0)
        self.updater.step(now_ns)
        if self.updater.state is State.WAITING and (candidate := self.control.poll()):
            self.control.answer(candidate, True)
            self.updater.step(now_ns)


def work(
    names: list[str], endpoint: str, keys: Path, state: Path, out: "Queue[Any]", orders: "Queue[str]"
) -> None:
    """A process with many agents; on each digest tells who does not run it and what each has talked, ends on ""."""
    import edge_agent.update.golden  # noqa: F401 - onnxruntime's import is not timed

    open_files()
    context: zmq.Context[Any] = zmq.Context()
    context.max_sockets = 4 * len(names) + 64
    pool = ThreadPoolExecutor(CHECKS_AT_ONCE)
    news: queue.SimpleQueue[Agent] = queue.SimpleQueue()
    agents = [Agent(name, endpoint, keys, state / name, context, pool, news) for name in names]
    poller, online, step_ns = zmq.Poller(), False, 0
    by_socket = {agent.link.socket: agent for agent in agents}
    for socket in by_socket:
        poller.register(socket, zmq.POLLIN)
    while True:
        for socket, _ in poller.poll(POLL_MS):
            by_socket[socket].hear(time.monotonic_ns())
        now_ns = time.monotonic_ns()
        while not news.empty():
            news.get().step(now_ns)
        if now_ns - step_ns > STEP_S * 1e9:
            step_ns = now_ns
            for agent in agents:
                before = agent.link.socket
                agent.step(now_ns)
                if agent.link.socket is not before:  # opened anew after long silence
                    poller.unregister(before)
                    del by_socket[before]
                    poller.register(agent.link.socket, zmq.POLLIN)
                    by_socket[agent.link.socket] = agent
            if not online and all(agent.link.online for agent in agents):
                online = True
                out.put("online")
            if not orders.empty():
                if not (digest := orders.get()):
                    break
                wrong = [agent.name for agent in agents if not _runs(agent, digest)]
                out.put((wrong, [(agent.trust_bytes, agent.other_bytes) for agent in agents]))
                for agent in agents:
                    agent.trust_bytes = agent.other_bytes = 0
    out.close()
    out.join_thread()
    os._exit(0)  # closing so many sockets one after the other takes seconds


def _runs(agent: Agent, digest: str) -> bool:
    active = SlotStore(agent.state).active()
    return active is not None and active.digest == digest


def bare_client(port: int, count: int, server: bytes, size: int, out: "Queue[Any]", go: Any) -> None:
    """A process: DEALERs that ask for the next chunk when they have one."""
    open_files()
    context: zmq.Context[Any] = zmq.Context()
    context.max_sockets = 2 * count + 64
    left: dict[Any, int] = {}
    poller = zmq.Poller()
    for _ in range(count):
        socket = context.socket(zmq.DEALER)
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        socket.curve_serverkey = server
        socket.connect(f"tcp://127.0.0.1:{port}")
        socket.send(b"hello")
        poller.register(socket, zmq.POLLIN)
        left[socket] = size
    for socket in left:
        socket.recv()
    out.put("ready")
    go.wait()
    before_s = time.process_time()
    for socket in left:
        socket.send(b"next")
    while left:
        for socket, _ in poller.poll():
            left[socket] -= len(socket.recv())
            if left[socket] > 0:
                socket.send(b"next")
            else:
                poller.unregister(socket)
                del left[socket]
    out.put((time.monotonic(), time.process_time() - before_s))
    out.close()
    out.join_thread()
    os._exit(0)


def bare_s(agents: int, bundle: bytes) -> tuple[float, float]:
    """Seconds, and CPU seconds of both sides, in which a bare ROUTER serves the bundle to so many bare DEALERs.

    Nothing is verified, nothing written.
    """
    context: zmq.Context[Any] = zmq.Context()
    context.max_sockets = 2 * agents + 64
    socket = context.socket(zmq.ROUTER)
    socket.linger = 0
    public, secret = zmq.curve_keypair()
    socket.curve_server, socket.curve_publickey, socket.curve_secretkey = True, public, secret
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    out: Queue[Any] = SPAWN.Queue()
    go = SPAWN.Event()
    share = agents // WORKERS
    clients = [
        SPAWN.Process(target=bare_client, args=(port, share, public, len(bundle), out, go))
        for _ in range(WORKERS)
    ]
    for client in clients:
        client.start()
    for _ in range(share * WORKERS):
        socket.send_multipart([socket.recv_multipart()[0], b"welcome"])
    for _ in clients:
        out.get(timeout=WAIT_MAX_S)
    chunks = [bundle[at : at + DOWNLOAD_CHUNK_BYTES] for at in range(0, len(bundle), DOWNLOAD_CHUNK_BYTES)]
    given: dict[bytes, int] = {}
    began_s, before_s = time.monotonic(), time.process_time()
    go.set()
    for _ in range(share * WORKERS * len(chunks)):
        peer = socket.recv_multipart()[0]
        number = given.get(peer, 0)
        given[peer] = number + 1
        socket.send_multipart([peer, chunks[number]], copy=False)
    ended = [out.get(timeout=WAIT_MAX_S) for _ in clients]
    used_s = time.process_time() - before_s + sum(cpu_s for _, cpu_s in ended)
    for client in clients:
        client.join()
    socket.close()
    context.term()
    return max(end_s for end_s, _ in ended) - began_s, used_s
