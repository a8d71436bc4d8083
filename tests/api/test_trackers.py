"""Metrics out: each tracker gets what metrics.jsonl has, and none of them can end a run."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from actors.config.schema import load
from actors.running.events import Events, Logged, Warned
from actors.trackers import tracker
from actors.trackers.tracker import check, flat, tracked
from experience.errors import ConfigError, MissingPartError
from tests.commands import Commands
from tests.lived_runs import COIN_RUN
from tests.test_house import ROOT

MEAN = {"mean": 0.5, "half": 0.25, "n": 8}
LINE = {
    "version": 2,
    "seconds": 1.5,
    "steps": {"real": 12},
    "returns": {
        "envs:Coin-v0": {"0": {"mean": 0.1, "half": None, "n": 8}, "2": MEAN},
        "envs:Grid-v0": {"2": {"mean": None, "half": None, "n": 0}},
    },
    "training": {"envs:Coin-v0": float("nan")},
    "model_error": None,
    "metrics": {"loss": 0.125},
}
FLAT = {
    "seconds": 1.5,
    "steps/real": 12.0,
    "heldout/Coin-v0/mean": 0.5,
    "heldout/Coin-v0/half": 0.25,
    "heldout/Coin-v0/n": 8.0,
    "heldout/Coin-v0/of_version": 2.0,
    "metrics/loss": 0.125,
}


def track(names: list[str], folder: Path, events: Events | None = None) -> list[Warned]:
    """One line of metrics, sent to the trackers of a run that ends; the warnings that were told."""
    config, _ = load([], ["name=coin"])
    events = events or Events()
    warned: list[Warned] = []
    events.subscribe(Warned, warned.append)
    with tracked(names, config, folder, events):
        events.emit(Logged(LINE))
        events.emit(Logged(LINE | {"version": 3}))
    return warned


def test_a_line_of_metrics_is_flat_numbers_and_what_is_unknown_is_left_out() -> None:
    assert flat(LINE) == FLAT


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """The scalars of TensorBoard's event files, by name and step: TFRecords of `Event` messages."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, dict[int, float]] = {}
    for file in folder.glob("events.out.tfevents.*"):
        data = file.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + size])
            data = data[12 + size + 4 :]
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def test_tensorboard_reads_back_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    assert track(["tensorboard"], tmp_path) == []
    assert scalars(tmp_path / "metrics" / "tb") == {n: {2: v, 3: v} for n, v in FLAT.items()}


def test_tensorboard_itself_reads_the_event_files(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tests/readers.txt"
    )
    track(["tensorboard"], tmp_path)
    read = reader.EventAccumulator(str(tmp_path / "metrics" / "tb"))
    read.Reload()
    assert set(read.Tags()["scalars"]) == set(FLAT)
    assert [(e.step, e.value) for e in read.Scalars("metrics/loss")] == [(2, 0.125), (3, 0.125)]


def test_mlflow_itself_reads_what_was_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="tests/readers.txt")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "metrics").mkdir()
    assert track(["mlflow"], tmp_path) == []
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'metrics' / 'mlflow.db'}")
    [run] = client.search_runs([client.get_experiment_by_name("xp").experiment_id])
    assert run.info.run_name == tmp_path.name and run.info.status == "FINISHED"
    assert run.data.metrics == FLAT
    assert [m.step for m in client.get_metric_history(run.info.run_id, "metrics/loss")] == [2, 3]


def test_trackio_itself_reads_what_was_logged(tmp_path: Path) -> None:
    pytest.importorskip("trackio", reason="tests/readers.txt")
    code = (
        "import sys; from pathlib import Path; from tests.api.test_trackers import track\n"
        f"assert track(['trackio'], Path({str(tmp_path)!r})) == []\n"
        "from trackio.sqlite_storage import SQLiteStorage\n"
        f"logs = SQLiteStorage.get_logs('xp', {tmp_path.name!r})\n"
        "print([(log['step'], log['metrics/loss']) for log in logs])"
    )
    done = subprocess.run(  # of its own: trackio keeps its folder for the life of a process
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "[(2, 0.125), (3, 0.125)]" in done.stdout
    assert list((tmp_path / "metrics" / "trackio").glob("xp*.db"))


def test_wandb_keeps_an_offline_run_with_the_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="tests/readers.txt")
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "metrics").mkdir()
    assert track(["wandb"], tmp_path) == []
    [kept] = (tmp_path / "metrics" / "wandb").glob("offline-run-*/*.wandb")
    until = time.monotonic() + 60
    while b"0.125" not in kept.read_bytes() and time.monotonic() < until:
        time.sleep(0.2)  # its own process writes the file
    data = kept.read_bytes()
    assert b"metrics/loss" in data and b"heldout/Coin-v0/mean" in data and b"0.125" in data


class Failing:
    """A tracker whose server is gone from the second line on."""

    def __init__(self, log: list[int]) -> None:
        self._log = log

    def log(self, values: Mapping[str, float], version: int) -> None:
        self._log.append(version)
        if version == 3:
            raise ConnectionError("no route to host")

    def close(self) -> None:
        self._log.append(-1)


def test_a_tracker_that_fails_is_dropped_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    module: Any = type(sys)("tests.failing_tracker")
    module.track = lambda _: Failing(seen)
    monkeypatch.setitem(sys.modules, "tests.failing_tracker", module)
    monkeypatch.setitem(tracker.TRACKERS, "failing", "tests.failing_tracker")
    [warned] = track(["failing"], tmp_path)
    assert seen == [2, 3] and "no route to host" in warned.finding


def test_an_unknown_or_missing_tracker_is_refused_before_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigError, match="did you mean 'tensorboard'"):
        check(["tensorbord"], 1)
    with pytest.raises(ConfigError, match="workers=1"):
        check(["prometheus"], 0)
    monkeypatch.setattr(tracker, "find_spec", lambda _: None)
    with pytest.raises(MissingPartError, match=r"xp-experience\[wandb\]"):
        check(["wandb"], 0)


def test_a_run_writes_tensorboard_files_that_agree_with_its_metrics(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    with Commands() as xp:
        told = xp(ROOT, "run", *COIN_RUN, f"runs_dir={tmp_path}", "--log", "tensorboard")
        assert told.code == 0, told.err
        refused = xp(ROOT, "run", *COIN_RUN, f"runs_dir={tmp_path / 'none'}", "--log", "tensors")
        assert refused.code == 2 and not (tmp_path / "none").exists()
    metrics = tmp_path / "latest" / "metrics"
    lines = [json.loads(line) for line in (metrics / "metrics.jsonl").read_text().splitlines()]
    found = scalars(metrics / "tb")
    last = lines[-1]
    assert found["episodes"][last["version"]] == last["episodes"] > 0
    assert found["steps/real"][last["version"]] == last["steps"]["real"]


@pytest.mark.long
def test_prometheus_reads_the_metrics_of_a_run_from_ray() -> None:
    code = (
        "from actors.pool.starting.ray_start import start_ray\n"
        "from tests.api.test_trackers import FLAT\n"
        "from actors.pool.ray_metrics import RayMetrics\n"
        "import time, urllib.request\n"
        "ray = start_ray(None)\n"
        "RayMetrics('coin').log(FLAT, 2)\n"
        "port = ray.nodes()[0]['MetricsExportPort']\n"
        "until = time.monotonic() + 90\n"
        "page = ''\n"
        "while 'ray_xp_heldout_mean' not in page and time.monotonic() < until:\n"
        "    time.sleep(1)\n"
        "    try: page = urllib.request.urlopen(f'http://127.0.0.1:{port}/metrics', timeout=9).read().decode()\n"
        "    except OSError: pass\n"
        "print(*[line for line in page.splitlines() if line.startswith('ray_xp')], sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-2000:]
    [line] = [line for line in done.stdout.splitlines() if line.startswith("ray_xp_heldout_mean")]
    assert 'of="Coin-v0"' in line and 'run="coin"' in line and line.endswith(" 0.5")
