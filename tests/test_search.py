"""Planning at decision time: it does what thinking says, it costs the world nothing, and it knows
when not to."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from actors.agents.agent import Agent
from actors.agents.context import Context
from actors.agents.options import OptionStack
from actors.agents.planner import Planner
from actors.collecting.work import Lane, Work
from actors.config.schema import load
from actors.engines.registry import make_engine
from actors.pool.local import LocalPool
from experience.errors import RecordError
from experience.learning.value import ValueFunction
from experience.models.table import Table
from experience.models.weights import PolicyBundle
from experience.options.option import Experiments, Library
from experience.planning.campaign import Campaign, Laboratory, Plan, experiment
from experience.planning.lookahead import Search, in_model
from experience.planning.reach import Choice, Reach
from experience.planning.search import Found, Leaf, TreeSearch, gumbel_search, softmax
from experience.planning.tabular import TabularModel
from experience.planning.world_models.change import Outcome
from experience.planning.world_models.language import LanguageWorldModel
from experience.planning.world_models.world_model import Prediction
from experience.policy import Decision
from experience.reward import RewardModel
from experience.shards.catalog import Catalog
from experience.step import Step
from experience.world import WorldView


def corridor() -> TabularModel:
    """Cells 0 to 4; `right` from 3 ends with 1, `left` from 1 ends with nothing."""
    model = TabularModel()
    for cell in range(1, 4):
        model.count(
            str(cell), "right", Outcome(str(cell + 1), {"done": float(cell == 3)}, cell == 3)
        )
        model.count(str(cell), "left", Outcome(str(cell - 1), {"done": 0.0}, cell == 1))
    return model


class Both:
    """A policy that samples either way, in turn, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, observations: Sequence[str]) -> list[Decision]:
        self.asked += observations
        return [Decision(("left", "right")[i % 2], 0) for i, _ in enumerate(observations)]


class Sure(Both):
    """A policy that always says the same."""

    def __call__(self, observations: Sequence[str]) -> list[Decision]:
        return [Decision("left", 7) for _ in observations]


def search(
    model: object, policy: object, threshold: float = float("inf"), value: float = 0.0
) -> Search[str]:
    return Search(
        policy,
        in_model(model),
        lambda seen: np.full(len(seen), value),  # type: ignore[arg-type]
        lambda _, answer: answer.signals.get("done", 0.0),
        "lookahead",
        candidates=2,
        horizon=3,
        discount=0.9,
        threshold=threshold,
    )


def test_lookahead_does_what_its_thoughts_say_is_best() -> None:
    ((chosen, score),) = search(corridor(), Both())(["3"], ["3"])
    assert (chosen.text, score) == ("right", 1.0)
    assert not chosen.sampled and "lookahead m=2 h=3" in chosen.decoder


def test_a_policy_that_leaves_no_choice_is_followed_without_a_thought() -> None:
    class Untouched:
        def predict(self, *_: object) -> list[Prediction]:
            raise AssertionError("there was nothing to think about")

    ((chosen, score),) = search(Untouched(), Sure())(["3"], ["3"])
    assert (chosen.text, chosen.policy_version, score) == ("left", 7, None)


def test_what_the_model_is_unsure_of_is_worth_what_stands_there_and_no_more() -> None:
    ((_, score),) = search(corridor(), Both(), threshold=0.5, value=0.25)(["3"], ["3"])
    assert score == 0.25, "each pair was counted once: its uncertainty is 1"


def gumbel(
    logits: Sequence[float],
    came_of: Callable[[object, int], Leaf[object]],
    simulations: int,
    rng: np.random.Generator,
    value: float = 0.0,
    state: object = (),
) -> Found:
    """One search, its questions answered one by one."""
    search = gumbel_search(Leaf(state, 0.0, 1.0, value, logits), simulations=simulations, rng=rng)
    asked = next(search)
    while True:
        try:
            asked = search.send(came_of(*asked))
        except StopIteration as over:
            found: Found = over.value
            return found


def test_gumbel_search_finds_the_one_good_action_among_many() -> None:
    def came_of(state: object, action: int) -> Leaf[object]:
        return Leaf(state, float(action == 7), 0.0, 0.0, ())

    found = [
        gumbel([0.0] * 16, came_of, 32, np.random.default_rng(seed)).action for seed in range(50)
    ]
    assert found.count(7) == 50


def test_the_improved_policy_is_worth_at_least_the_prior_under_any_values() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        logits, q = rng.normal(size=6), rng.normal(size=6)
        found = gumbel(
            list(logits),
            lambda s, a, q=q: Leaf(s, float(q[a]), 0.0, 0.0, ()),  # type: ignore[misc]
            8,
            rng,
            value=float(softmax(logits) @ q),
        )
        assert found.policy @ q >= softmax(logits) @ q - 1e-9
        assert found.policy.sum() == pytest.approx(1.0)


def test_gumbel_search_looks_further_than_one_step() -> None:
    """Only left, left, right is rewarded; every state looks the same to the prior."""

    def came_of(state: object, action: int) -> Leaf[object]:
        path = (*state, action)  # type: ignore[misc]
        return Leaf(path, float(path == (0, 0, 1)), 1.0, 0.0, [0.0, 0.0] if len(path) < 3 else ())

    found = [gumbel([0.0, 0.0], came_of, 64, np.random.default_rng(s)).action for s in range(20)]
    assert found.count(0) >= 18


def tree(
    threshold: float = float("inf"),
    value: float = 0.0,
    policy: object = None,
    listed: Sequence[str] = (),
    simulations: int = 16,
) -> TreeSearch[str]:
    return TreeSearch(
        policy or Both(),
        in_model(corridor()),
        lambda seen: np.full(len(seen), value),  # type: ignore[arg-type]
        lambda answer: answer.signals.get("done", 0.0),
        listed,
        2,
        simulations,
        0.9,
        threshold,
    )


def test_a_tree_search_does_in_every_situation_what_leads_to_the_reward() -> None:
    found = tree()(["1", "2", "3"], ["1", "2", "3"])
    assert [f and f[0] for f in found] == ["right", "right", "right"]
    assert found[2] is not None and found[2][1] == pytest.approx(1.0, abs=0.05)


def test_a_tree_search_tries_what_is_listed_and_the_policy_never_says() -> None:
    assert tree(policy=Sure())(["3"], ["3"]) == [None], "one action only: nothing to think about"
    (found,) = tree(policy=Sure(), listed=("left", "right"))(["3"], ["3"])
    assert found is not None and found[0] == "right"


def test_a_tree_search_that_tells_nothing_leaves_the_policy_its_habit() -> None:
    (found,) = tree(policy=Sure(), listed=("right", "left"), threshold=0.5)(["3"], ["3"])
    assert found is not None and found[0] == "left"


def test_a_tree_search_is_worth_what_stands_there_where_the_model_is_unsure() -> None:
    (found,) = tree(threshold=0.5, value=0.25)(["3"], ["3"])
    assert found is not None and found[1] == 0.25, (
        "each pair was counted once: its uncertainty is 1"
    )


def line(n: int = 40) -> np.ndarray:
    return np.linspace(0, 1, n)[:, None]


def measured(simulated: np.ndarray | None, truth: np.ndarray) -> int:
    """Measurements until the best candidate was found."""
    campaign, rng = Campaign(line(), simulated, noise=0.01), np.random.default_rng(0)
    for n in range(40):
        chosen = campaign.next(rng)
        if chosen == int(truth.argmax()):
            return n + 1
        campaign.tell(chosen, float(truth[chosen]))
    return 40


def test_a_campaign_trusts_a_simulator_that_is_right_and_drops_one_that_is_not() -> None:
    x = line()[:, 0]
    truth = np.sin(9 * x) + x
    assert measured(truth + 0.1 * np.cos(20 * x), truth) <= measured(None, truth)
    campaign = Campaign(line(), np.cos(23 * x), noise=0.01)
    for i in range(0, 40, 3):
        campaign.tell(i, float(truth[i]))
    assert abs(campaign.belief().share) < 0.2
    assert np.abs(campaign.belief().mean - truth).max() < 0.2


def test_an_experiment_that_failed_is_not_a_measurement() -> None:
    with pytest.raises(RecordError, match="nan"):
        Campaign(line()).tell(0, float("nan"))
    with pytest.raises(RecordError, match="simulated"):
        Campaign(line(), np.zeros(3))


def laboratory(
    simulated: np.ndarray, readings: dict[int, float], price: float = 0.01, turns: int = 9
) -> Laboratory:
    ways = range(len(simulated))
    return Laboratory(
        line(len(simulated)),
        simulated,
        readings,
        0.01,
        [Plan(f"measure {i}", price, 1) for i in ways],
        [Plan(f"declare {i}", 0.0, 1) for i in ways],
        turns,
    )


def test_a_campaign_measures_while_that_promises_more_than_it_costs_and_then_hands_in_the_best() -> (
    None
):
    x = line(20)[:, 0]
    told, truth = np.sin(9 * x), np.sin(9 * x) - 1.5 * (x > 0.5)
    readings: dict[int, float] = {}
    while (step := experiment(laboratory(told, readings)))[0].startswith("measure"):
        at = int(step[0].split()[1])
        assert at not in readings
        readings[at] = float(truth[at])
    assert 1 < len(readings) < 9 and truth[int(step[0].split()[1])] > truth.max() - 0.1
    assert step[1] == pytest.approx(truth.max(), abs=0.15), "it says what it expects"


def test_a_campaign_measures_nothing_that_is_too_dear_or_too_late() -> None:
    told = np.sin(9 * line(20)[:, 0])
    assert experiment(laboratory(told, {}, turns=1))[0] == f"declare {told.argmax()}"
    best = int(told.argmax())
    assert experiment(laboratory(told, {best: float(told[best])}, price=5.0))[0].startswith(
        "declare"
    )


def test_an_agent_of_the_reactor_plans_its_experiments_and_does_better_than_one_who_trusts_the_simulation(
    tmp_path: Path,
) -> None:
    pytest.importorskip("cantera")
    config, _ = load(
        [],
        [
            "worlds=[{id: 'envs:Reactor-v0'}]",
            "policy.engine=table",
            "collecting.slots=4",
            "planning.lookahead.candidates=1",
            "planning.lookahead.search=campaign",
        ],
    )
    pool, rows, returns = LocalPool(config, "test", tmp_path, Catalog(tmp_path)), list[Step](), {}
    lanes: tuple[Lane, ...] = ("evaluation", "demonstration")
    works = {
        lane: [
            Work.named(
                f"{lane}/{i}",
                env_id="envs:Reactor-v0",
                seed=i,
                lane=lane,
                split="heldout",
                version=0,
            )
            for i in range(12)
        ]
        for lane in lanes
    }
    pool.order([w for lane in lanes for w in works[lane]], PolicyBundle(Table.weights((), {}, 0)))
    for shard in pool.shards(lambda: sum(s.is_closing for s in rows) >= 24):
        rows.extend(shard)
    pool.close()
    for lane in lanes:
        ids = {w.work_id for w in works[lane]}
        returns[lane] = sum(s.reward or 0.0 for s in rows if s.work_id in ids) / 12
    assert returns["evaluation"] > returns["demonstration"]
    planned = [s for s in rows if s.decision and s.decision.decoder.startswith("campaign rho=")]
    assert len(planned) > 24 and all(s.value_estimate is not None for s in planned)


class Slot:
    """A stream of a real world, as an agent sees it."""

    images: dict[str, bytes] = {}

    def __init__(self, env_id: str, seed: int) -> None:
        self.tools = ()
        self.env_id, self.option_stack, self.env = env_id, OptionStack(), gymnasium.make(env_id)
        self.context = Context()
        self.observation, _ = self.env.reset(seed=seed)

    @property
    def view(self) -> WorldView:
        campaign = experiment(self.env.unwrapped.laboratory())
        return replace(WorldView.of(self.env.unwrapped), experiment=campaign)


def test_the_option_campaign_hands_over_to_the_planner_until_the_episode_ends() -> None:
    pytest.importorskip("cantera")

    class Starts(Agent):
        """A policy that knows one thing to say."""

        def _by_policy(self, slots: Sequence[object]) -> list[Decision]:
            return [Decision("use campaign", 0) for _ in slots]

    config, _ = load([], ["worlds=[{id: 'envs:Reactor-v0'}]", "policy.engine=table"])
    agent = Starts(make_engine(config.policy, 0), 0.0)
    agent.options = Library.load(Library().add(Experiments("campaign")).dump())
    slot, said, ended = Slot("envs:Reactor-v0", 0), list[str](), False
    while not ended:
        (decision,) = agent.act([slot])
        said.append(decision.text)
        if not slot.option_stack.is_choice:
            assert (
                decision.decoder.startswith("campaign rho=")
                and slot.option_stack.value_estimate is not None
            )
            slot.observation, _, terminated, truncated, _ = slot.env.step(decision.text)
            ended = terminated or truncated
    assert [text.split()[0] for text in said[:2]] == ["use", "measure"] and said[-1].startswith(
        "declare"
    )


def lived(folder: Path, *settings: str) -> list[Step]:
    """The rows of sixteen grids under an untaught table: it has no preference of its own."""
    config, _ = load(
        [],
        [
            "worlds=[{id: 'envs:KeyDoor-v0', arguments: {size: 3}}]",
            "policy.engine=table",
            "policy.epsilon=1.0",
            "collecting.slots=8",
            "collecting.group_size=2",
            "evaluation.temperature=1.0",
            *settings,
        ],
    )
    folder.mkdir(exist_ok=True)
    pool = LocalPool(config, "test", folder, Catalog(folder))
    policy = PolicyBundle(
        Table.weights((), {}, 0),
        planner=ValueFunction(2, 64, config.policy.context, 0).export_weights(),
    )
    pool.order(
        [
            Work.named(
                str(i),
                env_id="envs:KeyDoor-v0",
                seed=i,
                lane="evaluation",
                split="heldout",
                version=0,
            )
            for i in range(16)
        ],
        policy,
    )
    rows: list[Step] = []
    for shard in pool.shards(lambda: sum(s.is_closing for s in rows) >= 16):
        rows.extend(shard)
    pool.close()
    return rows


def at_the_door(row: Step) -> str | None:
    """The move that wins at once, where there is one."""
    lines = row.obs_text.splitlines()
    ways = (
        [re.fullmatch(r"([a-z]+)(\d)", way) for way in lines[2].removeprefix("door ").split()]
        if len(lines) > 2
        else []
    )
    far = [(way[1], int(way[2])) for way in ways if way and way[2] != "0"]
    return (
        far[0][0]
        if row.decision and lines[1] == "key held" and len(far) == 1 and far[0][1] == 1
        else None
    )


def test_thinking_in_forks_never_misses_the_move_that_wins(tmp_path: Path) -> None:
    plain = [r for r in lived(tmp_path / "plain") if at_the_door(r)]
    rows = lived(
        tmp_path / "forks",
        "planning.lookahead.candidates=40",
        "planning.lookahead.simulator=fork",
        "planning.lookahead.horizon=1",
    )
    thought = [r for r in rows if at_the_door(r)]
    assert any(r.decision and r.decision.text != at_the_door(r) for r in plain), (
        "without a thought it is missed"
    )
    assert thought and all(r.decision and r.decision.text == at_the_door(r) for r in thought)
    assert all(
        r.decision and "lookahead in forks" in r.decision.decoder and r.value_estimate == 1.0
        for r in thought
    )


def test_what_was_thought_did_not_happen(tmp_path: Path) -> None:
    rows = lived(
        tmp_path,
        "planning.lookahead.candidates=8",
        "planning.lookahead.simulator=fork",
        "planning.lookahead.horizon=4",
    )
    world = gymnasium.make("envs:KeyDoor-v0", size=3).unwrapped
    seen, _ = world.reset(seed=0, options={"split": "heldout"})
    for step in rows:
        if step.decision and step.work_id == Work.named("0", env_id="", seed=0).work_id:
            assert step.obs_text == seen, "the real world went where its own actions led"
            seen = world.step(step.decision.text)[0]


def test_sweeps_in_forks_walk_a_shortest_way_through_every_grid(tmp_path: Path) -> None:
    rows = lived(
        tmp_path,
        "planning.lookahead.candidates=1",
        "planning.lookahead.search=sweeps",
        "planning.lookahead.simulator=fork",
    )
    world = gymnasium.make("envs:KeyDoor-v0", size=3).unwrapped
    for seed in range(16):
        episode = [
            r
            for r in rows
            if r.decision and r.work_id == Work.named(str(seed), env_id="", seed=0).work_id
        ]
        world.reset(seed=seed, options={"split": "heldout"})
        shortest = 0
        while not world._is_over:
            world.step(world.oracle_action())
            shortest += 1
        assert len(episode) == shortest and episode[-1].reward == 1.0
        assert episode[0].value_estimate == pytest.approx(0.99 ** (shortest - 1)), (
            "at no discount, 0.99 is used"
        )
        assert all(r.decision and r.decision.decoder == "sweeps in forks n=64" for r in episode)


def test_a_tree_search_in_forks_wins_whenever_a_few_moves_suffice(tmp_path: Path) -> None:
    rows = lived(
        tmp_path,
        "planning.lookahead.candidates=1",
        "planning.lookahead.search=gumbel",
        "planning.lookahead.simulator=fork",
        "planning.lookahead.states=12",
    )
    beside = [r for r in rows if at_the_door(r)]
    assert beside and all(r.decision and r.decision.text == at_the_door(r) for r in beside)
    assert all(
        r.decision
        and r.decision.decoder == "gumbel in forks n=12"
        and not r.decision.sampled
        and r.value_estimate is not None
        for r in rows
        if not r.is_closing
    )


def reach(
    model: TabularModel,
    states: int = 64,
    threshold: float = float("inf"),
    known: dict[tuple[str, str], Outcome] | None = None,
) -> dict[str, Choice]:
    return Reach(
        lambda seen: [("left", "right")] * len(seen),
        in_model(model, known),
        lambda answer: answer.signals.get("done", 0.0),
        states,
        0.9,
        threshold,
    )(["1"], ["1"])


def test_sweeps_find_the_value_of_every_state_they_reach() -> None:
    found = reach(corridor())
    assert {seen: (list(c.best), round(c.value, 6)) for seen, c in found.items()} == {
        "1": (["right"], 0.81),
        "2": (["right"], 0.9),
        "3": (["right"], 1.0),
    }


def test_sweeps_lay_out_no_more_states_than_they_may_and_choose_nothing_where_nothing_differs() -> (
    None
):
    assert reach(corridor(), states=2) == {}, "the end is beyond the second state"
    assert reach(corridor(), threshold=0.5) == {}, (
        "each pair was counted once: its uncertainty is 1"
    )


def test_what_was_lived_is_not_asked_of_the_model_again() -> None:
    wall = Outcome("3", {"done": 0.0}, False)
    assert reach(corridor(), known={("3", "right"): wall}) == {}, (
        "the way out that the model sees is not there"
    )


def test_a_model_that_believes_nothing_leaves_the_policy_alone(tmp_path: Path) -> None:
    config, _ = load([], ["worlds=[{id: 'envs:KeyDoor-v0'}]", "planning.lookahead.candidates=4"])
    planner = Planner(config, RewardModel({}))
    model = LanguageWorldModel(
        config.planning.model.layers, config.planning.model.width, config.policy.context, 0.9, 0
    )
    exported = (
        ValueFunction(2, 64, config.policy.context, 0).export_weights() | model.export_weights()
    )
    planner.load(exported)
    assert (
        planner.decide(
            "envs:KeyDoor-v0",
            [WorldView()],
            ["you 1 1"],
            Both(),
            lambda _, action: Decision(action, 0),
        )
        == []
    )


def test_the_mean_of_several_rollouts_speaks_for_an_action_where_one_misleads() -> None:
    """`sure` is worth 0.5; what `gamble` is worth shows only after: 1 in a quarter of its thoughts,
    else 0."""
    rng = np.random.default_rng(0)

    class Later:
        def predict(self, places: Sequence[str], actions: Sequence[str]) -> list[Prediction]:
            worth = [
                0.5 if a == "sure" else 0.0 if p == "start" else float(rng.random() < 0.25)
                for p, a in zip(places, actions, strict=True)
            ]
            return [
                Prediction(Outcome("after", {"done": w}, a == "sure" or p == "after"), 0.0)
                for p, a, w in zip(places, actions, worth, strict=True)
            ]

    class Either(Both):
        def __call__(self, observations: Sequence[str]) -> list[Decision]:
            return [
                Decision(("sure", "gamble")[i % 2] if o == "start" else "gamble", 0)
                for i, o in enumerate(observations)
            ]

    def gambles(rollouts: int) -> int:
        thinks = replace(search(Later(), Either()), rollouts=rollouts, discount=1.0)
        return sum(d.text == "gamble" for d, _ in thinks(["start"] * 200, ["start"] * 200))

    assert gambles(1) > 30 and gambles(16) < 10


def test_a_campaign_hands_in_what_it_still_has_the_turns_for() -> None:
    lab = laboratory(np.array([0.0, 1.0, 2.0]), {1: 1.0}, turns=1)
    to_be_made = replace(
        lab,
        declare=[Plan("prepare 0", 0.0, 2), Plan("declare 1", 0.0, 1), Plan("prepare 2", 0.0, 2)],
    )
    assert experiment(to_be_made)[0] == "declare 1"
    assert (
        experiment(replace(to_be_made, turns=2, measure=[Plan("", 9.0, 1)] * 3))[0] == "prepare 2"
    )


@pytest.mark.parametrize(
    ("name", "actions", "read"),
    [
        (
            "Reactor",
            ["simulate 1000 2.0", "measure 1333 2.3", "measure 1333 2.3"],
            "measure 1333 2.3",
        ),
        ("Materials", ["prepare 41 600", "measure 1", "measure 1"], "measure 1"),
    ],
)
def test_a_laboratory_knows_what_was_measured_off_its_grid_as_often_as_it_was(
    name: str, actions: list[str], read: str
) -> None:
    pytest.importorskip(
        {"Reactor": "cantera", "Materials": "pycalphad"}[name], reason="./xp setup worlds"
    )
    world = gymnasium.make(f"envs:{name}-v0").unwrapped
    world.reset(seed=0)
    before = world.laboratory()
    for action in actions:
        world.step(action)
    after = world.laboratory()
    ((recipe, value),) = after.readings.items()
    assert (
        not before.readings and len(after.recipes) == len(before.recipes) + 1 and np.isfinite(value)
    )
    assert after.measure[recipe].action == read and after.turns == before.turns - len(actions)
