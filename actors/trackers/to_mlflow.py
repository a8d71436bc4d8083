"""MLflow: a run of the experiment `xp`, at MLFLOW_TRACKING_URI or in the run's `metrics/mlflow.db`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from actors.trackers.tracker import Tracked, Tracker

PACKAGE = "mlflow"


def track(tracked: Tracked) -> Tracker:
    from mlflow import MlflowClient

    here = f"sqlite:///{(tracked.folder / 'mlflow.db').resolve()}"
    client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or here)
    experiment = client.get_experiment_by_name("xp")
    number = experiment.experiment_id if experiment else client.create_experiment("xp")
    run = client.create_run(number, run_name=tracked.name)
    return _Mlflow(client, run.info.run_id)


class _Mlflow:
    def __init__(self, client: Any, run: str) -> None:
        self._client, self._run = client, run

    def log(self, values: Mapping[str, float], version: int) -> None:
        for name, value in values.items():
            self._client.log_metric(self._run, name, value, step=version)

    def close(self) -> None:
        self._client.set_terminated(self._run)
