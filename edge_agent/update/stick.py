"""An update from a folder or a URL: the same trust, papers, checks, slots and log as over the network; no hub."""

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec
from tuf.api.exceptions import DownloadError

from contracts.errors import MessageError
from contracts.messages import (
    CHUNK_MAX_BYTES,
    Chunk,
    FetchChunk,
    FromRobot,
    Order,
    RolloutReport,
    decode_from_hub,
)
from contracts.robot import RobotModel
from contracts.trust import Code, TrustError, target_path
from edge_agent.update.checker import CHECK_MAX_S, BundleChecker
from edge_agent.update.fetchers import FolderFetcher, open_source
from edge_agent.update.trust import RobotTrust
from edge_agent.update.updater import State, Updater

POLL_S = 0.01
UPDATE_MAX_S = CHECK_MAX_S + 30.0
ENDS = frozenset({"refused", "active", "soaked", "shadowed", "reverted"})


class Outcome(msgspec.Struct, frozen=True):
    """What became of it. ``state``: nothing, staged, refused, or where the robot was already."""

    state: str
    digest: str = ""
    code: str = ""
    reason: str = ""


def update_from(
    stick: Path | str,
    state: Path,
    keys: Path,
    robot: str,
    model: RobotModel,
    note: Callable[..., None],
    wall_ns: Callable[[], int] = time.time_ns,
) -> Outcome:
    """Take what the stick (a folder, or a URL for fsspec) has for ``robot``.

    No agent may run on ``state`` (hold its lock); ``note`` is its log.
    """
    try:
        trust = RobotTrust(state, keys, robot, model, FolderFetcher(stick), wall_ns)
        data = trust.order()
        if not data:
            return Outcome("nothing", reason=f"the stick has no order for {robot}")
        order = decode_from_hub(data)
        if not isinstance(order, Order):
            raise MessageError(f"expected an order, came {type(order).__name__}")
    except (TrustError, MessageError) as error:
        code = error.code if isinstance(error, TrustError) else Code.UNREADABLE
        note("update_refused", code=str(code), digest="", reason=str(error)[:500])
        return Outcome("refused", "", str(code), str(error))
    return _follow(stick, state, keys, robot, model, note, wall_ns, order)


def _follow(
    stick: Path | str,
    state: Path,
    keys: Path,
    robot: str,
    model: RobotModel,
    note: Callable[..., None],
    wall_ns: Callable[[], int],
    order: Order,
) -> Outcome:
    """Be the hub: hand the updater its order and, from the stick, what it asks for."""
    said: deque[FromRobot] = deque(maxlen=64)

    def hear(message: FromRobot) -> bool:
        said.append(message)
        return True

    updater = Updater(state, BundleChecker(keys, model.name, state, stick), hear, note, keys, robot, wall_ns)
    try:
        updater.on_order(order, time.monotonic_ns())
        end_s = time.monotonic() + UPDATE_MAX_S
        while time.monotonic() < end_s:
            while said:
                message = said.popleft()
                if isinstance(message, FetchChunk):
                    updater.on_chunk(_chunk(stick, message), time.monotonic_ns())
                elif isinstance(message, RolloutReport) and message.state in ENDS:
                    return Outcome(message.state, order.digest, message.code, message.reason)
            if updater.state is State.WAITING:
                return Outcome("staged", order.digest)
            time.sleep(POLL_S)
            updater.step(time.monotonic_ns())
    finally:
        updater.close()
    return Outcome("refused", order.digest, "check_failed", f"not done within {UPDATE_MAX_S:g} s")


def _chunk(stick: Path | str, asked: FetchChunk) -> Chunk:
    """No bytes where the stick has no such bundle, or ends early: the updater refuses that."""
    try:
        with open_source(stick, f"bundles/{target_path(asked.digest)}") as file:
            file.seek(asked.offset)
            return Chunk(asked.digest, asked.offset, file.read(CHUNK_MAX_BYTES))
    except (OSError, DownloadError, TrustError):
        return Chunk(asked.digest, asked.offset, b"")
