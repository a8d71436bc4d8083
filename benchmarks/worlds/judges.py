"""`python -m benchmarks.worlds.judges`: the cost of scoring an answer in a process of its own.

The same answer is scored in the warm process itself and in a fork of it, 400 times each. The fork
is made before the score, as a world's reset makes it; a column gives the cost of the fork.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from envs.bridges.reasoning import entry, judges

ROUNDS = 400


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measured(dataset: str) -> tuple[float, float, float, float]:
    """(p50 of the score alone, p50 and p99 of scoring in a fork, p50 of the fork), in ms."""
    asked = {"dataset": dataset, "index": 0, "text": entry(dataset, 0)["answer"]}

    def in_a_fork() -> None:
        with judges().open() as episode:
            episode.ask("score", **asked)

    made = list[float]()
    forked = list[float]()
    for _ in range(ROUNDS):
        made.append(seconds(judges().prepare))
        forked.append(seconds(in_a_fork))
    judges().warm("names")  # answered in order, so the last fork has ended
    alone = [seconds(lambda: judges().warm("score", **asked)) for _ in range(ROUNDS)]
    p99 = sorted(forked)[int(0.99 * ROUNDS)]
    score, scored, fork = (1000 * statistics.median(times) for times in (alone, forked, made))
    return score, scored, 1000 * p99, fork


def main() -> None:
    for dataset in ("chain_sum", "spiral_matrix", "countdown", "polynomial_multiplication"):
        alone, forked, worst, made = measured(dataset)
        print(
            f"{dataset:28} alone p50 {alone:6.2f} ms   in a place p50 {forked:6.2f} p99 "
            f"{worst:6.2f} ms   "
            f"beyond {forked - alone:5.2f} ms   its reset {made:5.2f} ms"
        )


if __name__ == "__main__":
    main()
