"""Reverb, in its own environment: appends and windows for `./xp bench store`.

Texts and arrays are stored as bytes, since a column takes one shape only.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import reverb

from benchmarks.store.rows import BATCH, COMMIT_ROWS, WINDOW, answer, by_stream, make_rows

count = int(sys.argv[1])
rows = make_rows(count)


def as_bytes(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "obs_text": np.array(row["obs_text"].encode(), object),
        "action_ids": np.array(row["action_ids"].tobytes(), object),
        "action_logprobs": np.array(row["action_logprobs"].tobytes(), object),
        "reward": np.float32(row["reward"]),
    }


def serve() -> Any:
    table = reverb.Table(
        "t",
        reverb.selectors.Uniform(),
        reverb.selectors.Fifo(),
        10**7,
        reverb.rate_limiters.MinSize(1),
    )
    return reverb.Server([table], port=None)


def append() -> float:
    """Rows/s, an item a row, flushed every 100: in memory, not on disk."""
    server = serve()
    part = rows[: count // 4]
    started = time.perf_counter()
    with server.localhost_client().trajectory_writer(num_keep_alive_refs=1) as writer:
        for i, row in enumerate(part, 1):
            writer.append(as_bytes(row))
            writer.create_item(
                "t", 1.0, {name: writer.history[name][-1:] for name in writer.history}
            )
            if i % COMMIT_ROWS == 0:
                writer.flush()
        writer.flush()
    rate = len(part) / (time.perf_counter() - started)
    server.stop()
    return rate


def fill() -> Any:
    server = serve()
    with server.localhost_client().trajectory_writer(num_keep_alive_refs=WINDOW) as writer:
        stream = -1
        length = 0
        for row in by_stream(rows):
            if row["stream"] != stream:
                writer.end_episode()  # else a window would reach from one stream into the next
                stream = row["stream"]
                length = 0
            writer.append(as_bytes(row))
            length += 1
            if length >= WINDOW:
                writer.create_item(
                    "t", 1.0, {name: writer.history[name][-WINDOW:] for name in writer.history}
                )
    return server


full: list[Any] = []


def windows() -> float:
    """Windows/s, four batches, each column of a window joined to one array."""
    if not full:
        full.append(fill())
    client = full[0].localhost_client()
    total = 0
    started = time.perf_counter()
    for _ in range(4):
        for sample in client.sample("t", BATCH, emit_timesteps=False):
            data = sample[0].data if isinstance(sample, list) else sample.data
            values = list(data.values()) if isinstance(data, dict) else data
            total += sum(
                np.frombuffer(b"".join(v.tolist()), np.uint8).size
                if v.dtype == object
                else v.copy().size
                for v in values
            )
    rate = 4 * BATCH / (time.perf_counter() - started)
    assert total > 4 * BATCH * WINDOW
    return rate


answer(append=append, windows=windows)
