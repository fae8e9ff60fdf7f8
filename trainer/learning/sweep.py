"""A search over settings with Optuna: each trial is a run folder, the journal outlives a cut."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import msgspec
import optuna
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from contracts.errors import reason_of
from trainer.errors import RunError, TrainConfigError
from trainer.learning.config import Scalar, TrainConfig, load_yaml, train_config
from trainer.learning.run import CurvePoint, write_whole
from trainer.learning.seeds import train_to

JOURNAL_FILE, BEST_FILE = "journal.log", "best.yaml"
STUDY = "outrider"
Told = Callable[[int, CurvePoint, dict[str, Scalar]], None]


class Parameter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a setting may be: one of ``choices``, or ``low`` to ``high`` (``log``: evenly over the magnitudes)."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    whole: bool = False
    """Whole numbers only."""
    choices: tuple[Scalar, ...] = ()

    def check(self, path: str) -> None:
        """Raises TrainConfigError when it is neither a range in order nor a list of choices."""
        ranged = self.low is not None and self.high is not None
        if ranged == bool(self.choices) or (self.low is None) != (self.high is None):
            raise TrainConfigError(f"parameters.{path}: expected either low and high, or choices")
        if self.low is None or self.high is None:
            return
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise TrainConfigError(f"parameters.{path}: low {self.low} must be below high {self.high}")
        if self.log and self.low <= 0.0:
            raise TrainConfigError(f"parameters.{path}: log needs a low above 0, came {self.low}")
        if self.whole and not (self.low.is_integer() and self.high.is_integer()):
            raise TrainConfigError(f"parameters.{path}: whole needs whole low and high")

    def bounds(self) -> tuple[Scalar, ...]:
        """What to try a config with: all choices, or both ends of the range."""
        if self.low is None or self.high is None:
            return self.choices
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)

    def ask(self, trial: optuna.Trial, path: str) -> Scalar:
        """A value for one trial."""
        if self.choices:
            return cast("Scalar", trial.suggest_categorical(path, self.choices))
        assert self.low is not None and self.high is not None  # noqa: PT018
        if self.whole:
            return cast("int", trial.suggest_int(path, int(self.low), int(self.high), log=self.log))
        return cast("float", trial.suggest_float(path, self.low, self.high, log=self.log))


class SweepConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A search: a config to start from, what may change in it by dotted path, and what counts."""

    parameters: Annotated[dict[str, Parameter], msgspec.Meta(min_length=1, max_length=32)]
    steps: Annotated[int, msgspec.Meta(ge=1)] = 1_000_000
    """Robot-steps of each trial."""
    objective: Literal["success", "trip_s"] = "success"
    """Most success, or shortest trips (failed ones count as the longest), at the end of the steps."""
    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] = 0
    base: TrainConfig = TrainConfig()


def load_sweep(path: Path) -> SweepConfig:
    """Read a sweep from YAML.

    Raises:
        TrainConfigError: not readable, an unknown key, a value out of range, or a path that no config has.
    """
    try:
        sweep = msgspec.convert(load_yaml(path), SweepConfig)
    except msgspec.ValidationError as error:
        raise TrainConfigError(f"{path}: {error}") from None
    try:
        sweep.base.check()
        for name, parameter in sweep.parameters.items():
            parameter.check(name)
            for value in parameter.bounds():
                with_values(sweep.base, {name: value})
    except TrainConfigError as error:
        raise TrainConfigError(f"{path}: {error}") from None
    return sweep


def with_values(base: TrainConfig, values: dict[str, Scalar]) -> TrainConfig:
    """``base`` with the settings at dotted paths replaced, as ``ppo.learning_rate``.

    Raises:
        TrainConfigError: no such setting, or a value that it does not take.
    """
    document: Any = msgspec.to_builtins(base)
    for path, value in values.items():
        *parents, last = path.split(".")
        place = document
        for name in parents:
            place = place.get(name) if isinstance(place, dict) else None
        if not isinstance(place, dict) or (last not in place and parents != ["plugin"]):
            raise TrainConfigError(f"parameters.{path}: a training config has no such setting")
        place[last] = value
    try:
        return train_config(document)
    except TrainConfigError as error:
        raise TrainConfigError(f"parameters {', '.join(values)}: {error}") from None


def run_sweep(sweep: SweepConfig, out: Path, trials: int, told: Told | None = None) -> Path:
    """Have ``trials`` trials in all; those that a cut left unfinished are finished first.

    Args:
        sweep: what to search.
        out: its folder: ``journal.log``, ``trial-0000`` ..., ``best.yaml``.
        trials: how many in all, with those of earlier calls.
        told: called with number, last point and values of each trial that ends.

    Returns:
        The best trial's config, as ``outrider train --config`` takes it.

    Raises:
        TrainerError: as ``train``; or the folder holds another sweep.
    """
    study = _open_study(sweep, out)

    def finish(number: int, values: dict[str, Scalar]) -> None:
        point = train_to(out / f"trial-{number:04d}", with_values(sweep.base, values), sweep.steps)
        study.tell(number, getattr(point, sweep.objective))
        if told is not None:
            told(number, point, values)

    for cut in study.get_trials(states=(TrialState.RUNNING,)):
        if cut.params.keys() == sweep.parameters.keys():
            finish(cut.number, cut.params)
        else:
            study.tell(cut.number, state=TrialState.FAIL)
    while len(study.get_trials(states=(TrialState.COMPLETE,))) < trials:
        trial = study.ask()
        finish(trial.number, {path: p.ask(trial, path) for path, p in sweep.parameters.items()})
    best = msgspec.to_builtins(with_values(sweep.base, study.best_params))
    try:
        write_whole(out / BEST_FILE, yaml.safe_dump(best, sort_keys=False).encode())
    except OSError as error:
        raise RunError(f"{out / BEST_FILE} cannot be written: {reason_of(error)}") from None
    return out / BEST_FILE


def _open_study(sweep: SweepConfig, out: Path) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        out.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(out / JOURNAL_FILE)))
        study = optuna.create_study(
            study_name=STUDY,
            storage=storage,
            direction="minimize" if sweep.objective == "trip_s" else "maximize",
            load_if_exists=True,
        )
        # Another stream after each trial, or a sweep that goes on would ask for the same values again.
        study.sampler = optuna.samplers.TPESampler(seed=sweep.seed + len(study.trials))
        mark = msgspec.json.encode(sweep).decode()
        known = study.user_attrs.get("sweep")
        if known is None:
            study.set_user_attr("sweep", mark)
    except OSError as error:
        raise RunError(f"{out} cannot be written: {reason_of(error)}") from None
    if known not in (None, mark):
        raise RunError(f"{out} holds another sweep; choose another --out, or give the config it began with")
    return study
