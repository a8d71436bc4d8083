"""The tree of a proof search: values by hand, which tactic is asked next, and when it gives up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import pytest

from experience.planning.proof_search import (
    STEP,
    UNKNOWN,
    Attempt,
    Goal,
    Outcome,
    Path,
    Proof,
    TacticTable,
    prove,
)

Rules = Mapping[tuple[str, str], Sequence[str]]
"""(goal, tactic) -> the goals it leaves; what is not listed is refused."""


class Written:
    """A kernel whose answers are written down, and that remembers what it was asked."""

    def __init__(self, rules: Rules, root: str = "goal") -> None:
        self.rules = rules
        self.asked: list[tuple[str, str]] = []
        self._texts: dict[Path, str] = {(): root}

    def apply(self, path: Path, tactic: str) -> list[tuple[Path, str]] | None:
        text = self._texts[path]
        self.asked.append((text, tactic))
        if (text, tactic) not in self.rules:
            return None
        left = [((*path, tactic, str(i)), t) for i, t in enumerate(self.rules[text, tactic])]
        self._texts |= dict(left)
        return left


def evenly(*tactics: str) -> Callable[[str], dict[str, float]]:
    return lambda _: {tactic: 1 / len(tactics) for tactic in tactics}


def search(kernel: Written, prior: Callable[[str], Mapping[str, float]], **how: float) -> Outcome:
    settings = {"budget": 100, **how}
    return prove(kernel, "goal", prior, **settings)  # type: ignore[arg-type]


def test_a_goal_is_worth_one_when_closed_nothing_when_hopeless_and_else_its_best_tactic() -> None:
    goal = Goal((), "goal")
    assert goal.value == UNKNOWN == 0.4
    goal.tactics = {
        "a": Attempt(0.5, visits=4, total=1.2),
        "b": Attempt(0.5, visits=2, total=1.0),
        "never tried": Attempt(0.5),
    }
    assert goal.value == 0.5
    goal.hopeless = True
    assert goal.value == 0.0
    goal.closed_by = "a"
    assert goal.value == 1.0


def test_a_tactic_is_worth_the_product_of_its_subgoals_less_the_cost_of_a_step() -> None:
    """.95·.4·.4 = .152 at first; .95·1·.4 = .38 once one subgoal is closed: a mean of .266."""
    one, other = Goal((), "one"), Goal((), "other")
    attempt = Attempt(1.0, goals=[one, other])
    attempt.back_up()
    assert attempt.mean == pytest.approx(0.152)
    one.closed_by = "done"
    attempt.back_up()
    assert attempt.mean == pytest.approx(0.266)
    assert not attempt.closed
    other.closed_by = "done"
    assert attempt.closed


def test_a_tactic_with_a_hopeless_subgoal_is_refused_and_earns_nothing_more() -> None:
    attempt = Attempt(1.0, goals=[Goal((), "one"), Goal((), "other", hopeless=True)])
    attempt.back_up()
    assert attempt.refused
    assert (attempt.visits, attempt.total) == (1, 0.0)


def test_a_tactic_that_leaves_no_goal_is_worth_a_whole_step() -> None:
    attempt = Attempt(1.0, goals=[])
    attempt.back_up()
    assert attempt.closed and attempt.mean == STEP == 0.95


def test_the_likeliest_tactic_is_asked_first_and_one_that_was_refused_never_again() -> None:
    kernel = Written({("goal", "c"): []})
    outcome = search(kernel, lambda _: {"a": 0.2, "b": 0.7, "c": 0.1})
    assert kernel.asked == [("goal", "b"), ("goal", "a"), ("goal", "c")]
    assert outcome.proof is not None and outcome.proof.script == ("c",)
    assert outcome.tried == 3


def test_exploration_decides_between_a_known_tactic_and_one_that_was_not_tried() -> None:
    """After `a` left one goal: a is worth .95·.4 = .38, and b .4 as unknown. With c = 1.5 and N = 1:
    .38 + 1.5·.9·√2/2 = 1.335 against .4 + 1.5·.1·√2 = .612. With c = 0: .38 against .4."""
    rules = {("goal", "a"): ["next"], ("next", "a"): [], ("goal", "b"): []}

    def prior(_: str) -> dict[str, float]:
        return {"a": 0.9, "b": 0.1}

    eager, greedy = Written(rules), Written(rules)
    assert search(eager, prior).proof == Proof(("a", "a"), (("goal", "a"), ("next", "a")))
    assert search(greedy, prior, exploration=0.0).proof == Proof(("b",), (("goal", "b"),))
    assert eager.asked == [("goal", "a"), ("next", "a")]
    assert greedy.asked == [("goal", "a"), ("goal", "b")]


def test_a_tactic_that_gives_the_goal_back_is_no_progress() -> None:
    kernel = Written({("goal", "swap"): ["goal", "other"], ("goal", "done"): []})
    outcome = search(kernel, lambda _: {"swap": 0.99, "done": 0.01})
    assert kernel.asked == [("goal", "swap"), ("goal", "done")]
    assert outcome.proof is not None and outcome.proof.script == ("done",)


def test_all_subgoals_must_be_closed_and_one_that_cannot_be_ends_the_tactic() -> None:
    """`split` leaves an easy goal and an impossible one: nothing more is asked of it after that."""
    rules = {("goal", "split"): ["impossible", "easy"], ("goal", "long"): []}
    rules |= {("easy", "split"): []}
    kernel = Written(rules)
    outcome = search(kernel, lambda _: {"split": 0.9, "long": 0.1})
    assert outcome.proof is not None and outcome.proof.script == ("long",)
    assert kernel.asked == [
        ("goal", "split"),
        ("impossible", "split"),
        ("impossible", "long"),
        ("goal", "long"),
    ], "the easy half is of no use without the other"


def test_the_hardest_open_subgoal_is_worked_on_first() -> None:
    """Of two subgoals of the same value, the less visited; then the other, until both are closed."""
    rules = {("goal", "go"): ["left", "right"], ("left", "go"): ["more"]}
    rules |= {("more", "go"): [], ("right", "go"): []}
    kernel = Written(rules)
    outcome = search(kernel, evenly("go"))
    assert outcome.proof is not None
    assert kernel.asked[:2] == [("goal", "go"), ("left", "go")]
    assert kernel.asked[2] == ("more", "go"), "left is worth .38 by then, and right still .4"
    assert outcome.proof.script == ("go", "go", "go", "go")


def test_a_script_goes_through_the_subgoals_in_their_order_and_not_in_the_order_of_search() -> None:
    rules = {("goal", "split"): ["first", "second"], ("first", "b"): [], ("second", "c"): ["third"]}
    rules |= {("third", "d"): []}
    outcome = search(Written(rules), evenly("split", "b", "c", "d"))
    assert outcome.proof is not None
    assert outcome.proof.script == ("split", "b", "c", "d")
    assert outcome.proof.steps == (
        ("goal", "split"),
        ("first", "b"),
        ("second", "c"),
        ("third", "d"),
    )


def test_a_branch_ends_at_the_depth_that_is_allowed() -> None:
    """Each goal leaves the next number, without end: three tactics deep, and then it is hopeless."""
    rules = {(text, "on"): [f"{text}+"] for text in ("goal" + "+" * n for n in range(20))}
    kernel = Written(rules)
    outcome = search(kernel, evenly("on"), deepest=3)
    assert outcome == Outcome(None, 3)
    assert [text for text, _ in kernel.asked] == ["goal", "goal+", "goal++"]


def test_a_proof_as_long_as_the_depth_allows_is_found() -> None:
    rules = {("goal", "on"): ["goal+"], ("goal+", "on"): ["goal++"], ("goal++", "on"): []}
    outcome = search(Written(rules), evenly("on"), deepest=3)
    assert outcome.proof is not None and outcome.proof.script == ("on", "on", "on")
    assert search(Written(rules), evenly("on"), deepest=2).proof is None


def test_a_goal_without_candidates_costs_the_kernel_nothing() -> None:
    kernel = Written({})
    assert search(kernel, lambda _: {}) == Outcome(None, 0)
    assert kernel.asked == []


def test_a_subgoal_without_candidates_sends_the_search_to_another_tactic() -> None:
    rules = {("goal", "a"): ["dead end"], ("goal", "b"): []}

    def prior(goal: str) -> dict[str, float]:
        return {} if goal == "dead end" else {"a": 0.9, "b": 0.1}

    outcome = search(Written(rules), prior)
    assert outcome.proof is not None and outcome.proof.script == ("b",)
    assert outcome.tried == 2, "what has no candidates was not asked"


@pytest.mark.parametrize("budget", [1, 2, 3, 7])
def test_a_search_that_finds_nothing_asks_as_often_as_its_budget_says(budget: int) -> None:
    rules = {(text, t): [f"{text}{t}"] for n in range(8) for text in words(n) for t in "ab"}
    kernel = Written(rules)
    outcome = search(kernel, evenly("a", "b"), budget=budget)
    assert outcome.proof is None
    assert outcome.tried == len(kernel.asked) == budget


def words(n: int) -> list[str]:
    """`goal`, continued by each word of n letters a and b."""
    return ["goal" + "".join(letters) for letters in product("ab", repeat=n)]


def table(**how: Callable[..., object]) -> TacticTable:
    settings: dict[str, Callable[..., object]] = {
        "candidates": lambda _: ("a", "b"),
        "shapes": lambda goal: (goal, "any"),
        "form": lambda _, tactic: tactic,
    }
    return TacticTable(**(settings | how))  # type: ignore[arg-type]


def test_a_table_that_knows_nothing_offers_each_candidate_alike_and_once() -> None:
    assert table(candidates=lambda _: ("a", "b", "a"))("x") == {"a": 0.5, "b": 0.5}
    assert table(candidates=lambda _: ())("x") == {}


def test_a_step_counts_one_for_its_shape_and_a_half_for_the_coarse_one() -> None:
    """Same shape: a weighs ½ + 1 + ½ = 2 against ½. Another shape: ½ + ½ = 1 against ½."""
    prior = table()
    prior.learn(Proof(("a",), (("x", "a"),)))
    assert prior("x") == pytest.approx({"a": 0.8, "b": 0.2})
    assert prior("y") == pytest.approx({"a": 2 / 3, "b": 1 / 3})


def test_what_is_learned_of_one_hypothesis_holds_for_the_next() -> None:
    prior = table(
        candidates=lambda goal: (f"apply {goal}", "intro"),
        shapes=lambda _: ("implication", "any"),
        form=lambda goal, tactic: tactic.replace(goal, "H"),
    )
    prior.learn(Proof(("apply H1",), (("H1", "apply H1"),)))
    assert prior("H2") == pytest.approx({"apply H2": 0.8, "intro": 0.2})


def test_a_proof_that_was_learned_is_found_again_with_few_questions() -> None:
    """Ten candidates a goal, of which one closes it: after two proofs it is asked first at each."""
    right = {"goal": "t7", "one": "t3", "two": "t5"}
    rules = {("goal", "t7"): ["one", "two"], ("one", "t3"): [], ("two", "t5"): []}
    prior = table(candidates=lambda _: [f"t{i}" for i in range(10)])
    first = prove(Written(rules), "goal", prior, budget=100)
    assert first.proof is not None and first.tried > 15
    prior.learn(first.proof)
    prior.learn(first.proof)
    again = prove(Written(rules), "goal", prior, budget=100)
    assert again.proof is not None and again.tried <= 5
    assert dict(again.proof.steps) == right
