"""Planning: changes apply exactly, the gate holds, imagined steps say what they are."""

from __future__ import annotations

import string
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from experience.episode import Episode
from experience.models.tokenizer import ByteTokenizer
from experience.options.option import Condition, Library, Subgoal, option_id
from experience.planning.imagine import imagine, sweep
from experience.planning.world_models.change import Outcome, apply, write_change
from experience.planning.world_models.ensemble import EnsembleModel
from experience.planning.world_models.gate import auroc
from experience.planning.world_models.language import LanguageWorldModel
from experience.planning.world_models.retrieval import Memory
from experience.planning.world_models.world_model import Prediction
from experience.policy import Decision, VersionSpan
from experience.replay.replay import Replay
from experience.reward import RewardModel
from experience.signal import Signal, SignalKind
from experience.step import Step
from tests.conftest import make_step
from tests.stored import StoredReplay
from tests.test_ensemble import cartpole

CATALOGUE = {"done": SignalKind("fraction", "env_state")}
REWARDS = RewardModel({"envs:Test-v0": {"done": 1.0}})
line = some.text(alphabet=string.ascii_letters + string.digits + " =|#@.", max_size=12)


@given(
    before=some.lists(line, min_size=1, max_size=5),
    after=some.lists(line, min_size=1, max_size=5),
    ended=some.booleans(),
    value=some.integers(-500, 500),
)
def test_a_change_applied_to_what_was_seen_gives_what_was_seen_next(
    before: list[str], after: list[str], ended: bool, value: int
) -> None:
    seen = "\n".join(before)
    answer = Outcome(
        seen if ended else "\n".join(after), {"done": value / 100} if value else {}, ended
    )
    assert apply(seen, write_change(seen, answer)) == answer


def test_a_signal_of_zero_is_not_told_for_it_adds_nothing() -> None:
    assert write_change("a", Outcome("b", {"done": 0.0, "cost": 1.5}, False)) == "@0 b\ngo cost=1.5"
    assert write_change("a", Outcome("x" * 100, {"done": 1.0}, True)) == "end done=1"


@pytest.mark.parametrize(
    "name", ["acc@1", "loss/value", "two words", "größe", "a=b", "2nd", "line\nbreak", "%41", ""]
)
def test_a_signal_of_any_name_comes_back_from_its_change(name: str) -> None:
    answer = Outcome("b", {name: 1.5, "done": 1.0}, False)
    assert apply("a", write_change("a", answer)) == answer


def test_a_change_that_cannot_happen_is_no_answer() -> None:
    for change in (
        "",
        "stop",
        "go done=x",
        "@9 far\ngo done=1",
        "nonsense\ngo done=1",
        "end done=1\n@0 x",
    ):
        assert apply("one\ntwo", change) is None


def test_auroc_is_one_for_a_perfect_half_for_a_blind_and_unknown_for_no_ranking() -> None:
    assert auroc(np.array([1.0, 2.0, 3.0, 4.0]), np.array([False, False, True, True])) == 1.0
    assert auroc(np.array([1.0, 2.0]), np.array([True, True])) is None
    assert auroc(np.empty(0), np.empty(0, bool)) is None
    assert auroc(np.array([np.inf, np.inf, 1.0]), np.array([True, False, False])) == 0.75
    assert auroc(np.array([1.0, 1.0]), np.array([True, False])) == 0.5


def world(n: int, rooms: int = 1) -> list[tuple[Step, Step]]:
    """A world of doors: the right word opens and ends, a wrong one writes a note."""
    rng, pairs = np.random.default_rng(0), []
    for i in range(n):
        right, said = rng.choice(["red", "blue", "tan"], 2)
        done = right == said
        before = f"door {right}" if rooms == 1 else f"door {i % rooms} {right}"
        action = ByteTokenizer().action(f"say {said}")
        step = make_step(
            0,
            uuid.uuid4().bytes,
            obs_text=before,
            reward=float(done),
            ending="terminated" if done else "none",
            signals=(Signal("done", float(done), "fraction", "env_state"),),
            decision=Decision(
                f"say {said}",
                0,
                ByteTokenizer().prompt(before),
                action,
                np.zeros(len(action), np.float32),
                (VersionSpan(0, len(action)),),
                True,
            ),
        )
        pairs.append(
            (
                step,
                make_step(
                    1, step.stream_id, closing=True, obs_text=before if done else before + "\nno"
                ),
            )
        )
    return pairs


def test_the_model_learns_a_small_world_and_its_gate_keeps_the_better_half() -> None:
    model = LanguageWorldModel(layers=2, width=48, context=96, trusted_accuracy=0.95, seed=0)
    model.add(world(400, rooms=60))
    model.fit(220)
    error = model.calibrate()
    assert error is not None
    assert error.exact > 0.7 > error.copy
    assert error.exact_kept >= error.exact


class Certain:
    """A model whose predictions are written down: everything ends, `uncertainty` apart."""

    def __init__(self, uncertainty: float) -> None:
        self.version, self.threshold, self._uncertainty = 5, 1.0, uncertainty

    def predict(self, observations: object, actions: object) -> list[Prediction]:
        return [
            Prediction(Outcome(o, {"done": float("red" in a)}, True), self._uncertainty)
            for o, a in zip(observations, actions, strict=True)
        ]  # type: ignore[call-overload]


def lived() -> Replay:
    replay = StoredReplay(Path(tempfile.mkdtemp()), 2, 9)
    for step, closing in world(20):
        replay.add([step, closing])
    return replay


def policy(_: object, observations: object) -> list[Decision]:
    words = ["say red", "say blue"]
    return [Decision(words[i % 2], 3) for i, _ in enumerate(observations)]  # type: ignore[arg-type, var-annotated]


def test_imagined_steps_name_their_model_and_the_real_step_they_branch_from() -> None:
    replay = lived()
    real = {(s.stream_id, s.t) for e in replay.episodes["real"] for s in e.steps}
    made = imagine(
        policy, Certain(0.5), replay, REWARDS, CATALOGUE, groups=2, group_size=4, horizon=3
    )
    assert len(made.groups) == 2
    for step in made.steps:
        assert step.source == "imagined"
        assert step.parent in real
        assert step.model_version == 5
    assert {e.total_reward for e in made.groups[0].episodes} == {0.0, 1.0}


def test_what_the_model_is_unsure_of_is_never_learned_from() -> None:
    made = imagine(
        policy, Certain(1.5), lived(), REWARDS, CATALOGUE, groups=2, group_size=4, horizon=3
    )
    assert made.groups == []
    assert made.branches == {"uncertain": 8}


def planned(uncertainty: float) -> list[Episode]:
    replay = lived()
    real = {(s.stream_id, s.t) for e in replay.episodes["real"] for s in e.steps}
    episodes = sweep(
        lambda _, seen: [("say red", "say blue")] * len(seen),
        Certain(uncertainty),
        replay,
        REWARDS,
        CATALOGUE,
        roots=8,
        within=4,
        states=4,
    )
    assert all(e.first.parent in real for e in episodes)
    return episodes


def test_what_sweeps_conclude_is_imagined_and_says_what_it_is_worth() -> None:
    episodes = planned(0.5)
    assert {e.first.obs_text for e in episodes} <= {"door red", "door blue", "door tan"}
    for step in (e.first for e in episodes):
        assert (step.source, step.model_version, step.uncertainty) == ("imagined", 5, 0.5)
        assert step.decision and step.decision.text == "say red" and not step.decision.sampled
        assert (step.reward, step.value_estimate, step.ending) == (1.0, 1.0, "terminated")


def test_sweeps_conclude_nothing_from_what_the_model_is_unsure_of() -> None:
    assert planned(1.5) == []


class Corridor(Certain):
    """Nothing earns anything; `say on` leads from a door to the hall and from there into the dark,
    as far as is known."""

    def predict(self, observations: object, actions: object) -> list[Prediction]:
        way = {"hall": "dark"}
        return [
            Prediction(Outcome(way.get(o, "hall") if "on" in a else o, {}, False), 0.0)
            for o, a in zip(observations, actions, strict=True)
        ]  # type: ignore[call-overload]


def test_with_a_subgoal_sweeps_plan_as_far_as_that_where_no_reward_is_in_sight() -> None:
    def plan(library: Library | None) -> list[Episode]:
        return sweep(
            lambda _, seen: [("say on", "say off")] * len(seen),
            Corridor(0.0),
            lived(),
            REWARDS,
            CATALOGUE,
            roots=20,
            within=4,
            states=4,
            discount=0.9,
            library=library,
        )

    goal = Subgoal("hall", "get to the hall", Condition("hall"), Condition("door (red|tan)$"))
    assert plan(None) == plan(Library()) == []
    steps = [e.first for e in plan(Library().add(goal))]
    assert {s.obs_text for s in steps} == {"door red", "door tan"}, (
        "neither where it may not start nor beyond its end"
    )
    for step in steps:
        assert step.decision and step.decision.text == "say on"
        assert (step.option_id, step.option_step, step.value_estimate) == (
            option_id("hall"),
            1,
            1.0,
        )
        assert (step.ending, step.reward) == ("none", 0.0), "the world goes on, and gave nothing"


def test_a_question_asked_again_is_answered_from_memory_until_the_model_changes() -> None:
    model, asked = (
        LanguageWorldModel(layers=1, width=16, context=64, trusted_accuracy=0.9, seed=0),
        [],
    )
    plain = model._predict
    model._predict = lambda o, a: (asked.extend(zip(o, a, strict=True)), plain(o, a))[1]  # type: ignore[method-assign]
    first = model.predict(["a", "b", "a"], ["x", "x", "x"])
    assert asked == [("a", "x"), ("b", "x")] and first[0] == first[2]
    assert model.predict(["b"], ["x"]) == [first[1]] and len(asked) == 2
    model.add(world(8))
    model.fit(1)
    model.predict(["b"], ["x"])
    assert len(asked) == 3


def test_a_memory_finds_what_is_alike_and_never_the_question_itself() -> None:
    memory = Memory(most=4)
    memory.add(0, ["open the red door", "open the blue door", "eat the apple"])
    assert memory.nearest(["open the red door"], 2) == [[1, 0]], "the most similar last"
    assert memory.nearest(["open the red door"], 1, without=[0]) == [[1]]
    memory.add(3, ["eat the pear", "open the green door"])
    assert memory.nearest(["open the red door"], 9)[0][-1] in (1, 4) and len(memory) == 4, (
        "the oldest is gone"
    )
    assert Memory().nearest(["anything"], 3) == [[]]


def strangers(n: int, seed: int) -> list[tuple[Step, Step]]:
    """Every place has a word of its own, told once or more: what is not remembered cannot be known."""
    rng, pairs = np.random.default_rng(seed), []
    for _ in range(n):
        place = int(rng.integers(40))
        before, word = f"place {place}", ["red", "blue", "tan", "grey"][(place * 7 + 3) % 4]
        action = ByteTokenizer().action("ask")
        step = make_step(
            0,
            uuid.uuid4().bytes,
            obs_text=before,
            reward=0.0,
            ending="none",
            signals=(Signal("done", 0.0, "fraction", "env_state"),),
            decision=Decision(
                "ask",
                0,
                ByteTokenizer().prompt(before),
                action,
                np.zeros(len(action), np.float32),
                (VersionSpan(0, len(action)),),
                True,
            ),
        )
        pairs.append(
            (step, make_step(1, step.stream_id, closing=True, obs_text=f"{before}\nit is {word}"))
        )
    return pairs


@pytest.mark.long
def test_similar_transitions_in_the_prompt_tell_what_the_weights_do_not_know() -> None:
    lived = strangers(320, 0)
    exact = {}
    for retrieve in (0, 2):
        model = LanguageWorldModel(
            layers=2, width=48, context=24, trusted_accuracy=0.9, seed=0, retrieve=retrieve
        )
        model.add(lived)
        model.fit(250)
        error = model.calibrate()
        assert error is not None
        exact[retrieve] = error.exact
    assert exact[2] > exact[0] + 0.1, exact
    other = LanguageWorldModel(
        layers=2, width=48, context=24, trusted_accuracy=0.9, seed=1, retrieve=2
    )
    other.load_weights(model.export_weights())
    asked = [s.obs_text for s, _ in lived[:16]]
    assert other.predict(asked, ["ask"] * 16) == model.predict(asked, ["ask"] * 16), (
        "its memory goes with it"
    )


@pytest.mark.parametrize(
    ("plain", "events", "keeps"), [(0, 60, "events"), (60, 0, "plain"), (60, 60, "both")]
)
def test_what_is_measured_and_what_is_not_pass_gates_of_their_own(
    plain: int, events: int, keeps: str
) -> None:
    """A model that is always right where nothing happens and, of what it says happened, right only
    where it is sure."""
    model = LanguageWorldModel(layers=1, width=16, context=32, trusted_accuracy=0.9, seed=0)
    rng = np.random.default_rng(0)
    kept = world(plain + events)
    truth = {
        f"o{i}": Outcome(f"o{i}", {"done": 0.0 if i < plain else 1.0}, False)
        for i in range(plain + events)
    }
    sure = {name: float(rng.uniform(0, 1)) for name in truth}
    model.transitions.held_out["gate"] = [
        (replace(step, obs_text=name), truth[name])
        for (step, _), name in zip(kept, truth, strict=True)
    ]

    def predict(observations: list[str], actions: list[str]) -> list[Prediction]:
        return [
            Prediction(
                a if not a.signals["done"] or sure[o] < 0.5 else Outcome(o, {"done": 2.0}, False),
                sure[o] + (model._event_shift if a.signals["done"] else 0),
            )
            for o in observations
            for a in [truth[o]]
        ]

    model.predict = predict  # type: ignore[method-assign, assignment]
    model.calibrate(400)
    told = predict(list(truth), [])
    passed = {
        kind: [
            p
            for p in told
            if p.uncertainty <= model.threshold
            and p.answer
            and bool(p.answer.signals["done"]) is (kind == "events")
        ]
        for kind in ("plain", "events")
    }
    wrong = sum(p.answer is not None and p.answer.signals["done"] == 2.0 for p in passed["events"])
    assert bool(passed["events"]) is (keeps != "plain") and bool(passed["plain"]) is (
        keeps != "events"
    )
    assert wrong <= 0.12 * max(len(passed["events"]), 1) and (
        plain == 0 or len(passed["plain"]) == plain
    )


def test_a_pair_that_comes_again_is_fitted_or_sets_the_gate_or_is_measured_on_and_never_two_of_them() -> (
    None
):
    """Kept out by number, one in eight, 47 % of what was kept out had been fitted too."""
    model = LanguageWorldModel(layers=1, width=16, context=32, trusted_accuracy=0.9, seed=0)
    for _ in range(3):
        model.add(world(400, rooms=40))
    uses = [
        {(s.obs_text, s.decision.text) for s, _ in model.transitions.held_out[use]}
        for use in ("gate", "measured")
    ]
    uses.append({tuple(question.split("\n> ")) for question, _ in model.transitions.fitted})
    everything = {(s.obs_text, s.decision.text) for s, _ in world(400, rooms=40)}
    assert uses[0] and uses[1]
    assert sum(map(len, uses)) == len(everything) and set.union(*uses) == everything
    assert 0.05 < (len(uses[0]) + len(uses[1])) / len(everything) < 0.2


def test_an_ensemble_keeps_out_by_content_too() -> None:
    model = EnsembleModel(("0", "1"), ("env_reward",))
    for _ in range(3):
        model.add(cartpole(200, 0))
    uses = [
        [(seen, action) for seen, action, _ in model.transitions.held_out[use]]
        for use in ("gate", "measured")
    ]
    fitted = {tuple(row.given) for row in model.transitions.rows}
    kept = {
        tuple(model.transitions.input(model.transitions.form.read(seen), action))
        for use in uses
        for seen, action in use
    }
    assert kept and not kept & fitted
    assert len(kept) + len(fitted) == 200
    assert not set(uses[0]) & set(uses[1])
    model.add([(replace(step, obs_text="1e99 0 0 0"), closing) for step, closing in cartpole(1, 0)])
    assert model.transitions.too_large == 1


def test_the_gate_is_measured_on_others_than_those_that_set_it() -> None:
    """A model that is right in one half and wrong in the other, and as sure in both: the gate lets
    it through, and its measure says that it should not have."""
    model = LanguageWorldModel(layers=1, width=16, context=32, trusted_accuracy=0.9, seed=0)
    rows = [
        (replace(step, obs_text=f"o{i}"), Outcome(f"o{i}", {"done": 0.0}, False))
        for i, (step, _) in enumerate(world(40))
    ]
    model.transitions.held_out = {"gate": rows[:20], "measured": rows[20:]}
    wrong = {step.obs_text for step, _ in rows[20:]}

    def predict(observations: list[str], actions: list[str]) -> list[Prediction]:
        return [
            Prediction(Outcome("else" if o in wrong else o, {"done": 0.0}, False), 0.1)
            for o in observations
        ]

    model.predict = predict  # type: ignore[method-assign, assignment]
    error = model.calibrate()
    assert error is not None
    assert model.threshold == 0.1
    assert (error.exact, error.kept, error.exact_kept, error.n) == (0.0, 1.0, 0.0, 20)


def test_without_a_gate_nothing_is_cut() -> None:
    """Neither before nor after calibration, and no event: a `trusted_accuracy` of 0 believes
    whatever is said."""
    model = LanguageWorldModel(layers=1, width=16, context=64, trusted_accuracy=0.0, seed=0)
    assert model.threshold == float("inf")
    model.add(world(400, rooms=60))
    model.fit(3)
    error = model.calibrate()
    assert error is not None
    assert (error.kept, model.threshold, model._event_shift) == (1.0, float("inf"), 0.0)
    again = LanguageWorldModel(layers=1, width=16, context=64, trusted_accuracy=0.0, seed=1)
    again.load_weights(model.export_weights())
    assert again.threshold == float("inf")
    sure = Certain(1e9)
    sure.threshold = model.threshold
    made = imagine(policy, sure, lived(), REWARDS, CATALOGUE, groups=2, group_size=4, horizon=3)
    assert made.branches == {"ended": 8}
    assert EnsembleModel(("0",), ("done",), trusted_accuracy=0.0).threshold == float("inf")


def test_without_a_gate_a_model_is_measured_though_nothing_was_kept_out_to_set_one() -> None:
    model = LanguageWorldModel(layers=1, width=16, context=32, trusted_accuracy=0, seed=0)
    model.transitions.held_out = {
        "gate": [],
        "measured": [
            (replace(step, obs_text=f"o{i}"), Outcome(f"o{i}", {}, False))
            for i, (step, _) in enumerate(world(20))
        ],
    }
    model.predict = lambda seen, said: [Prediction(Outcome(o, {}, False), 0.1) for o in seen]  # type: ignore[method-assign]
    error = model.calibrate()
    assert error is not None
    assert (model.threshold, error.exact, error.kept, error.n) == (np.inf, 1.0, 1.0, 20)
