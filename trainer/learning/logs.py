"""Where the numbers of a run are shown: TensorBoard always, MLflow where it is installed."""

import importlib.util
import sys
from typing import Any

from stable_baselines3.common.logger import KVWriter, Logger, make_output_format

from trainer.learning.run import RunFolder


class MlflowWriter(KVWriter):  # type: ignore[misc]
    """Numbers as metrics of an MLflow run, kept in ``mlflow.db`` of the run folder unless MLflow is told otherwise."""

    def __init__(self, mlflow: Any, run: RunFolder) -> None:
        self._mlflow = mlflow
        if not mlflow.is_tracking_uri_set():
            mlflow.set_tracking_uri(f"sqlite:///{(run.path / 'mlflow.db').resolve()}")
        mlflow.set_experiment("outrider")
        mlflow.start_run(run_name=run.path.name)
        mlflow.log_params(
            {"config_hash": run.config.hash(), "seed": run.config.seed, "algorithm": run.config.algorithm}
        )

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """One step's numbers."""
        del key_excluded
        self._mlflow.log_metrics({name: float(value) for name, value in key_values.items()}, step=step)

    def close(self) -> None:
        """End the run."""
        self._mlflow.end_run()


def run_logger(run: RunFolder) -> Logger:
    """The loggers of a run folder."""
    folder = str(run.path / "tensorboard")
    writers: list[Any] = [make_output_format("tensorboard", folder)]
    if importlib.util.find_spec("mlflow") is not None:
        try:
            writers.append(MlflowWriter(importlib.import_module("mlflow"), run))
        except Exception as error:
            # A tracking server that is away, or a half-installed MLflow, must not cost the training.
            reason = " ".join(str(error).split())[:200]
            print(f"no MLflow log, TensorBoard's only: {reason}", file=sys.stderr)
    return Logger(folder, writers)
