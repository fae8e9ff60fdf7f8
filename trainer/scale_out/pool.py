"""The actors: asked for fragments, watched, replaced when lost. A batch is whole or it is waited for.

Each actor is asked for one fragment a batch; where nothing is late or lost, the same run gives the same batches. What a
lost or late actor owes is collected by those that are idle, so that a batch does not wait for a replacement. Actors are
never restarted by Ray: its restart waits until the cluster holds the node for dead, and would run a call again unseen.
"""

import time
from dataclasses import dataclass
from typing import Any

import msgspec

from trainer.errors import FragmentError, ScaleOutError
from trainer.learning.config import TrainConfig
from trainer.scale_out.collector import FragmentCollector, actor_config, actor_seed
from trainer.scale_out.config import ScaleOutConfig
from trainer.scale_out.fragment import Fragment, Layout, Request, Weights, check, protocol_hash

POLL_S = 0.05
PING_EVERY_S = 1.0
BACK_OFF_S, BACK_OFF_MAX_S = 0.5, 30.0
FETCH_MAX_S = 1.0


class Counts(msgspec.Struct):
    """What has happened since the pool began."""

    fragments: int = 0
    stale: int = 0
    refused: int = 0
    launched: int = 0
    lost: int = 0
    why: str = ""
    """Of the last loss."""


@dataclass
class _Place:
    """A share of the worlds, and the actor that holds it at the moment."""

    first_world: int
    serial: int = -1
    handle: Any = None
    hello: Any = None
    number: int = 0
    asked: Request | None = None
    asked_s: float = 0.0
    reply: Any = None
    ping: Any = None
    pinged_s: float = 0.0
    losses: int = 0
    launch_s: float = 0.0

    @property
    def idle(self) -> bool:
        return self.handle is not None and self.hello is None and self.asked is None


class ActorPool:
    """``settings.actors`` actors on the cluster.

    Args:
        ray: the module, connected.
        config: of the run.
        settings: how many, and how patient.
        layout: of a fragment's arrays.
        begun_at: robot-steps of the run at the pool's beginning; the actors' seeds come from it.
        stage: of the curriculum.

    Attributes:
        counts: what has happened.
        nodes: the id of the node of each actor that has come up, by its number; numbers are never used again.

    Raises:
        ScaleOutError: no actor comes up.
    """

    def __init__(
        self,
        ray: Any,
        config: TrainConfig,
        settings: ScaleOutConfig,
        layout: Layout,
        begun_at: int = 0,
        stage: int = 0,
    ) -> None:
        self._ray, self._config, self._settings, self._layout = ray, config, settings, layout
        self._begun_at, self._stage = begun_at, stage
        self._worlds = settings.worlds_each(config)
        self._class = ray.remote(num_cpus=1, max_restarts=0, max_concurrency=2, scheduling_strategy="SPREAD")(
            FragmentCollector
        )
        self.counts = Counts()
        self.nodes: dict[int, str] = {}
        self._places = [_Place(self._worlds * index) for index in range(settings.actors)]
        self._wait_for_all()

    def gather(self, weights: Weights) -> list[Fragment]:
        """A batch: as many fragments as actors, each checked, none older than ``staleness_max`` updates.

        Raises:
            ScaleOutError: actors are lost again and again, or none answers.
            TrainerError: what an actor's worlds or policy raised.
        """
        self._stage = weights.stage
        shipped = self._ray.put(weights)
        fragments: list[Fragment] = []
        came_s = time.monotonic()
        while len(fragments) < len(self._places):
            self._launch_due()
            self._ask(weights, shipped, len(self._places) - len(fragments))
            for place in self._heard():
                fragment = self._received(place, weights)
                if fragment is not None and len(fragments) < len(self._places):
                    fragments.append(fragment)
                    came_s = time.monotonic()
            self._lose_silent()
            self._require_life(came_s, f"a batch lacks {len(self._places) - len(fragments)} fragments")
        if self._settings.staleness_max:
            self._ask(weights, shipped, len(self._places))
        return sorted(fragments, key=lambda fragment: (fragment.request.actor, fragment.request.number))

    def close(self) -> None:
        """End all actors."""
        for place in self._places:
            self._kill(place)

    def _wait_for_all(self) -> None:
        """Until each has come up, so that the first batch does not depend on which was first."""
        began_s = time.monotonic()
        while any(place.handle is None or place.hello is not None for place in self._places):
            self._launch_due()
            self._heard()
            if time.monotonic() - began_s > self._settings.start_max_s:
                if any(place.idle for place in self._places):
                    return
                self._require_life(began_s, "no actor has come up")

    def _require_life(self, since_s: float, what: str) -> None:
        silent_s = time.monotonic() - since_s
        if silent_s > self._settings.start_max_s:
            lost = f"; lost last: {self.counts.why}" if self.counts.why else ""
            raise ScaleOutError(
                f"{what} after {silent_s:.0f} s{lost}; the last checkpoint is whole. The cluster needs"
                f" {len(self._places)} free CPUs for the actors: look at 'ray status'"
            )

    def _launch_due(self) -> None:
        now_s = time.monotonic()
        for place in self._places:
            if place.hello is not None and now_s - place.launch_s > self._settings.come_up_max_s:
                self._kill(place)  # Ray may have put it on a node that it does not know to be dead.
            if place.handle is not None or now_s < place.launch_s:
                continue
            place.launch_s = now_s
            place.serial, place.number = self.counts.launched, 0
            self.counts.launched += 1
            seed = actor_seed(self._config, self._begun_at, place.serial)
            config = actor_config(self._config, self._worlds, seed)
            place.handle = self._class.remote(config, place.first_world, self._stage)
            place.hello = place.handle.__ray_call__.remote(_greeting)

    def _ask(self, weights: Weights, shipped: Any, missing: int) -> None:
        """Ask idle actors for what is missing and not on its way, those that come first in the pool first."""
        now_s = time.monotonic()
        coming = sum(
            place.asked is not None and now_s - place.asked_s < self._settings.late_s
            for place in self._places
        )
        for place in [place for place in self._places if place.idle][: max(0, missing - coming)]:
            place.asked = Request(place.serial, place.number, weights.version, weights.stage)
            place.asked_s, place.number = now_s, place.number + 1
            place.reply = place.handle.collect.remote(shipped, place.asked)

    def _heard(self) -> list[_Place]:
        """Wait a moment; take in greetings and pings. Returns the places whose fragment is there or lost."""
        refs: dict[Any, tuple[_Place, str]] = {}
        for place in self._places:
            for kind in ("hello", "reply", "ping"):
                if (ref := getattr(place, kind)) is not None:
                    refs[ref] = place, kind
        if not refs:
            time.sleep(POLL_S)
            return []
        self._ray.wait(list(refs), num_returns=1, timeout=POLL_S)
        done, _ = self._ray.wait(list(refs), num_returns=len(refs), timeout=0.0)
        replied = []
        for ref in done:
            place, kind = refs[ref]
            if kind == "reply":
                replied.append(place)
            elif getattr(place, kind) is ref:
                answer = self._fetch(place, ref)
                if kind == "ping":
                    place.ping = None
                elif answer is not None:
                    self._greeted(place, *answer)
        return sorted(replied, key=lambda place: place.first_world)

    def _greeted(self, place: _Place, protocol: str, node: str) -> None:
        if protocol != protocol_hash():
            raise ScaleOutError(
                f"the actor on node {node[:12]} speaks protocol {protocol[:12]}, this side {protocol_hash()[:12]};"
                " install the same versions of outrider and torch on every node"
            )
        place.hello, self.nodes[place.serial] = None, node

    def _fetch(self, place: _Place, ref: Any) -> Any:
        """The value behind ``ref``; None where the actor, or the value with its node, is lost or not to be had yet."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(ref, timeout=FETCH_MAX_S)
        except errors.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        except errors.GetTimeoutError:
            # Ray calls a value there that lies on a node it does not know to be dead; whether it is, pings tell sooner.
            return None
        except errors.RayError as error:
            self._lose(place, f"{type(error).__name__}: {error}")
            return None

    def _received(self, place: _Place, weights: Weights) -> Fragment | None:
        """The fragment of a place, if it may be learned from; one that is damaged costs the actor its place."""
        asked, ref = place.asked, place.reply
        if asked is None:  # lost by another of its answers in the same moment
            return None
        fragment: Fragment | None = self._fetch(place, ref)
        if fragment is None:
            return None
        place.asked = place.reply = None
        try:
            check(fragment, asked, self._layout)
        except FragmentError as error:
            self.counts.refused += 1
            self._lose(place, str(error))
            return None
        if asked.stage != weights.stage or weights.version - asked.version > self._settings.staleness_max:
            self.counts.stale += 1
            return None
        place.losses = 0
        self.counts.fragments += 1
        return fragment

    def _lose_silent(self) -> None:
        """Ping those that are at work; without an answer in time an actor is lost, whatever the cluster says."""
        now_s = time.monotonic()
        for place in self._places:
            if place.asked is None or place.handle is None:
                continue
            if place.ping is None and now_s - place.pinged_s > PING_EVERY_S:
                place.ping, place.pinged_s = place.handle.ping.remote(), now_s
            elif place.ping is not None and now_s - place.pinged_s > self._settings.silent_max_s:
                self._lose(place, f"no answer to a ping for {now_s - place.pinged_s:.0f} s")

    def _lose(self, place: _Place, why: str) -> None:
        """Give up an actor; a new one takes its place, later after each loss in a row."""
        if place.handle is None:
            return
        self._kill(place)
        self.counts.lost += 1
        self.counts.why = " ".join(why.split())[:200]
        place.losses += 1
        if place.losses > self._settings.losses_max:
            raise ScaleOutError(
                f"an actor was lost {place.losses} times in a row, last: {self.counts.why};"
                " the last checkpoint is whole, look at the cluster and resume"
            )
        wait_s = min(BACK_OFF_MAX_S, BACK_OFF_S * 2.0 ** (place.losses - 1))
        place.launch_s = time.monotonic() + wait_s

    def _kill(self, place: _Place) -> None:
        if place.handle is not None:
            self._ray.kill(place.handle, no_restart=True)
        place.handle = place.hello = place.asked = place.reply = place.ping = None


def _greeting(collector: FragmentCollector) -> tuple[str, str]:
    """Runs in the actor: the protocol it speaks, and its node's id."""
    import ray

    del collector
    return protocol_hash(), ray.get_runtime_context().get_node_id()
