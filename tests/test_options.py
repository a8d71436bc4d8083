"""Options: what may start, acts and stops; what collectors record of them; what planning with them
is worth."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from actors.agents.agent import situation
from actors.agents.context import Context
from actors.agents.options import OptionStack, choose
from actors.agents.skills import Skills
from actors.config.schema import load
from actors.engines.engine import Situation
from actors.pool.local import LocalPool
from benchmarks.planning.options import four_rooms, hallway_options, shown
from benchmarks.planning.worlds import CELLS, HALLWAYS
from experience.episode import Episode
from experience.errors import RecordError
from experience.models.table import Table
from experience.models.tokenizer import ByteTokenizer
from experience.models.weights import PolicyBundle
from experience.options.option import Condition, Learned, Library, Program, Subgoal, option_id
from experience.planning.discovery import (
    common_start,
    induce_skills,
    record_uses,
    retire,
    reward_respecting,
    shortest_path,
)
from experience.planning.smdp import (
    OptionLearner,
    OptionSettings,
    interrupted,
    learned_models,
    value_iteration,
)
from experience.policy import Decision, VersionSpan
from experience.reward import RewardModel
from experience.shards.catalog import Catalog
from experience.signal import Signal
from experience.step import Boundary, Step
from experience.world import WorldView
from tests.conftest import make_step

RNG = np.random.default_rng(0)
name = some.text(alphabet="abcdefgh-_:.", min_size=1, max_size=12)
text = some.text(max_size=20)
option = some.one_of(
    some.builds(Program, name, some.lists(text, min_size=1, max_size=4).map(tuple)),
    some.builds(
        lambda n, a, s: Learned.over(n, a, s), name, some.dictionaries(text, text), some.lists(text)
    ),
    some.builds(
        Subgoal,
        name,
        text,
        some.builds(Condition, some.sampled_from(["a", r"\d+", "key 1"]), some.booleans()),
    ),
)


@given(some.lists(option, max_size=5, unique_by=lambda o: o.name))
def test_a_library_comes_back_from_its_bytes_as_it_was(options: list[Program]) -> None:
    library = Library()
    for one in options:
        library = library.add(one)
    again = Library.load(
        library.used(options[0].name, True, 3, 1.0).dump() if options else library.dump()
    )
    assert dict(again.options) == dict(library.options)
    assert again.version == len(options)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b'{"version": 1, "records": {}, "options": [{"kind": "code"}]}',
        b'{"version": 1, "records": {}, "options": [3]}',
        b"\x80\x04.",
    ],
)
def test_bytes_that_are_no_library_are_refused(data: bytes) -> None:
    with pytest.raises(RecordError, match="not a library"):
        Library.load(data)


def test_a_name_that_is_taken_or_cannot_be_written_is_refused() -> None:
    library = Library().add(Program("go", ("up",)))
    with pytest.raises(RecordError, match="already"):
        library.add(Program("go", ("down",)))
    with pytest.raises(RecordError, match="option name"):
        library.add(Program("two words", ("up",)))
    assert library.add(Program("go", ("up",))).options == library.options


class EnvSlot:
    """A stream of a scripted world, as the collector holds it."""

    view = WorldView()
    tools = ()
    draw = 0
    images: dict[str, bytes] = {}

    def __init__(self, observation: str) -> None:
        self.context = Context()
        self.env_id, self.observation, self.option_stack = (
            "envs:KeyDoor-v0",
            observation,
            OptionStack(),
        )


def lived(library: Library, said: list[str], seen: list[str]) -> list[tuple[str, int | None, bool]]:
    """(what was done, option_step, whether an option ended) for a policy that says `said` where it
    is asked."""
    slot, rows, left, after = EnvSlot(seen[0]), [], list(said), list(seen[1:])
    while after:
        (decision,) = choose(
            [slot], library, lambda slots: [Decision(left.pop(0), 0) for _ in slots]
        )
        step, over = slot.option_stack.mark[1], False
        if not slot.option_stack.is_choice:
            slot.observation = after.pop(0)
            over = slot.option_stack.arrived(slot.observation, RNG)
        rows.append((decision.text, step, over))
    return rows


def test_an_option_acts_until_it_is_over_and_every_row_says_how_old_it_is() -> None:
    library = Library().add(Program("fetch", ("up", "left")))
    assert lived(library, ["right", "use fetch", "down"], list("abcde")) == [
        ("right", None, False),
        ("use fetch", 0, False),
        ("up", 1, False),
        ("left", 2, True),
        ("down", None, False),
    ]


def test_an_option_stops_where_its_end_is_reached() -> None:
    library = Library().add(Program("fetch", ("up", "up", "up"), until=Condition("door")))
    assert lived(library, ["use fetch", "down"], ["a", "b", "door", "c"]) == [
        ("use fetch", 0, False),
        ("up", 1, False),
        ("up", 2, True),
        ("down", None, False),
    ]


def test_options_nest() -> None:
    library = (
        Library()
        .add(Program("inner", ("up", "left")))
        .add(Program("outer", ("right", "use inner", "down")))
    )
    assert [what for what, _, _ in lived(library, ["use outer", "end"], list("abcdef"))] == [
        "use outer",
        "right",
        "use inner",
        "up",
        "left",
        "down",
        "end",
    ]


def test_an_option_that_contains_itself_is_started_only_so_deep() -> None:
    library = Library().add(Program("loop", ("use loop",)))
    rows = lived(library, ["use loop", "end"], list("abc"))
    assert [what for what, _, _ in rows].count("use loop") == 9
    assert rows[-1][0] == "end"


def test_an_option_starts_only_where_it_may_and_else_the_words_go_to_the_world() -> None:
    library = Library().add(Program("fetch", ("up",), precondition=Condition("key")))
    assert library.admissible("door") == []
    assert library.admissible("a key") == ["use fetch"]
    assert lived(library, ["use fetch"], ["door", "b"]) == [("use fetch", None, False)]


def test_under_a_subgoal_the_policy_acts_and_reads_the_goal_first() -> None:
    library = Library().add(Subgoal("key", "take the key", reached=Condition("held")))
    slot = EnvSlot("key near")
    assert slot.option_stack.read(slot.observation, library) == "choose: key\nkey near"
    choose([slot], library, lambda slots: [Decision("use key", 0)])
    assert slot.option_stack.is_choice
    assert slot.option_stack.read(slot.observation, library) == "goal: take the key\nkey near"
    choose([slot], library, lambda slots: [Decision("up", 0)])
    assert (slot.option_stack.is_choice, slot.option_stack.mark[1]) == (False, 1)
    assert slot.option_stack.arrived("key held", RNG)
    assert slot.option_stack.read("key held", library) == "key held"


def test_collectors_record_the_option_its_age_and_its_end(tmp_path: Path) -> None:
    library = Library()
    for one in hallway_options(0.9):
        library = library.add(one)
    start = next(o for o in library if o.starts("0 0"))
    actions = ("up", "down", "left", "right", f"use {start.name}")
    config, _ = load(
        [],
        [
            "worlds=[{id: 'benchmarks.planning.worlds:FourRooms-v0'}]",
            "policy.engine=table",
            "policy.epsilon=0.0",
            "collecting.slots=1",
            "collecting.group_size=2",
        ],
    )
    pool = LocalPool(config, "test", tmp_path, Catalog(tmp_path))
    pool.push(
        PolicyBundle(Table.weights(actions, {"0 0": [0.0, 0.0, 0.0, 0.0, 1.0]}, 5), library.dump()),
        1,
    )
    rows: list[Step] = []
    for shard in pool.shards(lambda: len(rows) > 60):
        rows.extend(shard)
    pool.close()
    assert rows[0].decision is not None and rows[0].decision.text == f"use {start.name}"
    assert (rows[0].option_id, rows[0].option_step, rows[0].reward, rows[0].discount) == (
        option_id(start.name),
        0,
        0.0,
        1.0,
    )
    within = rows[1 : next(i for i, s in enumerate(rows) if s.boundary & Boundary.OPTION_END) + 1]
    assert [s.option_step for s in within] == list(range(1, len(within) + 1))
    assert {s.option_id for s in within} == {option_id(start.name)}
    assert rows[1].obs_text == rows[0].obs_text == "0 0"
    assert {s.decision.policy_version for s in rows if s.decision} == {5}, (
        "what an option does is as old as its policy"
    )


def test_an_options_model_holds_its_reward_and_where_it_stops_discounted() -> None:
    """A corridor of two moves with a reward of 1 on the way: r = 1 + .5·1, p = .5²."""
    from experience.planning.smdp import FiniteWorld, Model

    forward = np.array([[0, 0.5, 0], [0, 0, 0.5], [0, 0, 0.5]])
    world = FiniteWorld(
        ("a", "b", "c"), ("on",), (Model(np.array([1.0, 1.0, 0.0]), forward, np.array([True] * 3)),)
    )
    model = world.model_of(Learned.over("walk", {"a": "on", "b": "on"}, []))
    assert model.reward[:2].tolist() == [1.5, 1.0]
    assert model.arrival[0].tolist() == [0.0, 0.0, 0.25]


def test_with_hallway_options_two_sweeps_reach_what_primitive_actions_do_not() -> None:
    world = four_rooms(HALLWAYS["east"], 0.9)
    optimal = value_iteration(world.models, 400)[-1]
    options = [world.model_of(o) for o in hallway_options(0.9)]
    assert len(CELLS) == 104 and len(options) == 8
    assert value_iteration([*world.models, *options], 2)[-1].sum() >= 0.95 * optimal.sum()
    assert value_iteration(world.models, 2)[-1].sum() < 0.2 * optimal.sum()


def test_options_never_promise_more_than_is_there() -> None:
    world = four_rooms((7, 9), 0.9)
    optimal = value_iteration(world.models, 600)[-1]
    options = [world.model_of(o) for o in hallway_options(0.9)]
    both = value_iteration([*world.models, *options], 600)[-1]
    assert np.abs(both - optimal).max() < 1e-9


def test_an_option_is_interrupted_where_choosing_anew_is_worth_more() -> None:
    world = four_rooms((0, 1), 0.9)
    models = [*world.models, *(world.model_of(o) for o in hallway_options(0.9))]
    values = value_iteration(models, 300)[-1]
    start = CELLS.index((0, 0))
    leaving = next(i for i, m in enumerate(models[4:], 4) if m.starts[start])
    assert interrupted(models, values, leaving)[start]


def test_a_reward_respecting_option_goes_round_what_costs() -> None:
    goal, cost = HALLWAYS["north"], (2, 4)
    world = four_rooms((7, 9), 0.95, {cost: -1.0})
    feature = np.array([c == goal for c in CELLS])
    blind = world.model_of(shortest_path(world, "short", feature))
    careful = world.model_of(
        reward_respecting(world, "careful", feature, np.zeros(len(CELLS)), 1.0)
    )
    start = CELLS.index((2, 0))
    assert careful.reward[start] > blind.reward[start]


def transitions(n: int) -> list[tuple[Step, Step]]:
    """Random moves in the four rooms, as rows."""
    import gymnasium

    env = gymnasium.make("benchmarks.planning.worlds:FourRooms-v0").unwrapped
    rng, found = np.random.default_rng(1), []
    seen, _ = env.reset(seed=1)
    for _ in range(n):
        action = str(rng.choice(["up", "down", "left", "right"]))
        after, reward, ended, _, _ = env.step(action)
        found.append(
            (
                make_step(
                    0,
                    obs_text=seen,
                    decision=Decision(action, 0),
                    reward=float(reward),
                    ending="terminated" if ended else "none",
                ),
                make_step(1, closing=True, obs_text=after),
            )
        )
        seen = env.reset()[0] if ended else after
    return found


def test_an_options_model_is_learned_from_anybodys_steps() -> None:
    world = four_rooms((7, 9), 0.9)
    option = hallway_options(0.9)[0]
    exact = world.model_of(option)
    index = {shown(c): i for i, c in enumerate(CELLS)}
    learned = learned_models(transitions(20_000), option, index, 0.08, 0.9)
    started = exact.starts
    assert (
        np.abs(learned.arrival - exact.arrival)[started].sum(1).mean()
        < 0.5 * exact.arrival[started].sum(1).mean()
    )


def test_an_smdp_step_discounts_by_the_time_it_took() -> None:
    """Two turns with rewards 1 and 2 and γ = .5, then an end worth 0: R = 1 + .5·2, times α = .1."""
    library = Library().add(Program("walk", ("on", "on")))
    learner = OptionLearner(("on",), library, OptionSettings(0.1, 0.5, intra=False))
    number = option_id("walk")
    rows = [
        make_step(
            0,
            obs_text="a",
            decision=Decision("use walk", 0),
            reward=0.0,
            option_id=number,
            option_step=0,
        ),
        make_step(
            1, obs_text="a", decision=Decision("on", 0), reward=1.0, option_id=number, option_step=1
        ),
        make_step(
            2,
            obs_text="b",
            decision=Decision("on", 0),
            reward=2.0,
            option_id=number,
            option_step=2,
            boundary=Boundary.OPTION_END,
        ),
        make_step(3, closing=True, obs_text="c"),
    ]
    for row, following in pairwise(rows):
        learner.learn(row, following)
    assert learner.values["a"][1] == pytest.approx(0.2)
    assert learner.durations["use walk"] == [2]


def episode(actions: str, reward: float, stream: int, option: int | None = None) -> Episode:
    stream_id = stream.to_bytes(16, "little")
    steps = [
        make_step(
            t,
            stream_id,
            obs_text=f"task {stream} at {t}",
            decision=Decision(a, 0),
            option_id=option,
            option_step=None if option is None else t + 1,
            signals=(Signal("done", reward, "1", "env_state"),),
            reward=reward if t == len(actions) - 1 else 0.0,
        )
        for t, a in enumerate(actions)
    ]
    return Episode(tuple(steps), make_step(len(actions), stream_id, closing=True))


def test_a_skill_is_kept_only_if_its_episode_succeeds_again() -> None:
    shown_twice = [episode("xabcy", 1.0, 1), episode("zabcw", 1.0, 2)]
    kept = induce_skills(shown_twice, lambda e, actions: 1.0, Library())
    assert [o.actions for o in kept] == [("a", "b", "c")]  # type: ignore[union-attr]
    assert next(iter(kept)).starts("task 3 at 0") and not next(iter(kept)).starts("no task")
    assert len(induce_skills(shown_twice, lambda e, actions: 0.0, Library())) == 0


def test_a_skill_that_does_worse_than_doing_without_is_retired_and_not_proposed_again() -> None:
    kept = induce_skills(
        [episode("xabcy", 1.0, 1), episode("zabcw", 1.0, 2)], lambda e, actions: 1.0, Library()
    )
    number = option_id(next(iter(kept)).name)
    with_it = [episode("abc", 0.2, n, number) for n in range(10, 20)]
    without = [episode("abc", 0.8, n) for n in range(20, 30)]
    assert len(retire(kept, [*with_it[:3], *without])) == 1, "three uses are too few to judge"
    left = retire(kept, [*with_it, *without])
    assert len(left) == 0
    again = induce_skills(
        [episode("xabcy", 1.0, 1), episode("zabcw", 1.0, 2)], lambda e, a: 1.0, left
    )
    assert ("a", "b", "c") not in {o.actions for o in again}  # type: ignore[union-attr]


def test_a_skill_is_offered_and_judged_in_the_world_it_was_found_in_only() -> None:
    def elsewhere(e: Episode) -> Episode:
        return Episode(tuple(replace(s, env_id="envs:Other-v0") for s in e.steps), e.closing)

    found = [episode("xabcy", 1.0, 1), episode("zabcw", 1.0, 2)]
    assert len(induce_skills([found[0], elsewhere(found[1])], lambda e, a: 1.0, Library())) == 0, (
        "once in each world"
    )
    kept = induce_skills(found, lambda e, actions: 1.0, Library())
    name = next(iter(kept)).name
    assert kept.within("envs:Test-v0").admissible("task 3 at 0") == [f"use {name}"]
    assert kept.within("envs:Other-v0").admissible("task 3 at 0") == []
    assert (
        Library.load(kept.dump()).within("envs:Other-v0").started(f"use {name}", "task 3 at 0")
        is None
    )
    assert [
        text for text, _, _ in lived(kept, [f"use {name}", "up"], ["task 3 at 0", "b", "c"])
    ] == [f"use {name}", "up"]
    slot = EnvSlot("task 3 at 0")
    slot.view = WorldView.of(gymnasium.make("envs:KeyDoor-v0").unwrapped)
    assert not [a for a in situation(slot, kept).actions if a.startswith("use")]
    with_it = [episode("abc", 0.5, n, option_id(name)) for n in range(10, 20)]
    assert (
        len(retire(kept, [*with_it, *(elsewhere(episode("abc", 0.9, n)) for n in range(20, 30))]))
        == 1
    )
    assert len(retire(kept, [*with_it, *(episode("abc", 0.9, n) for n in range(20, 30))])) == 0


def test_a_librarys_records_say_how_often_an_option_reached_its_end_how_long_it_took_and_what_it_earned() -> (
    None
):
    library = Library().add(Program("walk", ("on", "on")))
    number, flags = option_id("walk"), [Boundary.NONE, Boundary.NONE, Boundary.OPTION_END]
    row = [
        make_step(
            t,
            obs_text="a",
            decision=Decision("on", 0),
            reward=float(t),
            option_id=number,
            option_step=t,
            boundary=flags[t],
        )
        for t in range(3)
    ]
    plain = make_step(3, decision=Decision("off", 0), reward=9.0)
    again = [replace(row[0], t=4), replace(row[1], t=5)]  # cut off by the episode's end
    lived = Episode((*row, plain, *again), make_step(6, closing=True, ending="truncated"))
    record = record_uses(library, [lived, lived]).records["walk"]
    assert (record.n, record.reached, record.turns, record.earned) == (4, 2, 6, 8.0)
    assert record.success == 0.5
    assert Library.load(record_uses(library, [lived]).dump()).records["walk"].n == 2


def test_a_precondition_is_what_all_its_starts_begin_with() -> None:
    condition = common_start(["open mail: inbox 3", "open mail: inbox 12"])
    assert condition("open mail: inbox 7") and not condition("open calendar")


def by_oracle(seeds: int) -> list[Episode]:
    """Episodes of KeyDoor's oracle, as rows."""
    world, found = gymnasium.make("envs:KeyDoor-v0").unwrapped, []
    for seed in range(seeds):
        seen, _ = world.reset(seed=seed)
        steps: list[Step] = []
        ended = False
        while not ended:
            action = world.oracle_action()
            after, reward, ended, _, info = world.step(action)
            steps.append(
                make_step(
                    len(steps),
                    seed.to_bytes(16, "little"),
                    env_id="envs:KeyDoor-v0",
                    seed=seed,
                    obs_text=seen,
                    decision=Decision(action, 0),
                    reward=reward,
                    signals=tuple(
                        Signal(n, v, "1", "env_state") for n, v in info["signals"].items()
                    ),
                    ending="terminated" if ended else "none",
                )
            )
            seen = after
        found.append(
            Episode(tuple(steps), make_step(len(steps), seed.to_bytes(16, "little"), closing=True))
        )
    return found


def test_skills_are_found_in_successes_and_kept_because_the_world_says_so_again() -> None:
    world = gymnasium.make("envs:KeyDoor-v0").unwrapped
    lived = by_oracle(30)
    skills = Skills(
        RewardModel({"envs:KeyDoor-v0": world.reward_weights}), world.signal_catalogue, {}, most=3
    )
    assert skills.curate(lived, lived)
    assert len(skills.library) == 3
    assert all(len(o.actions) >= 2 for o in skills.library)  # type: ignore[union-attr]
    shown_to = skills.turns(lived, Tokens())
    assert shown_to and all(
        ByteTokenizer().text(t.action).startswith("use skill-") for t in shown_to
    )
    forged = [Episode((replace(e.steps[0], reward=5.0), *e.steps[1:]), e.closing) for e in lived]
    suspicious = Skills(
        RewardModel({"envs:KeyDoor-v0": world.reward_weights}), world.signal_catalogue, {}, most=3
    )
    assert not suspicious.curate(forged, forged), "what the world does not confirm is no skill"
    skills.close()


class Tokens:
    """The one thing that skills ask of an engine: its tokens."""

    def encode(self, situation: Situation, action: str) -> Decision:
        ids = ByteTokenizer().action(action)
        return Decision(
            action,
            0,
            ByteTokenizer().prompt(situation.observation),
            ids,
            np.zeros(len(ids), np.float32),
            (VersionSpan(0, len(ids)),),
            token_exact=True,
        )


def line(*moves: str, number: int = 0) -> list[tuple[Step, Step]]:
    """Rows of a corridor a → b → c that ends behind its last move with a reward of 1, whatever the
    moves are called."""
    seen = "abcdef"[: len(moves) + 1]
    rows = [
        make_step(
            t,
            number.to_bytes(16, "big"),
            obs_text=seen[t],
            decision=Decision(move, 0),
            reward=float(t + 1 == len(moves)),
            ending="terminated" if t + 1 == len(moves) else "none",
        )
        for t, move in enumerate(moves)
    ]
    closing = make_step(
        len(moves), number.to_bytes(16, "big"), closing=True, obs_text=seen[-1], ending="terminated"
    )
    return list(pairwise([*rows, closing]))


@pytest.mark.parametrize(
    ("moves", "worth"),
    [(("on",), 1.0), (("on", "off"), 0.9), (("on", "on"), 0.9), (("on", "off", "on"), 0.81)],
)
def test_intra_option_learning_of_a_program_looks_ahead_to_its_next_action(
    moves: tuple[str, ...], worth: float
) -> None:
    """It gave 0 for a program of two steps: every action was compared with the first."""
    program = Program("walk", moves)
    learner = OptionLearner(("on", "off"), Library().add(program), OptionSettings(0.5, 0.9))
    for _ in range(60):
        for step, following in line(*moves):
            learner.learn(step, following)
    assert learner.values["a"][learner.actions.index("use walk")] == pytest.approx(worth, abs=1e-6)
    index = {state: i for i, state in enumerate("abcd")}
    model = learned_models(line(*moves) * 60, program, index, 0.5, 0.9)
    assert model.reward[0] == pytest.approx(worth, abs=1e-6)
    assert model.arrival[0].sum() == pytest.approx(0.0)


def test_a_program_that_ends_before_the_world_is_worth_what_comes_after_it() -> None:
    """Two of three moves: γ² times what is best in c, where the world gives 1 and ends."""
    learner = OptionLearner(
        ("on",), Library().add(Program("walk", ("on", "on"))), OptionSettings(0.5, 0.9)
    )
    for _ in range(80):
        for step, following in line("on", "on", "on"):
            learner.learn(step, following)
    assert learner.values["a"][1] == pytest.approx(0.81, abs=1e-6)
    assert learner.values["b"][1] == pytest.approx(0.9, abs=1e-6)
    assert learner.values["c"][1] == pytest.approx(1.0, abs=1e-6)


def test_a_program_with_an_until_stops_where_that_holds() -> None:
    program = Program("walk", ("on", "off", "off"), until=Condition("b"))
    learner = OptionLearner(("on", "off"), Library().add(program), OptionSettings(0.5, 0.9))
    for _ in range(80):
        for step, following in line("on", "on"):
            learner.learn(step, following)
    assert learner.values["a"][2] == pytest.approx(0.9, abs=1e-6)


def test_a_programs_model_follows_its_list_of_actions() -> None:
    """Corridor a b c d: `on` goes on, `off` earns 2 and stays. on, off, on from a: 0 + γ·2 + γ²·0,
    then c at γ³."""
    from experience.planning.smdp import FiniteWorld, Model

    on = np.array([[0, 0.5, 0, 0], [0, 0, 0.5, 0], [0, 0, 0, 0.5], [0, 0, 0, 0.5]])
    everywhere = np.array([True] * 4)
    world = FiniteWorld(
        tuple("abcd"),
        ("on", "off"),
        (Model(np.zeros(4), on, everywhere), Model(np.full(4, 2.0), np.eye(4) * 0.5, everywhere)),
    )
    model = world.model_of(Program("walk", ("on", "off", "on")))
    assert model.reward.tolist() == [1.0] * 4
    assert model.arrival[0].tolist() == [0, 0, 0.125, 0]
    stopped = world.model_of(Program("walk", ("on", "off", "on"), until=Condition("b")))
    assert (stopped.reward[0], stopped.arrival[0].tolist()) == (0.0, [0, 0.5, 0, 0])
    single = world.model_of(Program("step", ("on",)))
    assert (single.reward.tolist(), single.arrival.tolist()) == ([0.0] * 4, on.tolist())
