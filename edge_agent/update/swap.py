"""A checked bundle's way on the robot's disk: spare slot, control's mailbox, active slot, floor; and the way back.

Each step may be killed anywhere and come again: what was decided is on disk before anything that follows from it.
"""

from collections.abc import Callable
from pathlib import Path

import msgspec

from contracts.trust import TrustError
from edge_agent.update.floor import Floor, FloorStore
from edge_agent.update.job import Job
from edge_agent.update.mailbox import Candidate, CommsMailbox, Loaded, new_candidate
from edge_agent.update.orders import OrderBook
from edge_agent.update.slots import BundleFacts, SlotEntry, SlotStore


class Swap:
    """One robot's. Picks up the candidate that was before control when the process before this one ended."""

    def __init__(self, state_dir: Path, orders: OrderBook, note: Callable[..., None]) -> None:
        self.slots, self.mailbox = SlotStore(state_dir), CommsMailbox(state_dir)
        self._floor, self._orders, self._note = FloorStore(state_dir), orders, note
        self.candidate: Candidate | None = self.mailbox.waiting()

    def stage(self, path: Path, facts: BundleFacts, job: Job) -> Candidate:
        """Move the bundle file into the spare slot; raises BundleCounterTooLowError, SlotError, OSError."""
        entry = self.slots.stage(path, facts)
        self.candidate = new_candidate(entry, job.rollout, job.stage, job.kind, job.shadow_s)
        return self.candidate

    def offer(self, candidate: Candidate) -> None:
        """Put it before control; raises OSError."""
        self.mailbox.offer(candidate)

    def answer(self) -> Loaded | None:
        """What control says to the candidate; None while it says nothing, or is asked nothing."""
        return self.mailbox.answer_to(self.candidate) if self.candidate else None

    def asked_again(self, job: Job) -> bool:
        """Whether the candidate is what ``job`` wants; it counts as that order's then."""
        candidate = self.candidate
        if candidate is None or (candidate.digest, candidate.kind) != (job.digest, job.kind):
            return False
        self.candidate = msgspec.structs.replace(candidate, rollout=job.rollout, stage=job.stage)
        return True

    def commit(self, candidate: Candidate, wall_ns: int) -> None:
        """Control drives with it, since ``wall_ns``: the active slot is its, and the floor is where it is."""
        active, facts = self.slots.active(), candidate.entry.facts
        try:
            self._floor.lift(Floor({facts.policy_name: facts.release_counter}))
        except (OSError, TrustError) as error:
            self._note("disk_error", what="floor", error=str(error))
        if active is None or active.digest != candidate.digest:
            self.slots.commit(candidate.entry)
        self._orders.drives_since(wall_ns)
        self.mailbox.withdraw(durable=False)  # where a power cut brings it back, it is committed already
        self.candidate = None

    def take_back(self, active: SlotEntry, job: Job) -> None:
        """Ask control to leave the active policy; raises SlotError, OSError.

        It is no longer the active one on disk at once, so that a control that crashes over it comes up well.
        """
        self.candidate = new_candidate(active, job.rollout, job.stage, "revert")
        self.mailbox.offer(self.candidate)
        self.slots.retreat(active.digest)
        self._orders.drives_since(0)

    def end_taking_back(self, candidate: Candidate) -> SlotEntry | None:
        """Control has left it; returns what is active now."""
        now_active = self.slots.retreat(candidate.digest)
        self.discard()
        return now_active

    def discard(self) -> None:
        """Control is asked no more, and the spare slot is empty."""
        if self.candidate:
            self.mailbox.withdraw()
            self.slots.discard(self.candidate.entry)
            self.candidate = None
