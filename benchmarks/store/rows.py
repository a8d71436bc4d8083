"""The rows of every workload: what an agent's step weighs.

Needs numpy alone, as every peer's environment has it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

COMMIT_ROWS, STREAMS, WINDOW, BATCH = 100, 64, 16, 256
COLUMNS = ("obs_text", "action_ids", "action_logprobs", "reward")


def make_rows(count: int) -> list[dict[str, Any]]:
    """About 2 KiB of text (log-normal), 256 token ids and log-probabilities (mean), a reward (2 %
    above 0)."""
    rng = np.random.default_rng(0)
    letters = np.frombuffer(b"abcdefghij klmnop\nqrstuvw xyz", np.uint8)
    rows = []
    for i in range(count):
        tokens = int(np.clip(rng.lognormal(5.4, 0.55), 8, 2048))
        size = int(np.clip(rng.lognormal(7.45, 0.6), 64, 20_000))
        rows.append(
            {
                "stream": i % STREAMS,
                "t": i // STREAMS,
                "reward": float(rng.random() < 0.02),
                "obs_text": letters[rng.integers(0, len(letters), size)].tobytes().decode(),
                "action_ids": rng.integers(0, 50_000, tokens).astype(np.int32),
                "action_logprobs": rng.normal(-1, 1, tokens).astype(np.float32),
            }
        )
    return rows


def by_stream(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The peers' best case: each stream's rows side by side."""
    return sorted(rows, key=lambda r: (r["stream"], r["t"]))


def commits(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for i in range(0, len(rows), COMMIT_ROWS):
        yield rows[i : i + COMMIT_ROWS]


def answer(**calls: Any) -> None:
    """A peer in another environment: for each line of stdin, the call of that name; its result goes
    to stdout."""
    print("ready", flush=True)
    for line in sys.stdin:
        print(f"answer {calls[line.strip()]()}", flush=True)
