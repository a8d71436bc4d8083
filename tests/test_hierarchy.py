"""Two levels in one record: choices are credited over the time they took, turns with the subgoal
they pursued."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import pytest

from actors.agents.agent import situation
from actors.agents.options import OptionStack, Running
from actors.agents.skills import library_from
from actors.collecting.slot import Slot
from actors.collecting.work import Work
from actors.config.schema import load
from actors.run import run
from actors.runs.directory import RunDirectory
from experience.episode import Episode, Group
from experience.errors import ConfigError
from experience.learning.credit import AdvantageEstimator
from experience.learning.recipes.table import recipe
from experience.models.tokenizer import ByteTokenizer
from experience.options.hierarchy import best_pursuits, in_hindsight, levels
from experience.options.option import Condition, Library, Subgoal, option_id
from experience.policy import Decision
from experience.shards.catalog import Catalog
from experience.world import WorldView
from tests.conftest import make_step

GOALS = (
    Library()
    .add(Subgoal("key", "take the key", Condition("held"), Condition("far"), most=3))
    .add(Subgoal("door", "pass the door", Condition("out"), Condition("held")))
)


def pursued(
    seen: list[str], options: list[tuple[str, int] | None], rewards: list[float]
) -> Episode:
    """Rows that say what was seen and under which option, all at discount 0.5 but for choices; it
    ends at the last."""
    steps = []
    for t, (text, under, reward) in enumerate(zip(seen, options, rewards, strict=False)):
        name, age = under or ("", None)
        steps.append(
            make_step(
                t,
                obs_text=text,
                reward=reward,
                option_id=option_id(name) if name else None,
                option_step=age,
                discount=1.0 if age == 0 else 0.0 if t == len(options) - 1 else 0.5,
            )
        )
    return Episode(tuple(steps), make_step(len(options), closing=True, obs_text=seen[-1]))


def test_a_choice_is_credited_over_its_duration_and_a_turn_with_its_subgoal() -> None:
    episode = pursued(
        ["far 2", "far 2", "far 1", "held", "held", "out"],
        [("key", 0), ("key", 1), ("key", 2), ("door", 0), ("door", 1)],
        [0.0, -0.1, 0.2, 0.0, 1.0],
    )
    choices, key, door = levels(episode, GOALS).episodes
    assert [(s.decision and s.obs_text, s.reward, s.discount) for s in choices.steps] == [
        ("far 2", pytest.approx(-0.1 + 0.5 * 0.2), 0.25),
        ("held", 1.0, 0.0),
    ]
    assert [(s.obs_text, s.reward, s.discount) for s in key.steps] == [
        ("goal: take the key\nfar 2", -0.1, 0.5),
        ("goal: take the key\nfar 1", pytest.approx(1.2), 0.0),
    ]
    assert [(s.reward, s.discount) for s in door.steps] == [(2.0, 0.0)]
    assert choices.closing == episode.closing and key.closing and key.closing.decision is None


def test_a_subgoal_given_up_is_no_end_and_earns_nothing_of_its_own() -> None:
    episode = pursued(
        ["far", "far", "far", "far"], [("key", 0), ("key", 1), ("key", 0), ("key", 1)], [0.0] * 4
    )
    choices, first, second = levels(episode, GOALS).episodes
    assert [s.discount for s in choices.steps] == [0.5, 0.0]
    assert (first.steps[0].reward, first.steps[0].discount) == (0.0, 0.5), (
        "what comes after it is still worth something"
    )
    assert second.steps[0].reward == 0.0


def test_the_best_pursuit_of_each_subgoal_from_each_situation_is_worth_imitating_though_the_whole_failed() -> (
    None
):
    quick = pursued(
        ["far", "far", "held", "held", "held"],
        [("key", 0), ("key", 1), ("door", 0), ("door", 1)],
        [0.0] * 4,
    )
    slow = pursued(["far", "far", "far", "held"], [("key", 0), ("key", 1), ("key", 2)], [0.0] * 3)
    never = pursued(["far", "far", "far"], [("key", 0), ("key", 1)], [0.0, 5.0])
    (best,) = best_pursuits(Group("g", (slow, quick, never)), GOALS)
    assert [s.obs_text for s in best.steps] == ["goal: take the key\nfar"], (
        "reached in one turn, and no door was passed"
    )
    elsewhere = pursued(["far 2", "far 2", "held"], [("key", 0), ("key", 1)], [0.0] * 2)
    assert len(best_pursuits(Group("g", (slow, elsewhere)), GOALS)) == 2
    assert best_pursuits(Group("g", (pursued(["far", "held"], [None], [1.0]),)), GOALS) == []


def test_each_level_is_scaled_by_a_spread_of_its_own() -> None:
    done = pursued(
        ["far", "far", "held", "held", "out"],
        [("key", 0), ("key", 1), ("door", 0), ("door", 1)],
        [0, 0, 0, 9.0],
    )
    not_done = pursued(
        ["far", "far", "far", "far"], [("key", 0), ("key", 1), ("key", 0), ("key", 1)], [0.0] * 4
    )
    estimator = AdvantageEstimator(recipe("gigpo"))
    estimator([Group("g", (done, not_done))], GOALS)
    spread = estimator.spread
    env_id = done.first.env_id
    assert (
        set(spread) == {env_id, f"{env_id} in pursuit"}
        and spread[env_id] > 3 * spread[f"{env_id} in pursuit"]
    )


def test_a_subgoal_comes_first_where_one_may_be_chosen_and_primitive_actions_within_it() -> None:
    world = gymnasium.make("envs:KeyDoor-v0")
    goals, moves = library_from("configs/keydoor-subgoals.json"), ("up", "down", "left", "right")
    seen = str(world.reset(seed=1)[0])
    slot = Slot(
        b"s" * 16,
        work=Work.named("w", env_id="envs:KeyDoor-v0", seed=1, lane="train"),
        view=WorldView.of(world.unwrapped),
    )
    slot.observation = seen
    asked = situation(slot, goals)
    assert (asked.observation, asked.actions) == (f"choose: key\n{seen}", ("use key",))
    slot.option_stack.running.append(Running(goals["key"]))
    asked = situation(slot, goals)
    assert (asked.observation, asked.actions) == (f"goal: take the key\n{seen}", moves)
    slot.observation, slot.option_stack = "all doors passed", OptionStack()
    assert situation(slot, goals).actions == moves, "where none may start the policy acts by itself"


def test_an_episode_without_subgoals_has_one_level() -> None:
    plain = pursued(["far", "held"], [None, None], [0.0, 1.0])
    assert levels(plain, GOALS).episodes == [plain]


def test_a_demonstration_pursues_in_hindsight_the_subgoals_that_it_reached() -> None:
    seen = ["start", "far", "far", "held", "held", "out"]
    episode = pursued(seen, [None] * 5, [0.0, 0.0, 0.0, 0.0, 1.0])
    shown = in_hindsight(
        episode,
        GOALS,
        lambda _, observation, action: Decision(f"{observation.splitlines()[0]}|{action}", 0),
    )
    assert [(s.decision and s.decision.text, s.option_step) for s in shown] == [
        ("start|press 1", None),
        ("choose: key|use key", 0),
        ("goal: take the key|press 1", 1),
        ("goal: take the key|press 1", 2),
        ("choose: door|use door", 0),
        ("goal: pass the door|press 1", 1),
        ("goal: pass the door|press 1", 2),
    ]
    assert sum(s.reward or 0.0 for s in shown) == 1.0, "a choice earns nothing and takes no time"
    late = in_hindsight(
        pursued(["far", "far", "far", "far", "held"], [None] * 4, [0.0] * 4),
        GOALS,
        lambda _, __, action: Decision(action, 0),
    )
    assert [s.option_step for s in late] == [None, 0, 1, 2, 3], (
        "four turns before, it is too early: three are the most"
    )


def test_a_run_pursues_subgoals_that_were_written_by_hand(tmp_path: Path) -> None:
    config, origins = load(
        [Path("configs/keydoor-chain.yaml")],
        [
            "policy.layers=1",
            "policy.width=32",
            "collecting.slots=8",
            "collecting.group_size=4",
            "budget.updates=1",
            "evaluation.episodes=2",
            "evaluation.final_episodes=2",
            f"runs_dir={tmp_path}",
        ],
    )
    directory = RunDirectory.create(config, origins, ["test"])
    run(config, directory)
    rows = [
        s
        for shard in Catalog(directory.shards).follow()
        for s in shard
        if s.decision and s.source == "real"
    ]
    within = [s for s in rows if s.option_id == option_id("key") and (s.option_step or 0) > 0]
    assert within, "the policy chose a subgoal"
    prompts = {ByteTokenizer().text(s.decision.prompt_ids) for s in within if s.decision}
    assert all(p.startswith("goal: take the key\nyou ") for p in prompts)
    assert {s.decision.text for s in rows if s.decision and s.is_choice} <= {"use key", "use door"}
    assert {s.decision.text for s in within if s.decision} == {"up", "down", "left", "right"}, (
        "nothing else is written"
    )


def test_a_library_that_cannot_be_read_is_said_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "options.json").write_text("{}")
    for path in (tmp_path / "options.json", tmp_path / "none.json"):
        with pytest.raises(ConfigError, match=r"planning\.options"):
            library_from(str(path))


def test_a_library_that_holds_a_secret_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, secret = tmp_path / "options.json", "pl4nted/Zq7-options"
    path.write_text(
        Path("configs/keydoor-subgoals.json").read_text().replace("take the key", secret)
    )
    assert len(library_from(str(path))) > 0, "unknown, it is a goal as any"
    monkeypatch.setenv("LAB_TOKEN", secret)
    with pytest.raises(ConfigError, match="holds a secret") as refused:
        library_from(str(path))
    assert secret not in str(refused.value)
