"""The rows of every workload, as large as an agent's steps.

Needs numpy alone, as every peer's environment has it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

COMMIT_ROWS = 100
STREAMS = 64
WINDOW = 16
BATCH = 256
COLUMNS = ("obs_text", "action_ids", "action_logprobs", "reward")


def make_rows(count: int) -> list[dict[str, Any]]:
    """Rows of about 2 KiB of text and 256 token ids and log-probabilities (log-normal, means).

    2 % of the rewards are above 0.
    """
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
    # Then a window is one slice of their table; ours are stored as they came.
    return sorted(rows, key=lambda r: (r["stream"], r["t"]))


def commits(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for i in range(0, len(rows), COMMIT_ROWS):
        yield rows[i : i + COMMIT_ROWS]


def answer(**calls: Any) -> None:
    """Serves a peer in another environment: stdin names a call a line, stdout gets its result."""
    # Flushed: stdout is a pipe, and the other end waits for the line.
    print("ready", flush=True)
    for line in sys.stdin:
        print(f"answer {calls[line.strip()]()}", flush=True)
