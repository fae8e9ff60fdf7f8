"""How a run is spread over a Ray cluster. It changes where episodes are collected, not what is trained."""

from typing import Annotated

import msgspec

from trainer.errors import TrainConfigError
from trainer.learning.config import TrainConfig

LOCAL = "local"
REPLAYING = ("sac", "dqn")


class ScaleOutConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the actors are, how many, and how long each is waited for."""

    address: str = LOCAL
    """``host:port`` of a running cluster; ``local`` starts one on this machine and stops it at the end."""
    actors: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 2
    """Each holds as many of the config's worlds, on one CPU."""
    staleness_max: Annotated[int, msgspec.Meta(ge=0, le=10)] = 1
    """Updates that the weights behind a fragment may lie back. With 0 actors wait while the learner learns."""
    late_s: Annotated[float, msgspec.Meta(gt=0.0)] = 10.0
    """A fragment that takes longer is collected by another actor too; the batch takes the first to come."""
    silent_max_s: Annotated[float, msgspec.Meta(gt=0.0)] = 6.0
    """An actor that leaves a ping unanswered for longer is lost."""
    come_up_max_s: Annotated[float, msgspec.Meta(gt=0.0)] = 45.0
    """An actor that has not come up by then is begun anew; no loss, the cluster may have no room for it yet."""
    start_max_s: Annotated[float, msgspec.Meta(gt=0.0)] = 120.0
    """A batch to which nothing is added for longer ends the run: no actor could be started, or none answers."""
    losses_max: Annotated[int, msgspec.Meta(ge=0, le=100)] = 5
    """Times that an actor's place may be lost in a row, with no fragment in between, before the run ends."""
    object_store_bytes: Annotated[int, msgspec.Meta(ge=80_000_000)] = 400_000_000
    """Shared memory of a cluster started here."""

    def check(self, config: TrainConfig) -> None:
        """Refuse a run that cannot be spread so.

        Raises:
            TrainConfigError: the worlds cannot be divided evenly or a stage's rollouts are of another length (fragments
                are of one size), or the algorithm learns from a replay buffer.
        """
        if config.algorithm in REPLAYING:
            raise TrainConfigError(
                f"--ray collects rollouts; {config.algorithm} learns from a replay buffer. Use ppo, or leave --ray"
            )
        own = [stage.ppo.steps_per_world for stage in config.stages() if stage.ppo is not None]
        if any(steps != config.ppo.steps_per_world for steps in own):
            raise TrainConfigError(
                "a stage has a steps_per_world of its own, and actors collect fragments of one size; give all stages"
                " the same, or leave --ray"
            )
        if config.worlds % self.actors:
            raise TrainConfigError(
                f"{config.worlds} worlds cannot be divided among {self.actors} actors; choose worlds or --ray-actors"
                " so that each holds as many"
            )

    def worlds_each(self, config: TrainConfig) -> int:
        """Worlds of each actor, where ``check`` has passed."""
        return config.worlds // self.actors
