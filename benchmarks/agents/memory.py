"""`python -m benchmarks.agents.memory`: what it is worth to read one's episode again.

The run of configs/recall.yaml, with each history and without one, over five seeds: held-out return
after the last update, each seed printed, and the difference with Student's t. Then how many tokens
a learner reads of the rows, one by one and as lineages. `long` alone: one episode of 10,000 turns
in the same context, and whether time and memory a turn stay flat.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from actors.config.schema import load
from actors.engines.registry import make_model
from actors.pool.local import LocalPool
from actors.pool.pool import all_new
from actors.run import run
from actors.runs.directory import RunDirectory
from experience.evaluation.statistics import mean_estimate, shown
from experience.models.weights import PolicyBundle, Weights
from experience.replay.lineages import LineageCount, count_lineages
from experience.shards.catalog import Catalog
from experience.step import Step

ROOT = Path(__file__).resolve().parents[2]
WORLD = "envs:Recall-v0"
SEEDS = range(5)
HISTORIES = ("none", "full", "last(2)")


@dataclass(frozen=True)
class Outcome:
    """Mean held-out return of the last version, and the lineages of its rows."""

    held_out: float
    lineages: LineageCount


def lived(history: str, seed: int, folder: Path) -> Outcome:
    config, origins = load(
        [ROOT / "configs" / "recall.yaml"],
        [f"agent.history={history}", f"seed={seed}", f"runs_dir={folder}"],
    )
    directory = RunDirectory.create(config, origins, ["bench"])
    versions = run(config, directory).returns[WORLD]
    rows: list[Step] = []
    catalog = Catalog(directory.shards)
    while new := all_new(catalog):
        rows += new
    rows.sort(key=lambda step: (step.stream_id, step.t))
    return Outcome(versions[max(versions)].mean, count_lineages(rows))


def main(seeds: Sequence[int] = SEEDS) -> None:
    found: dict[str, list[Outcome]] = {history: [] for history in HISTORIES}
    for seed in seeds:
        for history in HISTORIES:
            with tempfile.TemporaryDirectory() as folder:
                found[history].append(lived(history, seed, Path(folder)))
            print(f"seed {seed} {history}: {found[history][-1].held_out:.2f}", flush=True)
    without = [outcome.held_out for outcome in found["none"]]
    for history, outcomes in found.items():
        returns = [outcome.held_out for outcome in outcomes]
        print(f"{history}: held-out return, a seed each: {shown(returns)}")
        gain = mean_estimate([a - b for a, b in zip(returns, without, strict=True)])
        low, high = gain.interval or (float("nan"), float("nan"))
        print(f"  beyond none: {gain.value:.2f} (95 % {low:.2f} to {high:.2f})")
        count = outcomes[0].lineages
        print(
            f"  lineages: {count.rows} rows in {count.sequences} sequences, "
            f"{count.rows_a_sequence:.1f} rows each; tokens read for each sampled: "
            f"{count.read_by_row / count.sampled:.1f} by row, "
            f"{count.read_by_sequence / count.sampled:.1f} by sequence"
        )


def long_stream(history: str, turns: int = 10_000) -> None:
    """Prints milliseconds a turn and resident memory for each tenth of one long episode."""
    config, _ = load(
        [ROOT / "configs" / "recall.yaml"],
        [
            f"worlds=[{{id: '{WORLD}', arguments: {{length: {turns}}}}}]",
            f"agent.history={history}",
            "collecting.slots=1",
            "collecting.group_size=2",
        ],
    )
    process = psutil.Process()
    longest = 0
    seen = 0
    with tempfile.TemporaryDirectory() as folder:
        pool = LocalPool(config, "bench", Path(folder), Catalog(Path(folder)))
        trained = make_model(config.policy, 0)
        assert trained is not None
        started = time.perf_counter()
        try:
            pool.push(PolicyBundle(Weights.of(trained.model, 0)), 1)
            for rows in pool.shards(lambda: False):
                if seen >= turns:
                    break
                for step in rows:
                    seen += 1
                    if step.decision is not None:
                        longest = max(longest, len(step.decision.prompt_ids))
                    if seen % (turns // 10) == 0:
                        spent = (time.perf_counter() - started) / (turns // 10) * 1000
                        memory = process.memory_info().rss / 2**20
                        print(f"{history} turn {seen}: {spent:.2f} ms a turn, {memory:.0f} MiB")
                        started = time.perf_counter()
        finally:
            pool.close()
    print(f"longest prompt: {longest} tokens of {config.policy.context}")


if __name__ == "__main__":
    if sys.argv[1:] == ["long"]:
        for kind in ("full", "last(2)", "compact"):
            long_stream(kind)
    else:
        main()
