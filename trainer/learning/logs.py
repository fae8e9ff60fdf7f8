"""Where the numbers of a run are shown: TensorBoard always, MLflow where it is installed."""

import importlib.util
from typing import Any

from stable_baselines3.common.logger import KVWriter, Logger, make_output_format

from trainer.learning.run import RunFolder


class MlflowWriter(KVWriter):  # type: ignore[misc]
    """Numbers as metrics of an MLflow run, kept in ``mlruns`` of the run folder unless MLflow is told otherwise."""

    def __init__(self, mlflow: Any, run: RunFolder) -> None:
        self._mlflow = mlflow
        if not mlflow.is_tracking_uri_set():
            mlflow.set_tracking_uri((run.path / "mlruns").resolve().as_uri())
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
        writers.append(MlflowWriter(importlib.import_module("mlflow"), run))
    return Logger(folder, writers)
