"""The comms process: ring to log, log to hub, updates from hub. ``python -m edge_agent.comms --config
FILE.json``.

One loop, no threads. May be killed and started again at any moment without control noticing.
"""

import argparse
import signal
import sys
import time
import zlib
from pathlib import Path
from typing import Annotated

import msgspec

from contracts.errors import ContractError, KeyFileError, RingError
from contracts.keyring import MIRROR_PUBLIC_FILE, ROBOT_ID_PATTERN, party_folder
from contracts.messages import (
    Ack,
    Chunk,
    EraseOrder,
    FileChunk,
    FromHub,
    Hello,
    SignedTime,
    Stored,
    Wait,
    Welcome,
)
from contracts.observation import ROUTING_LAYOUT
from contracts.ring import RING_SLOTS, SCAN_SLOTS, SCANS, RingReader
from contracts.tracing import open_sink
from edge_agent.config import load_settings
from edge_agent.errors import AgentError, ConfigError
from edge_agent.recorder.recorder import Recorder
from edge_agent.update.checker import BundleChecker
from edge_agent.update.clock import HubClock
from edge_agent.update.tracing import UpdateTrace
from edge_agent.update.updater import Updater
from edge_agent.uplink.audit import AUDIT_INTERVAL_S, Audit
from edge_agent.uplink.erasures import Erasures
from edge_agent.uplink.link import HubLink
from edge_agent.uplink.routes import Routes
from edge_agent.uplink.uplink import Uplink

POLL_MS = 20
FLUSH_MAX_S = 3.0
RING_RETRY_S = 0.2


class CommsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What comms needs to know. ``keys_dir`` is the robot's own key folder, or the whole fleet's."""

    robot_id: Annotated[str, msgspec.Meta(pattern=ROBOT_ID_PATTERN)]
    state_dir: str
    hub_endpoint: str
    keys_dir: str
    ring_name: str
    robot_model: str = "amr_small"
    audit_interval_s: Annotated[float, msgspec.Meta(ge=0.1, le=86_400.0)] = AUDIT_INTERVAL_S
    """How often the hub must prove that it has what it acknowledged (``uplink.audit``)."""
    traces: str = ""
    """Where spans of updates go (``contracts.tracing``): a file, or a URL for OTLP; "" is nowhere."""
    mirror_endpoint: str = ""
    """Where image metadata and bundles are fetched from; "" is the hub."""


class Comms:
    """Everything of one comms process."""

    def __init__(self, config: CommsConfig) -> None:
        """Open log, slots and keys; raises AgentError or ContractError."""
        self._config = config
        state = Path(config.state_dir)
        state.mkdir(parents=True, exist_ok=True)
        keys = party_folder(Path(config.keys_dir), "robots", config.robot_id)
        self._ring: RingReader | None = None
        self._ring_retry_ns = self._scan_retry_ns = 0
        self._scan_ring: RingReader | None = None
        self._ring_dropped = 0
        self._stopping = False
        self._was_online = False
        self.recorder = Recorder(state, config.robot_id)
        seed = zlib.crc32(config.robot_id.encode())
        try:
            self.link, self.mirror = self._open_links(keys, seed)
        except KeyFileError as error:
            # The supervisor starts it again and again, and says where to look; the robot's own log says it, too.
            self.recorder.event("keys_unusable", why=str(error))
            self.recorder.close()
            raise
        audit = Audit(self.link.send, self.recorder.event, seed, config.audit_interval_s)
        self.uplink = Uplink(self.recorder, self.link.send, audit)
        self.erasures = Erasures(self.recorder, state, keys, self.link.send)
        self.clock = HubClock(state, keys, config.robot_id, self.link.send, self.recorder.event)
        self.routes = Routes(self.link, self.mirror, time.monotonic_ns, self.recorder.event)
        checker = BundleChecker(keys, config.robot_model, state, hub_time=lambda: self.clock.verified)
        self._spans = open_sink(config.traces, "outrider-agent")
        self.trace = UpdateTrace(self._spans, config.robot_id)
        self.updater = Updater(
            state, checker, self.routes.send, self.recorder.event, keys, config.robot_id,
            trace=self.trace, trusted_ns=self.clock.now_wall_ns, other_way=self.routes.other_way,
        )  # fmt: skip

    def _open_links(self, keys: Path, seed: int) -> tuple[HubLink, HubLink | None]:
        """To the hub, and to the mirror where there is one; raises KeyFileError."""
        link = HubLink(self._config.hub_endpoint, keys, self._hello, seed)
        if not self._config.mirror_endpoint:
            return link, None
        try:
            mirror = HubLink(
                self._config.mirror_endpoint, keys, self._hello, seed + 1, server_file=MIRROR_PUBLIC_FILE
            )
        except KeyFileError:
            link.close()
            raise
        return link, mirror

    def stop(self) -> None:
        """Let ``run`` flush and return; safe in a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Work until stopped, then flush: drain the ring, sync, wait up to FLUSH_MAX_S for the hub."""
        while not self._stopping:
            self.link.wait(POLL_MS)
            self._turn(time.monotonic_ns())
        give_up_ns = time.monotonic_ns() + int(FLUSH_MAX_S * 1e9)
        self.recorder.event("comms_stopping")
        self._drain_ring(time.monotonic_ns())
        self.recorder.sync()
        while self.link.online and self.uplink.unsent and time.monotonic_ns() < give_up_ns:
            self.link.wait(POLL_MS)
            self._turn(time.monotonic_ns())
        self.close()

    def close(self) -> None:
        """Write down the position; close log, connection and ring."""
        self.updater.close()
        self.recorder.close()
        self.uplink.save()
        self.link.close()
        if self._spans is not None:
            self._spans.close()
        if self.mirror:
            self.mirror.close()
        for ring in (self._ring, self._scan_ring):
            if ring:
                ring.close()

    def _turn(self, now_ns: int) -> None:
        self._drain_ring(now_ns)
        self._drain_scans(now_ns)
        self.recorder.maintain(now_ns)
        for message in self.link.receive(now_ns):
            self._on_message(message, now_ns)
        self.link.step(now_ns, self.recorder.last_seq)
        if self.mirror:
            self._hear_mirror(self.mirror, now_ns)
        if self.link.online != self._was_online:
            self._was_online = self.link.online
            self.recorder.event(
                "hub_online" if self._was_online else "hub_offline", why=self.link.last_refusal
            )
        if self.erasures.step(now_ns):
            self.uplink.erased()
        if self.link.online and not self.erasures.busy:
            self.uplink.step(now_ns)
        self.clock.step(self.link.online)
        self.updater.step(now_ns)

    def _hear_mirror(self, mirror: HubLink, now_ns: int) -> None:
        """Files and bundles, and nothing else, may come from there."""
        for message in mirror.receive(now_ns):
            if isinstance(message, Chunk | FileChunk | Wait) and self.routes.heard(message):
                self._on_message(message, now_ns)
        mirror.step(now_ns, 0)
        if self.routes.step(now_ns):
            self.updater.on_online(now_ns)

    def _on_message(self, message: FromHub, now_ns: int) -> None:
        if isinstance(message, Welcome):
            log_id = self.recorder.log_id
            self.uplink.on_welcome(message.durable_seq)
            if self.recorder.log_id != log_id:
                self.link.restart()
            self.clock.on_online()
        elif isinstance(message, Ack):
            self.uplink.on_ack(message)
        elif isinstance(message, Stored):
            if self.uplink.audit is not None:
                self.uplink.audit.answered(message, now_ns)
        elif isinstance(message, EraseOrder):
            self.erasures.on_order(message)
        elif isinstance(message, SignedTime):
            self.clock.on_time(message)
        self.updater.on_message(message, now_ns)

    def _drain_ring(self, now_ns: int) -> None:
        ring = self._ring
        if ring is None or (not ring.waiting and ring.replaced()):
            ring = self._attach(now_ns)
        if ring is None:
            return
        records = ring.peek(RING_SLOTS)
        self.recorder.decisions(records)
        self.trace.decisions(records)
        ring.release(len(records))
        if ring.dropped > self._ring_dropped:
            self.recorder.event("ring_dropped", count=ring.dropped - self._ring_dropped)
            self._ring_dropped = ring.dropped

    def _attach(self, now_ns: int) -> RingReader | None:
        """Attach to control's ring; decisions logged but not released before a kill are released."""
        if now_ns < self._ring_retry_ns:
            return None
        self._ring_retry_ns = now_ns + int(RING_RETRY_S * 1e9)
        if self._ring:
            self._ring.close()
            self._ring = None
        try:
            self._ring = RingReader(self._config.ring_name)
        except RingError:
            return None
        waiting = self._ring.peek(RING_SLOTS)
        if self.recorder.last_decision in waiting:
            self._ring.release(waiting.index(self.recorder.last_decision) + 1)
        self._ring_dropped = self._ring.dropped
        return self._ring

    def _drain_scans(self, now_ns: int) -> None:
        """Raw scans into memory, and around an incident into the log; never to the hub (``uplink.cursor``)."""
        ring = self._scan_ring
        if (ring is None or (not ring.waiting and ring.replaced())) and now_ns >= self._scan_retry_ns:
            self._scan_retry_ns = now_ns + int(RING_RETRY_S * 1e9)
            if ring:
                ring.close()
            try:
                self._scan_ring = ring = RingReader(self._config.ring_name, SCANS)
            except RingError:
                self._scan_ring = ring = None
        if ring is not None and ring.waiting:
            slots = ring.peek(SCAN_SLOTS)
            self.recorder.scans(slots)
            ring.release(len(slots))

    def _hello(self) -> Hello:
        active = self.updater.slots.active()
        return Hello(
            self._config.robot_id,
            self.recorder.boot_id,
            self.recorder.log_id,
            self.recorder.last_seq,
            self._config.robot_model,
            ROUTING_LAYOUT.hash(),
            active.digest if active else "",
            active.facts.version if active else "",
        )


def main(config: CommsConfig) -> int:
    """Run one comms process until SIGTERM or SIGINT; returns the exit code."""
    try:
        comms = Comms(config)
    except (AgentError, ContractError, OSError) as error:
        print(f"outrider comms: {error}", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: comms.stop())
    comms.run()
    return 0


def _main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m edge_agent.comms", description="The robot's comms process."
    )
    parser.add_argument("--config", type=Path, required=True, help="JSON file with the fields of CommsConfig")
    try:
        config = load_settings(parser.parse_args().config, CommsConfig)
    except ConfigError as error:
        print(f"outrider comms: {error}", file=sys.stderr)
        return 2
    return main(config)


if __name__ == "__main__":
    sys.exit(_main())
