"""The smallest training run that is still one."""

from trainer.learning.config import DqnConfig, NetworkConfig, PpoConfig, SacConfig, TrainConfig

REPLAYING = {
    "buffer_size": 1000,
    "learning_starts": 100,
    "batch_size": 32,
    "gradient_steps": 1,
    "steps_per_world": 16,
}
TINY = TrainConfig(
    seed=3,
    floors=2,
    worlds=4,
    robots=2,
    people=1,
    sim_threads=1,
    network=NetworkConfig(hidden=(16, 16)),
    ppo=PpoConfig(steps_per_world=16, batch_size=64, epochs=1),
    sac=SacConfig(**REPLAYING),
    dqn=DqnConfig(**REPLAYING, explore_steps=500),
)
BATCH_STEPS = TINY.worlds * TINY.robots * TINY.ppo.steps_per_world
