"""Learning from stores: other runs beside one's own, stores alone, and rewards that changed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors.config.schema import Config, load
from actors.gathering.offline import Offline
from actors.mixing.other_runs import open_mixture
from actors.runs.directory import RunDirectory
from experience.errors import ConfigError, XpError
from experience.replay.mixture import Mixture, OtherRun
from experience.reward import RewardModel
from experience.shards.cold.compaction import compact
from experience.shards.episodes.index import EpisodeIndex
from experience.shards.journal import Journal
from experience.step import Step
from tests.conftest import CATALOGUE, make_step

SMALL = (
    "policy.engine=small",
    "policy.layers=1",
    "policy.width=16",
    "policy.heads=2",
    "policy.context=256",
    "learning.imitation_passes=2",
    "planning.enabled=false",
    "budget.updates=2",
)


def rows(group: int, member: int, good: bool, **changes: object) -> Iterator[Step]:
    """An episode of two turns: `good` ones finish, and cost more."""
    stream = uuid.UUID(int=100 * group + member).bytes
    for t in range(3):
        step = make_step(
            t,
            stream,
            closing=t == 2,
            group_id=f"g{group}",
            work_id=stream,
            step_in_episode=t,
            ending="terminated" if t == 2 else "none",
            reward=None if t == 2 else float(good),
            **changes,
        )
        if step.decision is not None:
            signals = tuple(
                replace(step.signals[0], name=name, value=value, unit=CATALOGUE[name].unit)
                for name, value in (("done", float(good)), ("cost", 2.0 * good))
            )
            step = replace(step, signals=signals)
        yield step


def a_run(path: Path, groups: int = 3, **changes: object) -> Path:
    """A finished run of the small policy with `groups` groups of two."""
    config, origins = load([], [*SMALL, f"runs_dir={path.parent}"])
    RunDirectory.create(config, origins, ["test"], path)
    fill(path / "shards", groups, **changes)
    return path


def fill(store: Path, groups: int = 3, **changes: object) -> None:
    journal = Journal(store / "w", CATALOGUE, durability="os")
    for group in range(groups):
        for member, good in enumerate((True, False)):
            for step in rows(group, member, good, **changes):
                journal.append(step)
    journal.close()


def configured(tmp_path: Path, *runs: Path, more: tuple[str, ...] = ()) -> Config:
    named = ", ".join(f"{{run: '{run}', share: 0.25}}" for run in runs)
    given = [*SMALL, f"runs_dir={tmp_path}", f"experience=[{named}]", *more]
    return load([], given)[0]


def learned(tmp_path: Path, config: Config) -> Offline:
    directory = RunDirectory.create(config, {}, ["test"])
    offline = Offline(config, directory, lambda _: None)
    offline.run()
    return offline


def test_latest_is_the_run_that_it_was_when_the_command_was_typed(tmp_path: Path) -> None:
    first, second = a_run(tmp_path / "first"), tmp_path / "second"
    latest = tmp_path / "latest"
    latest.symlink_to(first)
    config = configured(tmp_path, latest)
    latest.unlink()
    latest.symlink_to(second)
    assert [Path(source.run) for source in config.experience] == [first]


def test_a_policy_is_learned_from_runs_an_import_and_a_cold_store_at_once(tmp_path: Path) -> None:
    one, two, imported = (tmp_path / name for name in ("one", "two", "imported"))
    a_run(one), a_run(two, groups=5)
    fill(imported / "shards", source="demonstration")
    compact(two / "shards")
    offline = learned(tmp_path, configured(tmp_path, one, two, imported))
    drawn = offline.mixture.drawn
    assert drawn["one"].groups and drawn["two"].groups and not drawn["imported"].groups
    assert offline.learned_from.imitated > 0
    saved = offline.directory.checkpoints.newest()
    assert saved is not None and json.loads(saved["learner.json"])["version"] == 2
    assert set(json.loads(saved["mixture.json"])["drawn"]) == {"one", "two", "imported"}


def test_the_same_seed_learns_the_same_weights_from_the_same_stores(tmp_path: Path) -> None:
    run = a_run(tmp_path / "one")
    config = configured(tmp_path, run)
    first, second = (learned(tmp_path, config).learner.policy().weights for _ in range(2))
    assert first.sha256 == second.sha256


def test_other_rewards_teach_something_else_from_the_same_store(tmp_path: Path) -> None:
    run = a_run(tmp_path / "one")
    said = "worlds=[{{id: 'envs:Test-v0', groups: 1, demonstrations: 0, rewards: {{{}}}}}]"
    weights, returns = [], []
    for told in ("done: 1", "done: 1, cost: -1"):
        more = (said.format(told), "learning.imitation_passes=0")
        offline = learned(tmp_path, configured(tmp_path, run, more=more))
        index = offline.mixture.runs[0].index
        returns.append(index.table().column("total_reward").to_pylist())
        weights.append(offline.learner.policy().weights.sha256)
    assert returns == [[2.0, 0.0] * 3, [-2.0, 0.0] * 3]
    assert weights[0] != weights[1]


def test_shares_hold_over_time_and_the_draws_go_on_after_a_resume(tmp_path: Path) -> None:
    indices = [EpisodeIndex.open(a_run(tmp_path / n) / "shards") for n in ("one", "two")]
    runs = [OtherRun(n, s, i, True) for n, s, i in zip("ab", (0.1, 0.4), indices, strict=True)]
    mixture = Mixture(runs, seed=3)
    for _ in range(20):
        mixture.beside(5)
    assert {name: drawn.groups for name, drawn in mixture.drawn.items()} == {"a": 20, "b": 80}
    assert all(g.group_id.startswith(("a/", "b/")) for g in mixture.beside(5))
    saved = mixture.save()
    expected = [g.group_id for _ in range(5) for g in mixture.beside(3)]
    again = Mixture(runs, seed=99)
    again.restore(saved)
    assert [g.group_id for _ in range(5) for g in again.beside(3)] == expected


def test_what_cannot_be_learned_from_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    run = a_run(tmp_path / "one")
    for wrong, says in (
        ((tmp_path / "none",), "is not there"),
        ((run, run), "named twice"),
    ):
        with pytest.raises(ConfigError, match=says):
            open_mixture(configured(tmp_path, *wrong), None)
    for more, says in (
        (["policy.context=64"], "set policy.context=256"),
        (
            ["policy.engine=hugging_face", "policy.model=smollm2"],
            "its tokens are those of policy.engine='small'",
        ),
    ):
        config = configured(tmp_path, run, more=(*more, "policy.max_tokens=8"))
        with pytest.raises(ConfigError) as raised:
            open_mixture(config, None)
        assert says in f"{raised.value} {raised.value.hint}"
    greedy = configured(tmp_path, run, more=(f"experience=[{{run: '{run}', share: 1}}]",))
    with pytest.raises(ConfigError, match="nothing is left for what is lived"):
        open_mixture(greedy, None, beside_own=True)


def test_a_store_that_teaches_nothing_fails_loudly(tmp_path: Path) -> None:
    run = a_run(tmp_path / "one")
    flat = configured(
        tmp_path,
        run,
        more=(
            "worlds=[{id: 'envs:Test-v0', groups: 1, rewards: {}}]",
            "learning.imitation_passes=0",
        ),
    )
    with pytest.raises(XpError, match="nothing was learned: in each of 2 groups"):
        learned(tmp_path, flat)


def test_rewards_are_computed_when_rows_are_read(tmp_path: Path) -> None:
    fill(tmp_path)
    model = RewardModel({"envs:Test-v0": {"cost": 0.5}})
    index = EpisodeIndex.open(tmp_path, model)
    episode = index.read(0)
    assert [step.reward for step in episode.steps] == [1.0, 1.0]
    assert {step.reward_version for step in episode.steps} == {model.version}
    assert np.array_equal(index.records.total_reward()[:2], [2.0, 0.0])
