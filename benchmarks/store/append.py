"""W1: appends of 100 rows a commit.

Each function appends all rows to `folder`, in its best configuration that we know, and pays for its
own conversion.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from benchmarks.store.rows import BATCH, COMMIT_ROWS, STREAMS, WINDOW, commits
from experience.policy import Decision, VersionSpan
from experience.shards.journal import Journal
from experience.signal import Signal, SignalKind
from experience.step import Boundary, Step

CATALOGUE = {"done": SignalKind("fraction", "env_state")}
IDS = [uuid.UUID(int=i).bytes for i in range(STREAMS)]


def as_step(row: dict[str, Any]) -> Step:
    return Step(
        stream_id=IDS[row["stream"]],
        t=row["t"],
        env_id="bench",
        obs_text=row["obs_text"],
        decision=Decision(
            "act",
            0,
            action_ids=row["action_ids"],
            logprobs=row["action_logprobs"],
            version_spans=(VersionSpan(0, len(row["action_ids"])),),
            token_exact=True,
        ),
        signals=(Signal("done", row["reward"], "fraction", "env_state"),),
        reward=row["reward"],
        boundary=Boundary.RESET if row["t"] == 0 else Boundary.NONE,
    )


def with_steps(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each writer's own kind of row in memory: a step for us, a dict for the others."""
    return [row | {"step": as_step(row)} for row in rows]


def as_table(rows: list[dict[str, Any]]) -> pa.Table:
    def ragged(name: str) -> pa.Array:
        offsets = np.zeros(len(rows) + 1, np.int32)
        np.cumsum([len(r[name]) for r in rows], out=offsets[1:])
        return pa.ListArray.from_arrays(offsets, np.concatenate([r[name] for r in rows]))

    return pa.table(
        {
            "stream": [r["stream"] for r in rows],
            "t": [r["t"] for r in rows],
            "reward": [r["reward"] for r in rows],
            "obs_text": pa.array([r["obs_text"] for r in rows], pa.large_string()),
            "action_ids": ragged("action_ids"),
            "action_logprobs": ragged("action_logprobs"),
        }
    )


def ours_append(rows: list[dict[str, Any]], folder: Path, durability: Any = "group") -> None:
    # No commit by time: only the number of rows ends one, as for the peers.
    journal = Journal(
        folder / "w", CATALOGUE, batch_rows=COMMIT_ROWS, commit_seconds=3600, durability=durability
    )
    for row in rows:
        journal.append(row["step"])
    journal.close()


def ours_append_os(rows: list[dict[str, Any]], folder: Path) -> None:
    ours_append(rows, folder, "os")


def lance_append(rows: list[dict[str, Any]], folder: Path) -> None:
    import lance

    for part in commits(rows):
        lance.write_dataset(as_table(part), str(folder / "lance"), mode="append")


def parquet_append(rows: list[dict[str, Any]], folder: Path) -> None:
    writer = None
    for part in commits(rows):
        table = as_table(part)
        writer = writer or parquet.ParquetWriter(
            folder / "rows.parquet", table.schema, compression="zstd"
        )
        writer.write_table(table)
    assert writer is not None
    writer.close()


def huggingface_append(rows: list[dict[str, Any]], folder: Path) -> None:
    from datasets.arrow_writer import ArrowWriter

    with ArrowWriter(path=str(folder / "rows.arrow")) as writer:
        for part in commits(rows):
            writer.write_table(as_table(part))
        writer.finalize()


def sqlite_append(rows: list[dict[str, Any]], folder: Path) -> None:
    base = sqlite3.connect(folder / "rows.sqlite")
    base.execute("pragma journal_mode=wal")
    base.execute("pragma synchronous=full")  # else WAL syncs at a checkpoint only
    base.execute("create table rows (stream, t, reward, obs_text, action_ids, action_logprobs)")
    for part in commits(rows):
        base.executemany(
            "insert into rows values (?,?,?,?,?,?)",
            [
                (
                    r["stream"],
                    r["t"],
                    r["reward"],
                    r["obs_text"],
                    r["action_ids"].tobytes(),
                    r["action_logprobs"].tobytes(),
                )
                for r in part
            ],
        )
        base.commit()
    base.close()


def jsonl_append(rows: list[dict[str, Any]], folder: Path) -> None:
    import orjson

    with open(folder / "rows.jsonl", "wb") as file:
        for part in commits(rows):
            for row in part:
                plain = {name: value for name, value in row.items() if name != "step"}
                file.write(
                    orjson.dumps(
                        plain, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
                    )
                )
            file.flush()


def raw_append(rows: list[dict[str, Any]], folder: Path, sync: bool) -> None:
    """The limit: the same bytes, written and, if asked, synced once a commit."""
    descriptor = os.open(folder / "raw", os.O_WRONLY | os.O_CREAT)
    for part in commits(rows):
        parts = []
        for row in part:
            parts += [
                row["obs_text"].encode(),
                row["action_ids"].tobytes(),
                row["action_logprobs"].tobytes(),
            ]
        os.write(descriptor, b"".join(parts))
        if sync:
            os.fdatasync(descriptor)
    os.close(descriptor)


def torchrl_append(rows: list[dict[str, Any]], folder: Path, sampler: Any = None) -> Any:
    """The buffer. Its memory-mapped storage needs one shape, so texts and tokens are padded.

    5 in 1,000 are cut to that shape.
    """
    import torch
    from tensordict import TensorDict
    from torchrl.data import LazyMemmapStorage, TensorDictReplayBuffer

    buffer = TensorDictReplayBuffer(
        storage=LazyMemmapStorage(len(rows), scratch_dir=str(folder)),
        batch_size=BATCH * WINDOW,
        sampler=sampler,
    )
    widths = {
        "obs_text": (8192, np.uint8),
        "action_ids": (1024, np.int32),
        "action_logprobs": (1024, np.float32),
    }
    for part in commits(rows):
        columns: dict[str, Any] = {
            "reward": torch.tensor([r["reward"] for r in part]),
            "stream": torch.tensor([r["stream"] for r in part]),
        }
        for name, (width, of) in widths.items():
            padded = np.zeros((len(part), width), of)
            for i, row in enumerate(part):
                value = row[name].encode() if name == "obs_text" else row[name]
                value = np.frombuffer(value, np.uint8) if name == "obs_text" else value
                padded[i, : len(value)] = value[:width]
            columns[name] = torch.from_numpy(padded)
        buffer.extend(TensorDict(columns, batch_size=[len(part)]))
    return buffer


def minari_append(rows: list[dict[str, Any]], folder: Path) -> Any:
    """The data set, with episodes of 100 rows.

    Its spaces are text: it has none for token ids of varying number.
    """
    import gymnasium
    import minari
    from minari.data_collector import EpisodeBuffer

    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    space = gymnasium.spaces.Text(
        10**6, min_length=0, charset="abcdefghijklmnopqrstuvwxyz \n0123456789.-,"
    )
    data = None
    for number, part in enumerate(commits(rows)):
        episode = EpisodeBuffer(
            id=number,
            observations=[*(r["obs_text"] for r in part), ""],
            actions=[",".join(map(str, r["action_ids"].tolist())) for r in part],
            rewards=[r["reward"] for r in part],
            terminations=[False] * len(part),
            truncations=[False] * len(part),
            infos={},
        )
        if data is None:
            data = minari.create_dataset_from_buffers(
                "bench/rows-v0", [episode], observation_space=space, action_space=space
            )
        else:
            data.storage.update_episodes([episode])
    return data
