"""The parts of world models: the gate by hand, numbers as text, and which transitions are drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from experience.errors import RecordError
from experience.models.tokenizer import ByteTokenizer
from experience.planning.world_models.change import Outcome, apply, event, write_change
from experience.planning.world_models.gate import (
    first_threshold,
    gate,
    gates,
    judged,
    question,
    use_of,
)
from experience.planning.world_models.number_form import NumberForm, form_of, written
from experience.planning.world_models.number_transitions import NumberTransitions
from experience.planning.world_models.retrieval import Memory
from experience.planning.world_models.transitions import LONGEST_CHANGE, Transitions
from experience.planning.world_models.world_model import outcome_of
from experience.policy import Decision
from experience.signal import Signal
from experience.step import Step
from tests.conftest import make_step

TEN = np.arange(1.0, 11.0)


def right(*wrong: int) -> np.ndarray:
    """bool [10]: all right but the numbers in `wrong`, counted from 1."""
    return np.array([n not in wrong for n in range(1, 11)])


@pytest.mark.parametrize(
    ("accuracy", "wrong", "threshold"),
    [
        (1.0, (), 10.0),
        (0.9, (9,), 10.0),
        (0.95, (9,), 8.0),
        (0.85, (8, 9, 10), 8.0),
        (0.9, (1,), 10.0),
        (0.9, (1, 2), -math.inf),
    ],
)
def test_the_gate_is_the_largest_uncertainty_up_to_which_enough_is_right(
    accuracy: float, wrong: tuple[int, ...], threshold: float
) -> None:
    """(9,): 9 of 10 are right up to 10, 8 of 8 up to 8. (8, 9, 10): 7 of 8 = .875 up to 8."""
    assert gate(TEN, right(*wrong), accuracy) == threshold


def test_the_gate_does_not_depend_on_the_order_of_the_predictions() -> None:
    order = np.random.default_rng(0).permutation(10)
    assert gate(TEN[order], right(9)[order], 0.95) == 8.0


def test_fewer_than_eight_predictions_open_no_gate() -> None:
    assert gate(TEN[:7], right()[:7], 0.5) == -math.inf
    assert gate(TEN[:8], right()[:8], 0.5) == 8.0
    assert gate(np.empty(0), np.empty(0, bool), 0.5) == -math.inf


def test_equal_uncertainties_pass_together_or_not_at_all() -> None:
    """Of four at 9, two are wrong: 10 of 12 are right, whichever of them come first."""
    uncertainty = np.array([*range(1, 9), 9, 9, 9, 9], float)
    correct = np.array([True] * 8 + [True, True, False, False])
    assert gate(uncertainty, correct, 0.9) == 8.0
    assert gate(uncertainty, correct, 10 / 12) == 9.0


def test_two_gates_are_one_threshold_and_a_shift_of_events() -> None:
    """Plain predictions pass up to 10; events, 5 to 14, are right up to 12: their shift is −2."""
    uncertainty = np.concatenate([TEN, TEN + 4])
    events = np.array([False] * 10 + [True] * 10)
    correct = np.concatenate([right(), right(9, 10)])
    threshold, shift = gates(uncertainty, correct, events, 1.0)
    assert (threshold, shift) == (10.0, 10.0 - 12.0)
    assert uncertainty[17] + shift == threshold, "the eighth event just passes"


def test_events_that_are_never_right_enough_never_pass() -> None:
    events = np.array([False] * 10 + [True] * 10)
    correct = np.concatenate([right(), np.zeros(10, bool)])
    threshold, shift = gates(np.concatenate([TEN, TEN]), correct, events, 0.9)
    assert threshold == 10.0 and shift > 1e5 and math.isfinite(shift)


def test_where_all_outcomes_are_events_their_gate_is_the_threshold() -> None:
    assert gates(TEN, right(9), np.ones(10, bool), 0.95) == (8.0, 0.0)
    assert gates(TEN, ~right(), np.ones(10, bool), 0.95) == (-math.inf, 0.0)


def test_an_infinite_uncertainty_passes_no_gate_even_an_open_one() -> None:
    """Two of three pass; one of them is right. Of the two wrong ones one is less certain."""
    uncertainty = np.array([1.0, 2.0, math.inf])
    error = judged(
        uncertainty, np.array([True, False, False]), np.array([False, False, True]), math.inf
    )
    assert (error.exact, error.copy, error.n) == (pytest.approx(1 / 3), pytest.approx(1 / 3), 3)
    assert (error.kept, error.exact_kept) == (pytest.approx(2 / 3), 0.5)
    assert error.auroc == 1.0


def test_a_shut_gate_keeps_nothing_and_has_no_accuracy() -> None:
    error = judged(TEN, right(1), right(), -math.inf)
    assert (error.kept, error.exact_kept, error.exact) == (0.0, None, 0.9)
    assert first_threshold(0.9) == -math.inf and first_threshold(0.0) == math.inf


def test_one_pair_in_eight_is_held_out_in_two_halves_and_always_the_same_ones() -> None:
    uses = [use_of(f"page {n}", "go") for n in range(4000)]
    shares = {use: uses.count(use) / 4000 for use in ("fitted", "gate", "measured")}
    assert shares["fitted"] == pytest.approx(7 / 8, abs=0.02)
    assert shares["gate"] == pytest.approx(1 / 16, abs=0.015)
    assert shares["measured"] == pytest.approx(1 / 16, abs=0.015)
    assert uses == [use_of(f"page {n}", "go") for n in range(4000)]


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ("a\nb", "a\nc", "@1 c\ngo"),
        ("a\nb\nc", "a", "@1\ngo"),
        ("a", "a\nb\nc", "@1 b\n@2 c\ngo"),
        ("a\nb\nc", "x\nb", "@0 x\n@2\ngo"),
        ("same", "same", "go"),
        ("a", "", "@0 \ngo"),
    ],
)
def test_a_change_names_the_lines_that_differ_and_where_the_text_stops(
    before: str, after: str, change: str
) -> None:
    outcome = Outcome(after, {}, False)
    assert write_change(before, outcome) == change
    assert apply(before, change) == outcome


@pytest.mark.parametrize(
    ("signals", "ended", "said"),
    [
        ({}, False, "go"),
        ({"b": 1.0, "a": -0.5}, False, "go a=-0.5 b=1"),
        ({"small": 0.004, "less": -0.004}, True, "end"),
        ({"rounded": 0.005001}, False, "go rounded=0.01"),
        ({"a b": 100.0}, True, "end a%20b=100"),
    ],
)
def test_an_event_is_the_end_and_the_signals_that_are_not_zero(
    signals: dict[str, float], ended: bool, said: str
) -> None:
    assert event(Outcome("x", signals, ended)) == said


def test_numbers_are_read_in_their_order_and_written_back_in_their_places() -> None:
    form = NumberForm()
    assert form.read("speed -1.50, at 3e2 of 7").tolist() == [-1.5, 300.0, 7.0]
    assert form.size == 3
    assert form.fits("speed 0.1, at 1 of 2") and not form.fits("speed 0.1")
    assert (
        written("speed -1.50, at 3e2 of 7", np.array([2.0, 0.25, 8.0])) == "speed 2, at 0.25 of 8"
    )


def test_an_observation_of_another_form_is_refused_with_both_forms() -> None:
    form = NumberForm()
    form.read("speed 1")
    with pytest.raises(RecordError, match=r"height #.*speed #"):
        form.read("height 1")


@pytest.mark.parametrize(
    ("seen", "number", "said"),
    [
        ("1", 1234.5678, "1235"),
        ("1", 0.00012345, "0.0001234"),
        ("1.25", 1234.5678, "1234.57"),
        ("1", 0.0, "0"),
        ("1", 1e20, "1e+20"),
        ("1", -2.0, "-2"),
    ],
)
def test_a_number_is_written_with_four_digits_or_as_finely_as_the_world_writes_it(
    seen: str, number: float, said: str
) -> None:
    assert written(seen, np.array([number])) == said


def test_a_hash_in_the_text_is_no_number() -> None:
    assert form_of("room #4") == "room No.#"
    form = NumberForm()
    assert form.read("room #4").tolist() == [4.0] and form.size == 1


def turn(
    seen: str, action: str, after: str, done: float | None = 0.0, *, ended: bool = False
) -> tuple[Step, Step]:
    step = make_step(
        0,
        obs_text=seen,
        decision=Decision(action, 0),
        signals=(Signal("done", done, "1", "env_state"),),
        reward=None,
        ending="terminated" if ended else "none",
    )
    return step, make_step(1, closing=True, obs_text=after)


def fitted_page(first: int = 0) -> str:
    """A page whose transitions by `go` are fitted, not held out."""
    return next(f"page {n}" for n in range(first, 999) if use_of(f"page {n}", "go") == "fitted")


def test_an_outcome_leaves_out_what_is_unknown() -> None:
    assert outcome_of(*turn("a", "go", "b", None)) == Outcome("b", {}, False)
    assert outcome_of(*turn("a", "go", "b", 0.5, ended=True)) == Outcome("b", {"done": 0.5}, True)


def test_a_model_is_fitted_neither_to_unknown_signals_nor_to_changes_that_are_too_long() -> None:
    page = fitted_page()
    transitions = Transitions(context=64, retrieve=0)
    transitions.add([turn(page, "go", "x", None), turn(page, "go", "y" * LONGEST_CHANGE)])
    closing = turn(page, "go", "x")[1]
    transitions.add([(closing, closing)])
    assert transitions.fitted == [] and transitions.too_long == 1
    transitions.add([turn(page, "go", "z")])
    assert transitions.fitted == [(question(page, "go"), "@0 z\ngo")]


def test_one_draw_of_four_is_by_event_so_that_rare_ones_are_seen() -> None:
    """Of 200 fitted transitions one has a reward: uniform draws alone show it once in 200."""
    pages = [p for n in range(999) if use_of(p := f"page {n}", "go") == "fitted"][:200]
    transitions = Transitions(context=64, retrieve=0)
    transitions.add([turn(page, "go", page, float(page == pages[50])) for page in pages])
    drawn = transitions.draw(400, np.random.default_rng(0))
    changes = [ByteTokenizer().text(t.action) for t in drawn]
    assert len(drawn) == 400 and set(changes) == {"go", "go done=1"}
    assert 30 <= changes.count("go done=1") <= 75, "half of a quarter, and two more"


def test_a_question_longer_than_the_context_keeps_its_first_and_its_last_tokens() -> None:
    (prompt,) = Transitions(context=10, retrieve=0).prompts(["a" * 50 + "b" * 50])
    assert len(prompt) == 10
    assert (prompt[0], prompt[-1]) == (ByteTokenizer.BEGIN, ByteTokenizer.ACT)
    assert ByteTokenizer().text(prompt) == "aaaabbbb"


def test_similar_transitions_stand_before_a_question_and_never_its_own() -> None:
    pages = [fitted_page(), fitted_page(500)]
    transitions = Transitions(context=64, retrieve=1)
    transitions.add([turn(pages[0], "go", "first"), turn(pages[1], "go", "second")])
    asked = question(pages[0], "go")
    (seen,) = transitions.prompts([asked])
    (other,) = transitions.prompts([asked], without=[0])
    tokens = ByteTokenizer()
    assert tokens.text(seen) == f"{asked}\n= @0 first\ngo\n\n{asked}"
    assert tokens.text(other) == f"{question(pages[1], 'go')}\n= @0 second\ngo\n\n{asked}"


def test_a_memory_that_was_replaced_knows_the_new_texts_alone() -> None:
    transitions = Transitions(context=64, retrieve=2)
    transitions.add([turn(fitted_page(), "go", "old")])
    transitions.replace([("red door\n> open", "go"), ("blue door\n> open", "end")])
    (prompt,) = transitions.prompts(["red door\n> open"])
    assert ByteTokenizer().text(prompt) == (
        "blue door\n> open\n= end\n\nred door\n> open\n= go\n\nred door\n> open"
    )


def test_words_that_all_texts_share_do_not_decide_what_is_alike() -> None:
    memory = Memory()
    memory.add(10, [f"the the the the page about {word}" for word in ("tea", "jam", "rye")])
    assert memory.nearest(["tea"], 1) == [[10]] and memory.nearest(["about rye"], 1) == [[12]]
    memory.add(13, [])
    assert len(memory) == 3 and memory.nearest(["tea"], 0) == [[]]


def test_rows_of_numbers_are_input_change_signals_and_end() -> None:
    seen = next(f"x {n} y 2" for n in range(99) if use_of(f"x {n} y 2", "go") == "fitted")
    x = float(seen.split()[1])
    transitions = NumberTransitions(("stay", "go"), ("done", "cost"))
    transitions.add([turn(seen, "go", f"x {x + 1.5} y 0", 1.0, ended=True)])
    (row,) = transitions.rows
    assert row.given.tolist() == [x, 2.0, 0.0, 1.0], "the numbers, then the action, one-hot"
    assert row.change.tolist() == [1.5, -2.0]
    assert (row.signals.tolist(), row.ended) == ([1.0, 0.0], 1.0)


def test_unlisted_actions_and_unknown_signals_are_no_rows() -> None:
    transitions = NumberTransitions(("go",), ("done",))
    transitions.add([turn("x 1", "jump", "x 2"), turn("x 1", "go", "x 2", None)])
    assert transitions.rows == [] and transitions.form.form is None


def test_a_guess_is_near_if_each_number_is_and_the_end_is_the_same() -> None:
    transitions = NumberTransitions(("go",), ())
    near = np.array([0.5, 0.1])
    truth = Outcome("x 1 y 1", {}, False)
    guesses = {"x 1.4 y 0.95": True, "x 1.6 y 1": False, "x 1 y 1.2": False}
    for text, is_near in guesses.items():
        assert transitions.is_near("x 0 y 0", truth, near, Outcome(text, {}, False)) is is_near
    assert not transitions.is_near("x 0 y 0", truth, near, Outcome("x 1 y 1", {}, True))
    assert not transitions.is_near("x 0 y 0", truth, near, None)


def test_large_numbers_may_differ_by_what_single_precision_cannot_hold() -> None:
    transitions = NumberTransitions(("go",), ())
    truth = Outcome("x 16777216", {}, False)
    guess = Outcome("x 16777217", {}, False)
    assert transitions.is_near("x 16777216", truth, np.array([0.0]), guess)
    small = Outcome("x 17", {}, False)
    assert not transitions.is_near("x 16", Outcome("x 16", {}, False), np.array([0.0]), small)
