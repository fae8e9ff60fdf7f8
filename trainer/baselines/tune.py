"""The search for a baseline's best settings (Optuna, TPE), with a log from which it goes on where it stopped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import optuna

from contracts.atomic import write_atomically
from contracts.robot import AMR_SMALL
from sim.tasks.delivery import TRIP_MAX_S
from trainer.baselines.catalogue import SEARCH, Range, build, check_config, config_type
from trainer.baselines.trips import CONTROL_HZ, Course, TripsConfig, TripsResult
from trainer.errors import RunError
from trainer.source_tree import git

CONTACT_COST_S = TRIP_MAX_S
"""Added for each contact, on top of the failed trip's cap."""
STARTUP_TRIALS = 10
"""Drawn at random before the estimator is asked."""
LOG_MAX_BYTES = 64 * 1024 * 1024
SOURCES = ("contracts", "navigation", "safety", "sim", "trainer/baselines", ":!trainer/baselines/tuned")
"""What the value of a trial depends on, as git's paths."""
Params = dict[str, float]
Progress = Callable[[float, str], None]


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """First line of a log: what is needed to run the same search again."""

    name: str
    commit: str
    """The last one that changed what a trial depends on; ``-dirty`` where files differed, empty without git."""
    optuna: str
    search_seed: int
    course: TripsConfig
    contact_cost_s: float
    ranges: dict[str, Range]


class Trial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every further line: one try. ``value`` is the mean trip time in s with the cost of contacts."""

    trial: int
    params: Params
    value: float
    result: TripsResult


class SearchLog:
    """``NAME.jsonl`` and ``NAME.yaml`` in a folder: all trials, and the best settings among them.

    Args:
        folder: made where it does not exist.
        header: of the search; a log that is there already must be of the same one, from the same sources.

    Raises:
        RunError: the log there is damaged or of another search.
    """

    def __init__(self, folder: Path, header: Header) -> None:
        self.path, self.best_path = folder / f"{header.name}.jsonl", folder / f"{header.name}.yaml"
        self.header, self.trials = header, list[Trial]()
        if self.path.exists():
            self._read()
        else:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, msgspec.json.encode(header) + b"\n")

    @property
    def best(self) -> Trial | None:
        """The trial with the least value; the earliest of equals."""
        return min(self.trials, key=lambda trial: trial.value, default=None)

    def add(self, trial: Trial) -> None:
        """Append one trial; rewrite the best settings when it is the new best."""
        with self.path.open("ab") as file:
            file.write(msgspec.json.encode(trial) + b"\n")
        self.trials.append(trial)
        if self.best is trial or not self.best_path.exists():
            self.write_best()

    def write_best(self) -> None:
        """Write the best trial's settings as YAML, whole or not at all; the file before stays without a trial."""
        if self.best is not None:
            config = check_config(self.header.name, self.best.params)
            write_atomically(self.best_path, msgspec.yaml.encode(config))

    def _read(self) -> None:
        if self.path.stat().st_size > LOG_MAX_BYTES:
            raise RunError(f"{self.path} is larger than {LOG_MAX_BYTES} bytes; begin another log with --out")
        data = self.path.read_bytes()
        # A line cut short by the end of the process is the last one, and its trial is run again.
        whole = data[: data.rfind(b"\n") + 1]
        first, *lines = whole.splitlines() or [b""]
        try:
            found = msgspec.json.decode(first, type=Header)
            self.trials = [msgspec.json.decode(line, type=Trial) for line in lines]
        except msgspec.DecodeError as error:
            raise RunError(
                f"{self.path} is no log of a search: {error}; begin another one with --out"
            ) from None
        for field in self.header.__struct_fields__:
            ours, theirs = getattr(self.header, field), getattr(found, field)
            if ours != theirs:
                raise RunError(
                    f"{self.path} is of another search: its {field} is {theirs}, not {ours};"
                    " go on with the same settings or begin another log with --out"
                )
        if len(whole) != len(data):
            write_atomically(self.path, whole)


def tune(
    name: str,
    folder: Path,
    trials: int,
    course: TripsConfig | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> SearchLog:
    """Search until the log in ``folder`` holds ``trials`` trials; the first one is the config's defaults.

    Stopped and started again, a search tries the same settings as one that was never stopped.

    Args:
        name: which baseline.
        folder: of log and best settings.
        trials: in all, those already in the log among them.
        course: what each trial drives.
        seed: of the search and of the controller's noise.
        progress: called with (trials done, note).

    Raises:
        TrainConfigError: no such baseline.
        RunError: the log in ``folder`` is damaged or of another search.
    """
    config_type(name)  # an unknown one is refused before a folder is made
    course = course or TripsConfig()
    header = Header(name, _commit(), optuna.__version__, seed, course, CONTACT_COST_S, SEARCH[name])
    log = SearchLog(folder, header)
    study = _study(log)
    floors = Course(course) if len(log.trials) < trials else None
    while floors is not None and len(log.trials) < trials:
        log.add(_try_next(study, log, floors, progress))
    log.write_best()
    return log


def _study(log: SearchLog) -> optuna.Study:
    """A search that knows the log's trials."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    known = _distributions(log.header.ranges)
    for past in log.trials:
        study.add_trial(
            optuna.trial.create_trial(params=dict(past.params), distributions=known, value=past.value)
        )
    return study


def _try_next(study: optuna.Study, log: SearchLog, floors: Course, progress: Progress | None) -> Trial:
    """Ask for settings, drive them, tell what they are worth."""
    name, ranges, seed = log.header.name, log.header.ranges, log.header.search_seed
    number = len(log.trials)

    def tell(share: float) -> None:
        if progress is not None:
            progress(number + share, f"best {log.best.value:.2f} s" if log.best else "")

    # One sampler a trial, seeded by its number: what it draws does not depend on when the search began.
    study.sampler = optuna.samplers.TPESampler(
        seed=seed * 1_000_003 + number, n_startup_trials=STARTUP_TRIALS
    )
    if number == 0:
        defaults = config_type(name)()
        study.enqueue_trial({key: getattr(defaults, key) for key in ranges})
    asked = study.ask(_distributions(ranges))
    params: Params = dict(asked.params)
    controller = build(name, check_config(name, params), AMR_SMALL, 1.0 / CONTROL_HZ, seed)
    result = floors.drive(controller, tell)
    value = rate(result)
    study.tell(asked, value)
    return Trial(number, params, value, result)


def rate(result: TripsResult) -> float:
    """What a search makes small: mean capped trip time in s, and ``CONTACT_COST_S`` more for a contact's trip."""
    return result.trip_s + CONTACT_COST_S * result.contacts / result.trips


def _distributions(ranges: dict[str, Range]) -> dict[str, Any]:
    return {
        key: optuna.distributions.IntDistribution(int(low), int(high))
        if isinstance(low, int) and isinstance(high, int)
        else optuna.distributions.FloatDistribution(low, high)
        for key, (low, high) in ranges.items()
    }


def _commit() -> str:
    """The last commit that changed what a trial depends on; committing results of a search changes nothing."""
    head = git("log", "-1", "--format=%H", "--", *SOURCES)
    return f"{head}-dirty" if head and git("status", "--porcelain", "--", *SOURCES) else head
