"""What an agent reads again: tokens are appended, edits start a lineage, summaries are rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from actors.agents.context import LEFT_OUT, SUMMARISE, Context, History
from actors.collecting.work import Work
from actors.config.schema import load
from actors.config.sense import history_of
from actors.engines.engine import Exchange, Situation, messages
from actors.engines.small_engine import make_engine
from actors.pool.pool import all_new
from experience.errors import ConfigError
from experience.models.tokenizer import ByteTokenizer
from experience.policy import Decision
from experience.replay.lineages import count_lineages
from experience.shards.catalog import Catalog
from experience.step import Boundary, Step
from tests.alone import SMALLEST_POLICY, Alone
from tests.hall_world import Hall

TURNS = 30


def lived(
    folder: Path, *words: str, episodes: int = 2, turns: int = TURNS, lane: str = "train"
) -> tuple[list[Step], list[Decision]]:
    """The rows of some episodes in the hall, in order of time, and what the engine answered."""
    world = f"{{id: 'tests.hall_world:Hall-v0', isolation: inside, arguments: {{turns: {turns}}}}}"
    config, _ = load(
        [],
        [
            f"worlds=[{world}]",
            *SMALLEST_POLICY,
            "policy.context=160",
            "planning.enabled=false",
            "collecting.slots=1",
            "collecting.group_size=2",
            *words,
        ],
    )
    one = Alone(config, folder)
    answered: list[Decision] = []
    engine = one._desk._lanes._engine
    act = engine.act

    def noted(asked: Sequence[Situation], temperature: float) -> list[Decision]:
        found = act(asked, temperature)
        answered.extend(found)
        return found

    engine.act = noted  # type: ignore[method-assign]
    one.load(None, 1)
    if lane == "demonstration":
        hall = {"env_id": "tests.hall_world:Hall-v0", "lane": "demonstration"}
        one.order([Work.named(f"{n}", seed=n, **hall) for n in range(2)])
    while one.closed < episodes:
        one.pump()
    one.close()
    catalog = Catalog(folder)
    rows: list[Step] = []
    while new := all_new(catalog):
        rows += new
    return sorted(rows, key=lambda step: step.t), answered


@pytest.fixture(params=["full", "last(3)", "newest_screen", "compact"])
def history(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


def test_prompts_read_back_are_what_the_engine_was_given_token_for_token(
    tmp_path: Path, history: str
) -> None:
    rows, answered = lived(tmp_path, f"agent.history={history}")
    acted = [step.decision for step in rows if step.decision]
    assert len(acted) == len(answered) >= 2 * TURNS
    for kept, given in zip(acted, answered, strict=True):
        assert np.array_equal(kept.prompt_ids, given.prompt_ids)
        assert np.array_equal(kept.action_ids, given.action_ids)


@pytest.mark.long
def test_ten_thousand_prompts_of_all_histories_read_back_as_they_were_given(
    tmp_path: Path, history: str
) -> None:
    rows, answered = lived(tmp_path, f"agent.history={history}", "policy.context=480", turns=1250)
    acted = [step.decision for step in rows if step.decision]
    assert len(acted) == len(answered) >= 2500
    for kept, given in zip(acted, answered, strict=True):
        assert np.array_equal(kept.prompt_ids, given.prompt_ids)


def test_a_history_that_fits_is_one_lineage_an_episode_and_prompts_only_grow(
    tmp_path: Path,
) -> None:
    rows, _ = lived(tmp_path, "agent.history=full", turns=8)
    counted = count_lineages(rows)
    assert (counted.rows, counted.sequences) == (16, 2)
    assert counted.read_by_sequence < 0.3 * counted.read_by_row
    assert all(step.parent is None for step in rows)


def test_where_something_was_left_out_the_row_names_the_row_that_it_comes_from(
    tmp_path: Path, history: str
) -> None:
    # the request for a summary needs some 200 tokens of its own
    wide = ["policy.context=480"] if history == "compact" else []
    rows, _ = lived(tmp_path, f"agent.history={history}", *wide)
    acted = [step for step in rows if step.decision]
    for before, step in pairwise(acted):
        if step.step_in_episode == 0:
            assert step.parent is None
            continue
        read = np.concatenate([before.decision.prompt_ids, before.decision.action_ids])  # type: ignore[union-attr]
        goes_on = np.array_equal(step.decision.prompt_ids[: len(read)], read)  # type: ignore[union-attr]
        assert step.parent == (None if goes_on else (before.stream_id, before.t))
    forks = sum(step.parent is not None for step in acted)
    most = {"full": 0.25, "compact": 0.5, "last(3)": 1.0, "newest_screen": 1.0}[history]
    assert 0 < forks <= most * len(acted), "a full context is not cut anew at every turn"


def test_a_model_reads_what_it_saw_and_did_before(tmp_path: Path) -> None:
    rows, _ = lived(
        tmp_path, "agent.history=last(2)", "policy.max_tokens=5", "policy.listed=true", turns=5
    )
    third = next(step for step in rows if step.step_in_episode == 3)
    did = [step.decision.text for step in rows if step.decision][1:3]
    assert third.decision is not None
    text = ByteTokenizer().text(third.decision.prompt_ids)
    assert text == f"room 1{did[0]}room 2{did[1]}room 3"


def test_a_summary_is_a_row_of_its_own_that_never_reaches_the_world(tmp_path: Path) -> None:
    Hall.arrived.clear()
    rows, _ = lived(tmp_path, "agent.history=compact", "policy.context=320")
    asides = [step for step in rows if step.boundary & Boundary.CONTEXT_COMPACTED]
    assert asides and all(step.is_aside and step.reward == 0.0 for step in asides)
    assert len(Hall.arrived) == 2 * TURNS == sum(bool(s.decision) for s in rows) - len(asides)
    summary = asides[0]
    after = rows[rows.index(summary) + 1]
    assert after.obs_text == summary.obs_text, "no turn of the world passed"
    assert summary.decision is not None and after.decision is not None
    assert SUMMARISE in ByteTokenizer().text(summary.decision.prompt_ids)
    read = ByteTokenizer().text(after.decision.prompt_ids)
    assert read == f"What happened before: {summary.decision.text}\n\n{after.obs_text}"
    assert after.parent == (summary.stream_id, summary.t)


def test_a_summary_that_failed_is_asked_for_again_and_is_no_action() -> None:
    engine = make_engine(load([], [*SMALLEST_POLICY])[0].policy, 0, None)
    context = Context(History("compact", room=len(SUMMARISE) + 20))
    context.begin()
    for word in ("one", "two"):
        context.acted(word, decision("go"))
    asked = Situation("three")
    assert context.is_nearly_full(asked, engine)
    context.request_for_summary(asked, engine)  # the engine does not answer
    assert context.is_nearly_full(asked, engine), "nothing was forgotten for it"
    context.request_for_summary(asked, engine)
    context.acted("three", decision("all is well"))
    assert context.is_aside
    assert context.situation(asked, engine).memory == "What happened before: all is well"
    context.acted("three", decision("go"))
    assert not context.is_aside


def test_a_long_stream_is_read_in_flat_memory(tmp_path: Path) -> None:
    rows, answered = lived(tmp_path, "agent.history=full", episodes=1, turns=300)
    assert max(len(d.prompt_ids) for d in answered) <= 160 - 4
    assert len(rows) > 300


def decision(text: str) -> Decision:
    return Decision(text, 0)


def test_notes_outlive_an_episode_and_the_oldest_ones_are_forgotten() -> None:
    context = Context(History("none", notes=20))
    engine = make_engine(load([], [*SMALLEST_POLICY])[0].policy, 0, None)
    context.begin()
    context.acted("seen", decision("note: the key  is red"))
    assert context.is_aside
    context.acted("seen", decision("go"))
    assert not context.is_aside
    context.begin()
    asked = context.situation(Situation("a new task", "Rules."), engine)
    assert asked.observations == ["Your notes:\n- the key is red\n\na new task"]
    assert asked.instructions.startswith("Rules.\n\nYou may answer with a line `note: TEXT`")
    context.acted("a new task", decision("note: 2 doors"))
    assert "2 doors" in context.situation(Situation("a"), engine).memory
    assert "red" not in context.situation(Situation("a"), engine).memory


def test_an_agent_that_only_writes_notes_acts_in_the_world_in_the_end() -> None:
    context = Context(History("full", notes=1000))
    context.begin()
    asides = []
    for _ in range(4):
        context.acted("seen", decision("note: again"))
        asides.append(context.is_aside)
    assert asides == [True, True, False, True]


def test_a_chat_alternates_and_old_screens_are_left_out() -> None:
    engine = make_engine(load([], [*SMALLEST_POLICY])[0].policy, 0, None)
    context = Context(History("newest_screen"))
    context.begin()
    context.situation(Situation("one"), engine)
    context.acted("one", decision("go"))
    chat = messages(context.situation(Situation("two", "Rules."), engine))
    assert [m["content"] for m in chat] == ["Rules.", LEFT_OUT, "go", "two"]
    assert [m["role"] for m in chat] == ["system", "user", "assistant", "user"]


def test_experts_and_random_actions_are_remembered_too(tmp_path: Path) -> None:
    rows, _ = lived(tmp_path, "agent.history=last(1)", lane="demonstration", turns=3)
    second = next(step for step in rows if step.step_in_episode == 1)
    assert second.decision is not None
    assert ByteTokenizer().text(second.decision.prompt_ids) == "room 0goroom 1"


def test_an_answer_without_an_end_is_closed_before_the_next_observation() -> None:
    engine = make_engine(load([], [*SMALLEST_POLICY])[0].policy, 0, None)
    cut = np.array([103, 111], np.int32)
    asked = Situation("b", earlier=(Exchange("a", "go", cut),))
    marks = ByteTokenizer
    assert engine._prompt(asked).ids.tolist() == [
        *(marks.BEGIN, 97, marks.ACT, 103, 111, marks.END),
        *(marks.BEGIN, 98, marks.ACT),
    ]


@pytest.mark.parametrize(
    "words, named",
    [
        (["agent.history=full"], "planning.branches.groups"),
        (
            ["agent.history=last(3)", "planning.enabled=false", "planning.lookahead.candidates=2"],
            "planning.lookahead.candidates",
        ),
        (["agent.history=full", "policy.engine=table"], "reads no history"),
        (["agent.history=last(0)"], "agent.history"),
    ],
)
def test_a_history_that_nobody_could_read_is_refused(words: list[str], named: str) -> None:
    with pytest.raises(ConfigError, match=named.replace("(", r"\(")):
        load([], words)


def test_chat_models_remember_by_themselves_where_nothing_is_imagined() -> None:
    server = ["policy.engine=openai", "policy.base_url=http://127.0.0.1:1/v1", "policy.model=m"]
    assert history_of(load([], [*server, "policy.learns=false"])[0]) == "full"
    assert history_of(load([], [])[0]) == "none"
