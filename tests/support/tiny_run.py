"""The smallest training run that is still one."""

from trainer.learning.config import PpoConfig, TrainConfig

TINY = TrainConfig(
    seed=3,
    floors=2,
    worlds=4,
    robots=2,
    people=1,
    sim_threads=1,
    ppo=PpoConfig(steps_per_world=16, batch_size=64, epochs=1, hidden=(16, 16)),
)
BATCH_STEPS = TINY.worlds * TINY.robots * TINY.ppo.steps_per_world
