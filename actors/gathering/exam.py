"""An evaluation's results: from the tally of a store to scores, tables and records."""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from actors.config.schema import Config
from actors.gathering.acting import Acting
from actors.gathering.orders import Exam, Task, task_seed
from actors.gathering.tally import Tally
from experience.evaluation.attempts import Attempts, Score, score
from experience.evaluation.statistics import Mean


@dataclass(frozen=True)
class Results:
    """What one policy reached: the attempts by task, the scores by world."""

    exam: Exam
    version: int
    ks: tuple[int, ...]
    bar: float | None
    attempts: Mapping[Task, Attempts]
    scores: Mapping[str, Score]
    missing: int
    """Attempts that were not lived."""


def results(
    config: Config,
    who: Acting,
    exam: Exam,
    tally: Tally,
    ks: Sequence[int],
    bar: float | None,
) -> Results:
    """Reads the results of an exam from all that its store holds."""
    returns: dict[Task, list[float]] = defaultdict(list)
    failed: Counter[Task] = Counter()
    unknown: Counter[Task] = Counter()
    missing, tasks = 0, dict[Task, None]()
    for task, tries in exam.tries(config, who.lane):
        tasks[task] = None
        found = [*itertools.takewhile(bool, (tally.lived.get(w.work_id) for w in tries))]
        missing += not found
        failed[task] += sum(lived.failed for lived in found if lived)
        last = found[-1] if found else None
        if last is not None and not last.failed:
            unknown[task] += last.total is None
            returns[task] += [] if last.total is None else [last.total]
    attempts = {t: Attempts(tuple(returns[t]), failed[t], unknown[t]) for t in tasks}
    by_world: dict[str, list[Attempts]] = defaultdict(list)
    for (world, _), tried in attempts.items():
        by_world[world].append(tried)
    scores = {world: score(of, ks, bar) for world, of in by_world.items()}
    return Results(exam, who.version, tuple(ks), bar, attempts, scores, missing)


def as_record(found: Results) -> dict[str, Any]:
    """The results as one JSON object. A mean is null where nothing is known, never 0."""
    worlds = {}
    for world, of in found.scores.items():
        worlds[world] = {
            "tasks": of.tasks,
            "episodes": of.episodes,
            "failed": of.failed,
            "unknown": of.unknown,
            "return": _mean(of.mean_return),
            "success": None if of.success is None else _mean(of.success),
            "pass_at": {
                str(k): _mean(passed.mean) | {"short": passed.short}
                for k, passed in of.passed.items()
            },
        }
    return {
        **asdict(found.exam),
        "version": found.version,
        "success_at": found.bar,
        "missing": found.missing,
        "worlds": worlds,
    }


def _mean(mean: Mean) -> dict[str, Any]:
    return {"mean": mean.mean if mean.n else None, "half": mean.half, "n": mean.n}


def table(found: Results) -> list[str]:
    """The results as lines of text, one a world."""
    head = ["world", "tasks", "episodes", "failed", "return"]
    if found.bar is not None:
        head += ["success", *(f"pass@{k}" for k in found.ks)]
    rows = [head]
    for world, of in found.scores.items():
        cells = [world, str(of.tasks), str(of.episodes), str(of.failed + of.unknown)]
        cells.append(str(of.mean_return))
        if of.success is not None:
            cells += [str(of.success), *(str(of.passed[k].mean) for k in found.ks)]
        rows.append(cells)
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def tasks_as_csv(config: Config, found: Results) -> bytes:
    """A row for each task: its seed, how many attempts have a return, and what they earned."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(
        ["world", "task", "seed", "attempts", "successes", "failed", "unknown", "mean_return"]
    )
    for (world, number), tried in found.attempts.items():
        known = len(tried.returns)
        rows.writerow(
            [
                world,
                number,
                task_seed(config.seed, found.exam.split, number),
                known,
                "" if found.bar is None else tried.successes(found.bar),
                tried.failed,
                tried.unknown,
                sum(tried.returns) / known if known else "",
            ]
        )
    return text.getvalue().encode()
