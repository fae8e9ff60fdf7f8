"""The hub's intake: records a second over CURVE onto a synced disk, and how long a whole fleet needs to come back.

``python -m benchmarks.telemetry_intake [--quick]``. Prints JSON lines.

A real recorder wrote the records and the real uplink made the messages; 32 robots, each with its own key and the
agent's own connection, send them as the uplink does (so many in flight, on with each acknowledgement) to a real
``outrider hub run``. Timed from the first batch to the last acknowledgement, which comes after the sync; afterwards
what the hub stored is held against what was sent, byte for byte. The reference is the plainest way without a promise:
the same records, one a message, PUSH to PULL between two processes, no keys, no disk. Both take turns in one run.

Then 4,000 robots with a log each at the hub lose it: from the new hub's start until every one has its Welcome.
"""

import contextlib
import multiprocessing
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import msgspec
import zmq

from benchmarks._report import peak_mb, quick_asked, report
from benchmarks.store_queries import rows_of
from contracts.framelog import FRAME_OVERHEAD, list_segments
from contracts.keyring import (
    AUTHORIZED_FOLDER,
    CURVE_FILE,
    HUB_PUBLIC_FILE,
    ROBOTS_FILE,
    AllowList,
    CurvePair,
    CurvePublic,
    read_key_file,
)
from contracts.messages import Ack, FromRobot, Hello, Records, Welcome
from contracts.observation import ROUTING_LAYOUT
from edge_agent.recorder.recorder import Recorder
from edge_agent.uplink.link import HubLink
from edge_agent.uplink.uplink import IN_FLIGHT_MAX, Uplink
from fleet_hub.intake.intake import Intake
from fleet_hub.memory import keep_message_buffers

ROBOTS, FLEET = 32, 4_000
RECORDS, RECORDS_QUICK = 16_000, 8_000
"""Of each robot in each turn."""
TURNS, TURNS_QUICK = 5, 3
FLEET_RECORDS = 100
"""Which each of the 4,000 has at the hub before it goes away."""
WAIT_MAX_S = 120.0
POLL_S = 0.02
"""As an agent's comms process looks at its link."""
BOOT = "ab" * 16
SPAWN = multiprocessing.get_context("spawn")


class Robot:
    """One robot's connection, and batches that wait to be sent as the uplink would send them."""

    def __init__(
        self, number: int, endpoint: str, keys: Path, log_id: str, context: "zmq.Context[Any]"
    ) -> None:
        self.log_id, self.waiting = log_id, deque[Records]()
        self.sent: deque[Records] = deque()
        self.durable_seq = -1
        name = f"robot_{number}"
        hello = Hello(name, BOOT, log_id, 0, "amr_small", ROUTING_LAYOUT.hash(), "", "")
        self.link = HubLink(endpoint, keys / "robots" / name, lambda: hello, number, context)

    def step(self, now_ns: int) -> bool:
        """Take what came, send what may be sent; whether anything happened."""
        came = self.link.receive(now_ns)
        for message in came:
            if isinstance(message, Welcome):
                self.waiting.extendleft(reversed(self.sent))
                self.sent.clear()
            if isinstance(message, Ack | Welcome):
                self.durable_seq = message.durable_seq
                while self.sent and self.sent[0].first_seq + self.sent[0].count - 1 <= message.durable_seq:
                    self.sent.popleft()
        self.link.step(now_ns, 0)
        sent = False
        while self.waiting and self.link.online and len(self.sent) < IN_FLIGHT_MAX:
            batch = self.waiting[0]
            if not self.link.send(batch):
                break
            self.sent.append(self.waiting.popleft())
            sent = True
        assert not self.link.last_refusal, self.link.last_refusal
        return sent or bool(came)


def make_keys(folder: Path) -> None:
    """Keys of a fleet of FLEET robots."""
    from outrider.verbs.keys import init

    with contextlib.redirect_stdout(sys.stderr):
        init(folder, "robot_0")
    hub = read_key_file(folder / "hub" / CURVE_FILE, CurvePair, private=True)
    listed = {}
    for number in range(FLEET):
        own = folder / "robots" / f"robot_{number}"
        own.mkdir(exist_ok=True)
        public, secret = (key.decode() for key in zmq.curve_keypair())
        (own / CURVE_FILE).write_bytes(msgspec.json.encode(CurvePair(public, secret)))
        (own / CURVE_FILE).chmod(0o600)
        (own / HUB_PUBLIC_FILE).write_bytes(msgspec.json.encode(CurvePublic(hub.public)))
        listed[public] = own.name
    (folder / "hub" / AUTHORIZED_FOLDER / ROBOTS_FILE).write_bytes(msgspec.json.encode(AllowList(listed)))


def make_batches(folder: Path, count: int) -> list[Records]:
    """What the agent's uplink sends of a log of at least ``count`` records that its recorder wrote."""
    recorder = Recorder(folder, "robot_0")
    records = [row.tobytes() for row in rows_of(0, 0, count)]
    for start in range(0, count, 50):
        recorder.decisions(records[start : start + 50])
    recorder.sync()
    batches: list[Records] = []

    def send(message: FromRobot) -> bool:
        assert isinstance(message, Records)
        batches.append(message)
        return True

    uplink = Uplink(recorder, send)
    uplink.on_welcome(0)
    while uplink.unsent:
        uplink.step(0)
        uplink.on_ack(Ack(recorder.log_id, batches[-1].first_seq + batches[-1].count - 1))
    recorder.close()
    return batches


def start_hub(data: Path, keys: Path, port: int) -> "subprocess.Popen[str]":
    """A real hub; returns when it listens."""
    command = [sys.executable, "-m", "outrider.cli", "hub", "run", "--data", str(data), "--keys", str(keys)]
    command += ["--listen", f"tcp://127.0.0.1:{port}", "--no-ingest"]
    hub = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert hub.stdout is not None
    line = hub.stdout.readline()
    assert "hub listens" in line, line
    return hub


def send_all(endpoint: str, keys: Path, batches: list[Records], turn: int, results: "Queue[Any]") -> None:
    """A process: ROBOTS robots send the batches as logs of their own; the time from first send to last ack."""
    keep_message_buffers()  # 32 robots' memory is in one process here
    context: zmq.Context[Any] = zmq.Context()
    robots = [Robot(n, endpoint, keys, f"{turn * ROBOTS + n:032x}", context) for n in range(ROBOTS)]
    wait(robots, lambda robot: robot.link.online)
    last = batches[-1].first_seq + batches[-1].count - 1
    for robot in robots:
        robot.waiting.extend(msgspec.structs.replace(batch, log_id=robot.log_id) for batch in batches)
    began_s = time.perf_counter()
    wait_for_acks(robots, last)
    results.put(ROBOTS * last / (time.perf_counter() - began_s))
    for robot in robots:
        robot.link.close()
    context.term()


def wait_for_acks(robots: list[Robot], last_seq: int) -> None:
    """Let them work until all is acknowledged; as on a robot, a link is looked at when something came over it."""
    poller, owners = zmq.Poller(), {robot.link.socket: robot for robot in robots}
    for socket in owners:
        poller.register(socket, zmq.POLLIN)
    end_s, all_s = time.monotonic() + WAIT_MAX_S, 0.0
    while any(robot.durable_seq < last_seq for robot in robots):
        ready = [owners[socket] for socket, _ in poller.poll(int(POLL_S * 1000))]
        if time.monotonic() - all_s >= POLL_S:
            ready, all_s = robots, time.monotonic()
        now_ns = time.monotonic_ns()
        for robot in ready:
            robot.step(now_ns)
        assert now_ns < end_s * 1e9, f"not all was acknowledged within {WAIT_MAX_S} s"


def wait(robots: list[Robot], done: Callable[[Robot], bool], pause_s: float = 0.0005) -> None:
    """Let them work until ``done`` holds for all; a pause where nothing happened."""
    end_s = time.monotonic() + WAIT_MAX_S
    left = robots
    while left:
        now_ns = time.monotonic_ns()
        busy = sum(robot.step(now_ns) for robot in robots)
        left = [robot for robot in left if not done(robot)]
        if not busy:
            time.sleep(pause_s)
        assert now_ns < end_s * 1e9, f"{len(left)} robots were not done within {WAIT_MAX_S} s"


def push(port: int, frames: list[bytes], results: "Queue[Any]") -> None:
    """A process: every record a message."""
    context: zmq.Context[Any] = zmq.Context()
    socket = context.socket(zmq.PUSH)
    socket.connect(f"tcp://127.0.0.1:{port}")
    results.put(time.monotonic())
    for frame in frames:
        socket.send(frame)
    socket.close()
    context.term()


def bare_records_per_s(port: int, frames: list[bytes]) -> float:
    """PUSH to PULL: poll, drain, from the first record to the last."""
    context: zmq.Context[Any] = zmq.Context()
    socket = context.socket(zmq.PULL)
    socket.bind(f"tcp://127.0.0.1:{port}")
    results: Queue[Any] = SPAWN.Queue()
    sender = SPAWN.Process(target=push, args=(port, frames, results))
    sender.start()
    began_s = float(results.get(timeout=WAIT_MAX_S))
    came = 0
    while came < len(frames):
        assert socket.poll(int(WAIT_MAX_S * 1000)), f"{came} of {len(frames)} records came"
        try:
            while came < len(frames):
                socket.recv(zmq.NOBLOCK)
                came += 1
        except zmq.Again:
            continue
    took_s = time.monotonic() - began_s
    sender.join()
    socket.close()
    context.term()
    return came / took_s


def frames_of(batch: Records) -> list[bytes]:
    """The batch's frames, one by one."""
    frames, at = [], 0
    while at < len(batch.frames):
        end = at + 8 + int.from_bytes(batch.frames[at : at + 4], "little")
        frames.append(batch.frames[at:end])
        at = end
    assert len(frames) == batch.count
    assert min(map(len, frames)) > FRAME_OVERHEAD
    return frames


def check_stored(data: Path, batches: list[Records], turns: int) -> None:
    """Every log of every robot holds every byte once, in order."""
    sent = b"".join(batch.frames for batch in batches)
    for turn in range(turns):
        for robot in range(ROBOTS):
            folder = data / "telemetry" / f"robot_{robot}" / f"{turn * ROBOTS + robot:032x}"
            stored = b"".join(s.path.read_bytes()[s.data_start :] for s in list_segments(folder))
            assert stored == sent, f"{folder}: what is stored is not what was sent"


def measure_intake(work: Path, keys: Path, port: int, quick: bool) -> None:
    """Bare, hub, bare, hub ..."""
    batches = make_batches(work / "robot", RECORDS_QUICK if quick else RECORDS)
    frames = [frame for batch in batches for frame in frames_of(batch)] * ROBOTS
    hub = start_hub(work / "data", keys, port)
    bare, full, turns = [], [], TURNS_QUICK if quick else TURNS
    results: Queue[Any] = SPAWN.Queue()
    try:
        for turn in range(turns):
            bare.append(bare_records_per_s(port + 1, frames))
            arguments = (f"tcp://127.0.0.1:{port}", keys, batches, turn, results)
            sender = SPAWN.Process(target=send_all, args=arguments)
            sender.start()
            full.append(results.get(timeout=WAIT_MAX_S))
            sender.join()
        rss_mb = peak_mb(hub.pid)
        check_stored(work / "data", batches, turns)
    finally:
        hub.kill()
        hub.wait()
    sizes = f"{ROBOTS} robots, {sum(map(len, frames)) / len(frames):.0f} bytes a record, {batches[0].count} a batch"
    spread = f"median of {turns} turns, {min(full):,.0f} to {max(full):,.0f}"
    rate, plain = statistics.median(full), statistics.median(bare)
    about = f"CURVE, synced before each acknowledgement; {sizes}; {spread}; reference: bare PUSH/PULL"
    report("intake.records_per_s", rate, "records/s", "higher", plain, about)
    ratios = [mine / other for mine, other in zip(full, bare, strict=True)]
    about = f"times bare PUSH/PULL of single records, turn by turn: {', '.join(f'{r:.2f}' for r in ratios)}"
    report("intake.vs_bare_pushpull", statistics.median(ratios), "times", "higher", None, about)
    about = f"the hub's largest resident memory over {turns} turns of {len(frames):,} records"
    report("intake.hub_rss_mb", rss_mb, "MB", "lower", None, about)


def fleet_comes_back(
    endpoint: str, keys: Path, batch: Records, results: "Queue[Any]", orders: "Queue[str]"
) -> None:
    """A process: FLEET robots connect; on order, tell when each has its Welcome again."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    context: zmq.Context[Any] = zmq.Context()
    context.max_sockets = 4 * FLEET  # those that were closed a moment ago count too
    robots = [Robot(n, endpoint, keys, fleet_log(n), context) for n in range(FLEET)]
    wait(robots, lambda robot: robot.durable_seq >= batch.count, POLL_S)
    results.put("connected")
    while orders.empty():
        time.sleep(POLL_S)
        now_ns = time.monotonic_ns()
        for robot in robots:
            robot.step(now_ns)
    for robot in robots:
        robot.durable_seq = -1
    wait(robots, lambda robot: robot.link.online and robot.durable_seq >= batch.count, POLL_S)
    results.put(time.monotonic())
    results.close()
    results.join_thread()
    os._exit(0)  # closing 4,000 sockets one after the other takes longer than what was measured


def fleet_log(number: int) -> str:
    """The id of a robot's log."""
    return f"{10**6 + number:032x}"


def leave_records(data: Path, batch: Records) -> None:
    """A log of each robot at the hub, written by the hub's intake."""
    intake = Intake(data / "telemetry")
    for number in range(FLEET):
        intake.append(
            f"robot_{number}", msgspec.structs.replace(batch, log_id=fleet_log(number)), time.time_ns()
        )
    assert len(intake.commit()) == FLEET
    intake.close()


def measure_reconnect(work: Path, keys: Path, port: int, batch: Records) -> None:
    """The hub is killed and started anew."""
    leave_records(work / "data", batch)
    hub = start_hub(work / "data", keys, port)
    results: Queue[Any] = SPAWN.Queue()
    orders: Queue[str] = SPAWN.Queue()
    arguments = (f"tcp://127.0.0.1:{port}", keys, batch, results, orders)
    fleet = SPAWN.Process(target=fleet_comes_back, args=arguments)
    began_s = time.monotonic()
    fleet.start()
    try:
        results.get(timeout=WAIT_MAX_S)
        first_s = time.monotonic() - began_s
        hub.send_signal(signal.SIGKILL)
        hub.wait()
        orders.put("again")
        time.sleep(1.0)
        began_s = time.monotonic()
        hub = start_hub(work / "data", keys, port)
        took_s = results.get(timeout=WAIT_MAX_S) - began_s
        rss_mb = peak_mb(hub.pid)
    finally:
        hub.kill()
        hub.wait()
        fleet.kill()
        fleet.join()
    about = (
        f"{FLEET} CURVE connections, {batch.count} records each at the hub, from the start of the new hub's process to "
        f"the last Welcome; the very first time {first_s:.1f} s"
    )
    report("intake.reconnect_4000_s", took_s, "s", "lower", None, about)
    about = f"the new hub's largest resident memory, {FLEET} robots connected"
    report("intake.reconnect_rss_mb", rss_mb, "MB", "lower", None, about)


def main() -> None:
    """Measure and print."""
    quick = quick_asked(__doc__.splitlines()[0])
    work = Path(tempfile.mkdtemp(prefix="outrider-intake-"))
    try:
        make_keys(work / "keys")
        port = 20_000 + os.getpid() % 20_000
        measure_intake(work, work / "keys", port, quick)
        small = make_batches(work / "small", FLEET_RECORDS)[0]
        measure_reconnect(work / "fleet", work / "keys", port + 2, small)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
