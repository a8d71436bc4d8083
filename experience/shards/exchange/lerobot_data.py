"""LeRobot v3.0: a dataset a world, a turn counted as one second."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from experience.shards.exchange.episodes import Exchanged, by_world, short_name
from experience.shards.replay import Episode


def to_lerobot(store: Path, out: Path) -> Exchanged:
    """LeRobot's v3.0 layout, one data file a world; a turn counts as one second."""
    done = Exchanged()
    for world, lived in by_world(store, done).items():
        _lerobot_world(out / short_name(world), lived)
        done.files.append(short_name(world))
    return done


_TEXT = {"dtype": "string", "shape": [1], "names": None}
_NUMBERS = {"next.reward": "float32", "next.done": "bool", "timestamp": "float32", "frame_index": "int64",
            "episode_index": "int64", "index": "int64", "task_index": "int64"}


def _lerobot_world(out: Path, lived: list[Episode]) -> None:
    tasks = {task: i for i, task in enumerate(dict.fromkeys(e.first.task_id for e in lived))}
    lengths = [len(e.steps) for e in lived]
    ends = np.cumsum(lengths)
    turns = [s for e in lived for s in e.steps]
    frame = np.concatenate([np.arange(n) for n in lengths])
    data = pa.table({
        "observation.text": pa.array([s.obs_text for s in turns], pa.string()),
        "action": pa.array([s.decision.text if s.decision else "" for s in turns], pa.string()),
        "next.reward": pa.array([np.nan if s.reward is None else s.reward for s in turns], pa.float32()),
        "next.done": pa.array([i + 1 == n for n in lengths for i in range(n)]),
        "timestamp": pa.array(frame.astype(np.float32)), "frame_index": pa.array(frame),
        "episode_index": pa.array(np.repeat(np.arange(len(lived)), lengths)), "index": pa.array(np.arange(len(turns))),
        "task_index": pa.array([tasks[e.first.task_id] for e in lived for _ in e.steps], pa.int64())})
    zeros = pa.array(np.zeros(len(lived), np.int64))
    about = pa.table({
        "episode_index": pa.array(np.arange(len(lived))), "tasks": pa.array([[e.first.task_id] for e in lived]),
        "length": pa.array(lengths, pa.int64()), "data/chunk_index": zeros, "data/file_index": zeros,
        "dataset_from_index": pa.array(ends - lengths), "dataset_to_index": pa.array(ends),
        "meta/episodes/chunk_index": zeros, "meta/episodes/file_index": zeros})
    index = {"index_columns": ["__index_level_0__"], "column_indexes": [], "columns": [
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64",
         "metadata": None},
        {"name": None, "field_name": "__index_level_0__", "pandas_type": "unicode", "numpy_type": "object",
         "metadata": None}]}
    task_table = pa.table({"task_index": pa.array(list(tasks.values()), pa.int64()),
                           "__index_level_0__": pa.array(list(tasks))}).replace_schema_metadata(
                               {"pandas": json.dumps(index)})
    info = {"codebase_version": "v3.0", "robot_type": None, "total_episodes": len(lived), "total_frames": len(turns),
            "total_tasks": len(tasks), "chunks_size": 1000, "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200, "fps": 1, "splits": {"train": f"0:{len(lived)}"},
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet", "video_path": None,
            "features": {"observation.text": _TEXT, "action": _TEXT, **{
                name: {"dtype": of, "shape": [1], "names": None} for name, of in _NUMBERS.items()}}}
    for folder in ("data/chunk-000", "meta/episodes/chunk-000"):
        (out / folder).mkdir(parents=True)
    parquet.write_table(data, out / "data/chunk-000/file-000.parquet")
    parquet.write_table(about, out / "meta/episodes/chunk-000/file-000.parquet")
    parquet.write_table(task_table, out / "meta/tasks.parquet")
    (out / "meta/info.json").write_text(json.dumps(info, indent=1))
    (out / "meta/stats.json").write_text(json.dumps({name: _statistics(data.column(name)) for name in _NUMBERS}))


def _statistics(column: pa.ChunkedArray) -> dict[str, list[float]]:
    values = column.to_numpy().astype(np.float64)
    return {"min": [float(np.nanmin(values))], "max": [float(np.nanmax(values))], "mean": [float(np.nanmean(values))],
            "std": [float(np.nanstd(values))], "count": [len(values)]}
