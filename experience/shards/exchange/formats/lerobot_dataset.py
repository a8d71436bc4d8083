"""LeRobot v3.0: a dataset a world, a turn counted as one second.

Rows go out as they come; memory does not grow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from experience.episode import Episode
from experience.shards.exchange.rows.episodes import Exchanged, Rows, short_name
from experience.shards.exchange.rows.pictures import Pictures
from experience.text.strict_json import dumps

NAME = "lerobot"

_ROWS_AT_ONCE, _EPISODES_AT_ONCE = 1_000, 1_000
_DATA = pa.schema(
    [
        ("observation.text", pa.string()),
        ("observation.pictures", pa.string()),
        ("action", pa.string()),
        ("next.reward", pa.float32()),
        ("next.done", pa.bool_()),
        ("timestamp", pa.float32()),
        ("frame_index", pa.int64()),
        ("episode_index", pa.int64()),
        ("index", pa.int64()),
        ("task_index", pa.int64()),
    ]
)
_ABOUT = pa.schema(
    [
        ("episode_index", pa.int64()),
        ("tasks", pa.list_(pa.string())),
        ("length", pa.int64()),
        ("data/chunk_index", pa.int64()),
        ("data/file_index", pa.int64()),
        ("dataset_from_index", pa.int64()),
        ("dataset_to_index", pa.int64()),
        ("meta/episodes/chunk_index", pa.int64()),
        ("meta/episodes/file_index", pa.int64()),
    ]
)
_NUMBERS = [f.name for f in _DATA if not pa.types.is_string(f.type)]


def export(rows: Rows, out: Path) -> Exchanged:
    """Writes one dataset a world.

    Pictures are files in `images/`; `observation.pictures` names those of a turn, as JSON.
    """
    done = Exchanged()
    worlds: dict[str, _World] = {}
    for episode in rows.whole(done):
        world = episode.first.env_id
        if world not in worlds:
            done.files.append(short_name(world, done.files))
            worlds[world] = _World(rows.store, out / done.files[-1])
        worlds[world].add(episode)
        done.rows += len(episode.steps)
        done.episodes += 1
    for made in worlds.values():
        made.close()
    return done


@dataclass
class _Statistics:
    """Least, greatest, mean and deviation of a series of numbers, NaN (unknown) left out.

    Welford's update, so that nothing has to be kept: M_k = M_{k-1} + (x_k − M_{k-1})/k,
    S_k = S_{k-1} + (x_k − M_{k-1})(x_k − M_k).    Knuth, TAOCP vol. 2, 4.2.2
    """

    count: int = 0
    known: int = 0
    least: float = math.inf
    most: float = -math.inf
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        if math.isnan(value):
            return
        self.known += 1
        self.least, self.most = min(self.least, value), max(self.most, value)
        before = self.mean
        self.mean += (value - before) / self.known
        self.squares += (value - before) * (value - self.mean)

    def said(self) -> dict[str, list[float | int]]:
        if not self.known:
            return {
                "min": [math.nan],
                "max": [math.nan],
                "mean": [math.nan],
                "std": [math.nan],
                "count": [self.count],
            }
        return {
            "min": [self.least],
            "max": [self.most],
            "mean": [self.mean],
            "std": [math.sqrt(self.squares / self.known)],
            "count": [self.count],
        }


@dataclass
class _Rows:
    """A Parquet file that is written a row group at a time."""

    path: Path
    schema: pa.Schema
    at_once: int
    waiting: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.path.parent.mkdir(parents=True)
        self._writer = parquet.ParquetWriter(self.path, self.schema)

    def add(self, row: dict[str, Any]) -> None:
        self.waiting.append(row)
        if len(self.waiting) >= self.at_once:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self.waiting, self.schema))
        self.waiting = []

    def close(self) -> None:
        if self.waiting:
            self._flush()
        self._writer.close()


class _World:
    """One dataset in the making."""

    def __init__(self, store: Path, out: Path) -> None:
        self._out = out
        self._data = _Rows(out / "data/chunk-000/file-000.parquet", _DATA, _ROWS_AT_ONCE)
        self._about = _Rows(
            out / "meta/episodes/chunk-000/file-000.parquet", _ABOUT, _EPISODES_AT_ONCE
        )
        self._pictures = Pictures(store, out)
        self._tasks: dict[str, int] = {}
        self._statistics = {name: _Statistics() for name in _NUMBERS}
        self._episodes = self._turns = 0

    def add(self, episode: Episode) -> None:
        first, length = self._turns, len(episode.steps)
        task = self._tasks.setdefault(episode.first.task_id, len(self._tasks))
        for frame, step in enumerate(episode.steps):
            row: dict[str, Any] = {
                "observation.text": step.obs_text,
                "observation.pictures": dumps([self._pictures.save(b) for b in step.obs_blobs]),
                "action": step.decision.text if step.decision else "",
                "next.reward": math.nan if step.reward is None else step.reward,
                "next.done": frame + 1 == length,
                "timestamp": float(frame),
                "frame_index": frame,
                "episode_index": self._episodes,
                "index": self._turns,
                "task_index": task,
            }
            for name in _NUMBERS:
                self._statistics[name].add(
                    float(np.float32(row[name])) if name == "next.reward" else float(row[name])
                )
            self._data.add(row)
            self._turns += 1
        self._about.add(
            {
                "episode_index": self._episodes,
                "tasks": [episode.first.task_id],
                "length": length,
                "data/chunk_index": 0,
                "data/file_index": 0,
                "dataset_from_index": first,
                "dataset_to_index": self._turns,
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
            }
        )
        self._episodes += 1

    def close(self) -> None:
        self._data.close()
        self._about.close()
        parquet.write_table(self._task_table(), self._out / "meta/tasks.parquet")
        (self._out / "meta/info.json").write_text(dumps(self._info(), indent=1))
        (self._out / "meta/stats.json").write_text(
            dumps({n: s.said() for n, s in self._statistics.items()})
        )

    def _task_table(self) -> pa.Table:
        """Tasks by their text, which pandas is to take as the index."""
        index = {
            "index_columns": ["__index_level_0__"],
            "column_indexes": [],
            "columns": [
                {
                    "name": "task_index",
                    "field_name": "task_index",
                    "pandas_type": "int64",
                    "numpy_type": "int64",
                    "metadata": None,
                },
                {
                    "name": None,
                    "field_name": "__index_level_0__",
                    "pandas_type": "unicode",
                    "numpy_type": "object",
                    "metadata": None,
                },
            ],
        }
        return pa.table(
            {
                "task_index": pa.array(list(self._tasks.values()), pa.int64()),
                "__index_level_0__": pa.array(list(self._tasks), pa.string()),
            }
        ).replace_schema_metadata({"pandas": dumps(index)})

    def _info(self) -> dict[str, Any]:
        kinds = {
            f.name: "bool"
            if pa.types.is_boolean(f.type)
            else {"float": "float32"}.get(str(f.type), str(f.type))
            for f in _DATA
        }
        return {
            "codebase_version": "v3.0",
            "robot_type": None,
            "total_episodes": self._episodes,
            "total_frames": self._turns,
            "total_tasks": len(self._tasks),
            "chunks_size": 1000,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": 1,
            "splits": {"train": f"0:{self._episodes}"},
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": None,
            "features": {
                name: {"dtype": kind, "shape": [1], "names": None} for name, kind in kinds.items()
            },
        }
