"""Updates over lines that lose a tenth, are slow and are cut in mid-frame: all come to their end, little comes twice.

Real hub, real CURVE over TCP through ``tests/support/bad_line``; robots as in ``tests/support/honest``.

``OUTRIDER_BAD_LINES=40 pytest -s tests/system/test_bad_lines.py`` is the campaign: so many releases.
"""

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zmq

from contracts.messages import FetchChunk, FromRobot
from contracts.plan import Release
from contracts.robot import AMR_SMALL
from edge_agent.update.slots import SlotStore
from fleet_hub.catalogue.catalogue import resolve
from fleet_hub.limits import DOWNLOAD_CHUNK_BYTES
from tests.support.bad_line import BadLine
from tests.support.fleet import Fleet, large_policy, make_bundle, make_keys, make_plan
from tests.support.honest import Robot, Site, Tally

RELEASES = int(os.environ.get("OUTRIDER_BAD_LINES", "1"))
SEED = int(os.environ.get("OUTRIDER_SEED", "4"))
NAMES = ("robot_1", "robot_2", "robot_3")
LOSS, DELAY_S, BYTES_A_S = 0.1, 0.02, 2e6
CUT_AFTER = 60.0
"""Segments of 16 KiB: a bundle of 1 MB is cut once or twice, handshakes and metadata too."""
END_MAX_S = 240.0
OTHER_BYTES_MAX = 64 * 1024
"""Metadata of one check, papers, handshakes and heartbeats of one connection: not bundle."""


class Asking(Robot):
    """Counts what it asks for again though its line was not cut: an answer took longer than it waits."""

    asked: tuple[str, int] = ("", -1)
    asked_again = 0

    def _send(self, message: FromRobot) -> bool:
        if isinstance(message, FetchChunk):
            self.asked_again += (message.digest, message.offset) == self.asked
            self.asked = message.digest, message.offset
        return super()._send(message)


@pytest.mark.slow
@pytest.mark.timeout(60.0 + END_MAX_S * RELEASES)
def test_updates_come_to_their_end_over_bad_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.fleet.POLICY_ONNX", large_policy(1_000_000))
    fleet = Fleet(tmp_path, make_keys(tmp_path / "keys", ",".join(NAMES)))
    fleet.start_hub()
    draw, tally, pool = random.Random(SEED), Tally(), ThreadPoolExecutor(2)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    lines = {name: BadLine(fleet.port, draw, LOSS, DELAY_S, BYTES_A_S, CUT_AFTER) for name in NAMES}
    robots = {
        name: Asking(name, AMR_SMALL.name, Site(line.address, "", fleet.keys, tmp_path), pool, tally, SEED)
        for name, line in lines.items()
    }
    began_s = time.monotonic()
    try:
        for name in NAMES:
            lines[name].start()
            robots[name].start(context)
        for number in range(1, RELEASES + 1):
            bundle = make_bundle(fleet.keys, version=f"v{number}", release_counter=number)
            digest = fleet.release(bundle)
            before = {
                name: (line.to_robot_bytes, line.cuts, robots[name].asked_again)
                for name, line in lines.items()
            }
            with fleet.client() as client:
                info = resolve(client.releases(), digest)
            release = Release(digest, info.policy_name, info.version, info.release_counter, info.size_bytes)
            fleet.start_plan(make_plan(release), supersede=True)
            _drive(robots, digest)
            assert not tally.refusals
            for name, line in lines.items():
                came, cuts, again = before[name]
                more = line.to_robot_bytes - came - len(bundle)
                times = max(line.cuts - cuts, robots[name].asked_again - again)
                assert more <= OTHER_BYTES_MAX + times * (DOWNLOAD_CHUNK_BYTES + OTHER_BYTES_MAX), (
                    name,
                    times,
                )
        cuts, lost = (sum(getattr(line, what) for line in lines.values()) for what in ("cuts", "lost"))
        again = sum(robot.asked_again for robot in robots.values())
        print(
            f"\n{RELEASES * len(NAMES)} updates over lines with {LOSS:.0%} loss: {lost} segments lost, {cuts} cuts, "
            f"{again} chunks asked for again, none refused; {time.monotonic() - began_s:.0f} s, seed {SEED}"
        )
    finally:
        for robot in robots.values():
            robot.end()
        pool.shutdown()
        context.destroy(0)
        for line in lines.values():
            line.close()
        fleet.close()


def _drive(robots: dict[str, Asking], digest: str) -> None:
    """Until everybody runs that release."""
    end_s = time.monotonic() + END_MAX_S
    left = set(robots)
    while left and time.monotonic() < end_s:
        for name, robot in robots.items():
            robot.turn(time.monotonic_ns())
            active = SlotStore(robot.state).active() if name in left and not robot.may_be_ended else None
            if active is not None and active.digest == digest:
                left.discard(name)
        time.sleep(0.01)
    assert not left, f"{sorted(left)} do not run {digest[:12]} (seed {SEED})"
