"""What a run has done so far: for the live table, the metrics, the report and the summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from experience.evaluation.statistics import Mean
from experience.planning.world_models.world_model import ModelError
from experience.shards.episodes.index import EpisodeIndex
from experience.step import FAILED, Step


@dataclass
class Failure:
    """What broke in a world, told by its first time."""

    world: str
    what: str
    """The error's type and message."""
    count: int = 0
    traceback: str = ""


@dataclass
class Progress:
    """Counts and means of one run. Unknown is NaN or missing, never 0."""

    run: str
    seconds: float = 0.0
    phase: str = "starting"
    done: dict[str, tuple[int, int]] = field(default_factory=dict)
    """How many of how many are done in this phase, by what is counted."""
    closing: bool = False
    """Whether the collectors are being ended."""
    cut_short: dict[str, str] = field(default_factory=dict)
    """Phases whose budget ended before they did: how far they came."""
    learns: bool = True
    version: int = 0
    steps: dict[str, int] = field(default_factory=dict)
    training_steps: int = 0
    """Real steps of training episodes: what learning cost."""
    episodes: int = 0
    returns: dict[str, dict[int, Mean]] = field(default_factory=dict)
    random: dict[str, Mean] = field(default_factory=dict)
    gain: dict[str, Mean] = field(default_factory=dict)
    training: dict[str, list[float]] = field(default_factory=dict)
    groups: Counter[str] = field(default_factory=Counter)
    """Groups learned from: `all`, and `flat`, whose episodes do not differ and teach nothing."""
    model_error: ModelError | None = None
    lag: float = 0.0
    imagined: Counter[str] = field(default_factory=Counter)
    skills: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    cut: Counter[str] = field(default_factory=Counter)
    """Prompts that lost tokens for want of room, and actions that the limit of tokens ended."""
    failures: Counter[str] = field(default_factory=Counter)
    """By world and type of error."""
    broken: dict[str, Failure] = field(default_factory=dict)
    """The first of each of `failures` that stands in a row."""
    restarts: int = 0
    acknowledged: int = 0
    disk_is_full: bool = False
    """Nothing is acknowledged, and nothing new begun, until there is room again."""
    skipped: int = 0
    """Updates left out because their loss or gradient was not finite."""
    metrics: dict[str, float] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)
    """What monitors warned of, by monitor."""

    def count_rows(self, rows: Sequence[Step]) -> None:
        """Counts what was cut in these rows, and the failures that they tell."""
        for row in rows:
            if row.decision is not None:
                self.cut.update(
                    prompts=bool(row.decision.prompt_cut), actions=bool(row.decision.action_cut)
                )
            elif row.ending in FAILED and row.info.get("error"):
                self._count_failure(
                    row.env_id, str(row.info["error"]), str(row.info.get("traceback", ""))
                )

    def count_history(self, index: EpisodeIndex) -> None:
        """Counts the same of all rows that a store held before, without reading them."""
        rows, words = index.records.rows, index.records.words
        self.cut.update(
            prompts=int(rows["prompts_cut"].sum()), actions=int(rows["actions_cut"].sum())
        )
        failed = np.isin(rows["ending"], words.numbers(FAILED)) & (rows["closed"] >= 0)
        self.count_rows([index.closing(number) for number in np.flatnonzero(failed).tolist()])

    def _count_failure(self, world: str, what: str, traceback: str) -> None:
        name = f"{world}: {what.partition(':')[0]}"
        self.failures[name] += 1
        first = self.broken.setdefault(name, Failure(world, what))
        first.count += 1
        first.traceback = first.traceback or traceback

    def count_collectors(
        self,
        collectors: Sequence[Mapping[str, Any]],
        quarantined: Sequence[tuple[str, int]],
        restarts: int,
        acknowledged: Mapping[bytes, int],
    ) -> None:
        """Counts what a pool knows at its end.

        acknowledged: the last acknowledged t of each stream.
        """
        for status in collectors:
            self.failures.update(status["failures"])
        for world, seed in quarantined:
            self.failures[f"quarantined: {world} seed {seed}"] += 1
        self.restarts = restarts
        self.acknowledged = sum(t + 1 for t in acknowledged.values())

    @property
    def training_means(self) -> dict[str, float | None]:
        """Per world the mean return of its newest training episodes; None where there are none."""
        return {w: sum(r) / len(r) if r else None for w, r in self.training.items()}

    def record(self) -> dict[str, Any]:
        """What a program that follows the run reads: one object of JSON."""
        return {
            "run": self.run,
            "seconds": round(self.seconds, 1),
            "phase": self.phase,
            "done": {what: list(counts) for what, counts in self.done.items()},
            "cut_short": self.cut_short,
            "version": self.version,
            "steps": self.steps,
            "training_steps": self.training_steps,
            "episodes": self.episodes,
            "failures": dict(self.failures),
            "warnings": self.warnings,
            "training": self.training_means,
            "held_out": {w: by[max(by)].mean for w, by in self.returns.items() if by},
        }
