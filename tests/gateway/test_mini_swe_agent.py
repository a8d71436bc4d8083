"""mini-swe-agent as it comes from PyPI, acting in a real package: exact ids, nothing mixed.

It needs a Python environment of its own, named by XP_MINI_SWE_AGENT (docs/gateway.md).
"""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from actors.collecting.work import Work
from actors.config.schema import load
from actors.gathering.acting import acting
from actors.gathering.gathering import gathering
from actors.gathering.tally import Tally
from actors.runs.directory import RunDirectory
from experience.replay.lineages import continues
from experience.shards.catalog import Catalog
from experience.step import Step

FOLDER = os.environ.get("XP_MINI_SWE_AGENT", "")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not FOLDER, reason="XP_MINI_SWE_AGENT names no environment with it"),
]


def lived(tmp_path: Path, engine: str, most_tokens: int, episodes: int) -> list[list[Step]]:
    """The rows of episodes in which mini-swe-agent acted, each in the order of its stream."""
    shape = ("policy.layers=1", "policy.width=16", "policy.heads=2", "policy.context=16384")
    config, origins = load(
        [],
        [
            f"policy.engine={engine}",
            f"policy.max_tokens={most_tokens}",
            *shape,
            "policy.learns=false",
            "planning.enabled=false",
            "collecting.slots=2",
            "worlds=[{id: 'envs:Repo-v0', demonstrations: 0}]",
            f"agents=[{{harness: mini-swe-agent, folder: {FOLDER}, seconds: 240, steps: 6}}]",
        ],
    )
    directory = RunDirectory.create(config, origins, [], tmp_path / "store")
    works = [Work.named(f"{n}", env_id="envs:Repo-v0", seed=n) for n in range(episodes)]
    who = acting("engine", config)
    with gathering(who, 1.0, directory, Tally(), lambda _: None, "collecting") as gathered:
        gathered.live(lambda: works)
    rows = [step for steps in Catalog(directory.shards).follow() for step in steps]
    lives: dict[bytes, list[Step]] = {}
    for row in sorted(rows, key=lambda row: (row.stream_id, row.t)):
        lives.setdefault(row.work_id, []).append(row)
    return list(lives.values())


def calls(rows: list[Step]) -> list[Step]:
    return [
        row
        for row in rows
        if row.decision and row.decision.behaviour_id != "harness:mini-swe-agent"
    ]


def test_it_mends_what_a_model_that_knows_tells_it(tmp_path: Path) -> None:
    lives = lived(tmp_path, "tests.gateway.mending_engine:Mending", 400, 3)
    mended = [rows for rows in lives if rows[-1].ending == "terminated"]
    assert mended  # on a busy machine, networkx's own tests may come too late for some
    for rows in mended:
        *asked, end, _ = rows
        assert [(s.name, s.value) for s in end.signals] == [("mended", 1.0)]
        assert len(asked) == 3
        for before, row in pairwise(asked):
            assert before.decision and row.decision and row.decision.token_exact
            whole = np.concatenate([before.decision.prompt_ids, before.decision.action_ids])
            assert continues(whole, row.decision.prompt_ids) and row.parent is None


def test_it_is_kept_exactly_whatever_a_model_says(tmp_path: Path) -> None:
    lives = lived(tmp_path, "small", 24, 4)
    assert any(calls(rows) for rows in lives)
    for rows in lives:
        for row in calls(rows):
            assert row.decision and row.decision.token_exact and row.agent_id == "0"
            assert len(row.decision.action_ids) == len(row.decision.logprobs)
