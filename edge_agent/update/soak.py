"""Watches a release that drives: for as long as its stage asks, then says so with the robot's signature.

One that control has dropped meanwhile is reported as failed.
"""

from collections.abc import Callable
from pathlib import Path

from contracts.errors import KeyFileError, OrderError
from contracts.messages import FromRobot, RolloutReport, short
from contracts.papers import Witness
from edge_agent.infer.dropped import DroppedStore
from edge_agent.update.orders import OrderBook
from edge_agent.update.witness import sign_witness

SOAK_LOOK_S = 0.5


class SoakWatch:
    """One robot's. ``send`` and ``note`` are the way to the hub and to the robot's own log."""

    def __init__(
        self,
        state_dir: Path,
        orders: OrderBook,
        send: Callable[[FromRobot], bool],
        note: Callable[..., None],
        keys: Path,
        robot: str,
        wall_ns: Callable[[], int],
    ) -> None:
        self._state_dir, self._orders, self._send, self._note = state_dir, orders, send, note
        self._keys, self._robot, self._wall_ns = keys, robot, wall_ns
        self._looked_ns = 0

    def step(self, now_ns: int) -> None:
        """The release drives: has it failed since, or driven long enough?"""
        if now_ns - self._looked_ns < SOAK_LOOK_S * 1e9:
            return
        self._looked_ns = now_ns
        try:
            standing = self._orders.standing()
        except OrderError:
            return  # said with the next order
        if standing.action != "run" or not standing.active_wall_ns:
            return
        if why := DroppedStore(self._state_dir, self._tell).why(standing.release):
            self._orders.drives_since(0)
            self._note("update_failed", digest=standing.release, reason=why)
            self._send(
                RolloutReport(
                    standing.rollout, standing.stage, standing.release, "failed", "dropped", short(why)
                )
            )
        elif not standing.soaked and self._wall_ns() - standing.active_wall_ns >= standing.soak_s * 1e9:
            self._orders.soaked()
            self._note("update_soaked", digest=standing.release)
            self.report("soaked")

    def report_again(self) -> None:
        """Say again what may have been lost on the way."""
        if self._orders.standing().soaked:
            self.report("soaked")

    def report(self, state: str) -> None:
        """Soaked or shadowed, with the robot's signature."""
        standing = self._orders.standing()
        seen = Witness(standing.plan_digest, standing.stage, self._robot, standing.release)
        try:
            paper = sign_witness(seen, self._keys)
        except KeyFileError as error:
            self._note("order_refused", code="card_refused", digest=standing.release, reason=short(error))
            return
        self._send(RolloutReport(standing.rollout, standing.stage, standing.release, state, witness=paper))

    def _tell(self, text: str) -> None:
        self._note("disk_error", what="dropped.json", error=text)
