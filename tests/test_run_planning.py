"""The planning part of the main loop, past its gates: what each step of it changes in a real run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from actors.config.schema import load
from actors.run import run
from actors.running.assembly import Parts, assemble
from actors.running.events import Events
from actors.running.thought import Every
from actors.runs.directory import RunDirectory
from experience.options.option import Library
from experience.planning.tabular import TabularModel
from experience.shards.catalog import Catalog
from tests.test_same_run import FAST, SAME

SETTINGS = [*SAME, *FAST, "planning.sweeps.roots=8", "planning.sweeps.states=8"]


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    with prepared(tmp_path) as made:
        yield made


@contextmanager
def prepared(folder: Path, *settings: str) -> Iterator[Parts]:
    """A run that has lived one window, and plans with a model that counts what it has lived."""
    config, origins = load([], [*SETTINGS, *settings, f"runs_dir={folder}"])
    directory = RunDirectory.create(config, origins, ["test"])
    with assemble(config, directory, lambda _: None, Events()) as made:
        made.phases.demonstrate()
        made.publish()
        for shard in made.pool.shards(
            until=lambda: made.replay.ready_groups >= made.budget.groups_per_update
        ):
            made.take(shard)
        model = TabularModel()
        model.add(made.replay.transitions)
        made.thought._world = model  # type: ignore[assignment]  # counts: exact after a few turns
        yield made


def test_imagined_branches_change_the_policy_and_are_kept_as_imagined_rows(parts: Parts) -> None:
    before = parts.learner.policy().weights.data
    groups = parts.thought.imagine()
    assert groups and all(len(group.episodes) > 1 for group in groups)
    parts.learner.improve(groups, parts.budget.planning_rate)
    assert parts.learner.policy().weights.data != before
    assert sum(parts.progress.imagined.values()) >= len(groups)
    parts.thought.close()
    rows = [
        step for block in Catalog(parts.thought._folder / "imagined").follow() for step in block
    ]
    assert {row.source for row in rows} == {"imagined"}
    assert all(row.parent is not None for row in rows)


def test_what_sweeps_conclude_is_right_and_imitating_it_changes_the_policy(parts: Parts) -> None:
    turns = parts.thought.plan([])
    assert parts.progress.imagined["planned"] >= 3
    assert len(turns) == parts.progress.imagined["planned"]
    parts.thought.close()
    rows = [
        step for block in Catalog(parts.thought._folder / "imagined").follow() for step in block
    ]
    concluded = [row for row in rows if row.decision is not None]
    for row in concluded:  # the world's rule: say the letter that is shown
        assert row.decision is not None and row.obs_text == f"say {row.decision.text}"
        assert row.value_estimate is not None and row.value_estimate >= 1
    before = parts.learner.policy().weights.data
    parts.learner.imitate_plans(turns, parts.budget.planning_rate)
    assert parts.learner.policy().weights.data != before


def test_nothing_is_imagined_at_the_updates_between(parts: Parts) -> None:
    parts.thought.should_imagine = Every(1000)
    assert parts.thought.imagine() == [] and parts.thought.plan([]) == []
    assert not parts.progress.imagined


def test_curating_pushes_the_skills_that_it_found_with_the_policy(tmp_path: Path) -> None:
    skills = ["planning.options.skills=2", "evaluation.every=1"]
    with prepared(tmp_path, *skills) as parts:
        assert parts.learner.options == b"" and not parts.learner.policy().options
        parts.curation.curate()
        assert 0 < parts.progress.skills <= 2
        pushed = Library.load(parts.learner.policy().options)
        assert len(pushed) == parts.progress.skills
        for option in pushed:  # each was found in an episode of this world
            assert set(option.actions) <= {"a", "b", "c"}


def test_a_run_saves_the_skills_that_it_found_with_its_checkpoint(tmp_path: Path) -> None:
    settings = [
        *SETTINGS,
        "planning.enabled=false",
        "planning.options.skills=2",
        "evaluation.every=1",
        f"runs_dir={tmp_path}",
    ]
    config, origins = load([], settings)
    directory = RunDirectory.create(config, origins, ["test"])
    progress = run(config, directory)
    saved = directory.checkpoints.newest()
    assert saved is not None and 0 < progress.skills <= 2
    library = Library.load(saved["options.json"])
    assert len(library) == progress.skills
