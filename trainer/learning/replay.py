"""Train a recorded run again and compare: same machine, same versions, same weights."""

from pathlib import Path

import msgspec

from trainer.errors import RunError
from trainer.learning.checkpoint import read_checkpoint, weights_hash
from trainer.learning.facts import differing_facts
from trainer.learning.run import RunFolder
from trainer.learning.train import Report, train


class Replayed(msgspec.Struct, frozen=True):
    """What came out of a replay: both hashes, and the names of the facts in which the two runs differ."""

    steps: int
    recorded: str
    came: str
    differing: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether the weights are the same, bit for bit."""
        return self.recorded == self.came


def replay(recorded: RunFolder, out: Path, report: Report | None = None) -> Replayed:
    """Train anew in ``out`` from the recorded config, seed and first weights, for as many robot-steps.

    Raises:
        RunError: ``recorded`` has no checkpoint, its parent is gone or another one now, or ``out`` holds a run.
    """
    steps, expected = read_checkpoint(recorded).steps, weights_hash(recorded)
    parents = _parents(recorded)
    fresh = RunFolder.create(out, recorded.config, parents)
    train(fresh, steps, report=report, warm_start=parents[0] if parents else None, stop_early=False)
    differing = differing_facts(recorded.facts(), fresh.facts())
    return Replayed(steps, expected, weights_hash(fresh), tuple(differing))


def _parents(recorded: RunFolder) -> tuple[RunFolder, ...]:
    """The runs that ``recorded`` took its first weights from, as they were then."""
    parents = []
    for fact in recorded.facts().get("parents", []):
        parent = RunFolder.open(Path(fact["run"]))
        came = weights_hash(parent)
        if came != fact["weights_hash"]:
            raise RunError(
                f"{parent.path} has gone on since {recorded.path} began from it: its weights were"
                f" {fact['weights_hash'][:12]}, now they are {came[:12]}; put its checkpoint of {fact['steps']:,}"
                " steps back"
            )
        parents.append(parent)
    return tuple(parents)
