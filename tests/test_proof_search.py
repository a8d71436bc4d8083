"""AND/OR search: all subgoals must be closed, the kernel has the only word, and what was found is
learned from."""

from __future__ import annotations

import shutil

import pytest

from experience.planning.proof_search import Path, TacticTable, prove


class Sums:
    """Goals are numbers.

    `half` leaves two goals of half of it each, `done` closes 1, `less` leaves one less than it.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[Path, str]] = []

    def apply(self, path: Path, tactic: str) -> list[tuple[Path, str]] | None:
        self.asked.append((path, tactic))
        number = int(self.at(path))
        here = (*path, tactic)
        if tactic == "done":
            return [] if number == 1 else None
        if tactic == "half":
            return (
                [((*here, str(i)), str(number // 2)) for i in (1, 2)] if number % 2 == 0 else None
            )
        return [(here, str(number - 1))] if number > 1 else None

    @staticmethod
    def at(path: Path) -> str:
        number = 8
        for word in path:
            number = number // 2 if word == "half" else number - 1 if word == "less" else number
        return str(number)


def even(_: str) -> dict[str, float]:
    return {"half": 1 / 3, "less": 1 / 3, "done": 1 / 3}


def test_a_proof_closes_every_subgoal_and_its_script_has_them_in_order() -> None:
    outcome = prove(Sums(), "8", lambda _: {"half": 0.9, "done": 0.1}, budget=200)
    assert outcome.proof is not None
    assert outcome.proof.script == ("half", *("half", *("half", "done", "done") * 2) * 2)
    assert outcome.proof.steps[:2] == (("8", "half"), ("4", "half"))


def test_the_budget_is_what_the_kernel_was_asked() -> None:
    kernel = Sums()
    outcome = prove(kernel, "8", lambda _: {"half": 1.0}, budget=5)
    assert outcome.proof is None
    assert outcome.tried == len(kernel.asked) <= 5


def test_a_goal_without_a_way_is_given_up_at_once() -> None:
    kernel = Sums()
    assert prove(kernel, "8", lambda _: {"done": 1.0}, budget=100).proof is None
    assert len(kernel.asked) == 1


def test_what_was_proved_makes_the_next_proof_shorter_to_find() -> None:
    table = TacticTable(
        lambda _: ("less", "half", "done"),
        lambda goal: ("odd" if int(goal) % 2 else "even", "any"),
        lambda _, tactic: tactic,
    )
    first = prove(Sums(), "8", table, budget=400)
    assert first.proof is not None
    for _ in range(3):
        table.learn(first.proof)
    again = prove(Sums(), "8", table, budget=400)
    assert again.proof is not None and again.tried < first.tried


@pytest.mark.skipif(shutil.which("coqtop") is None, reason="./xp setup worlds")
def test_proofs_found_in_branches_of_coq_hold_before_a_fresh_coq() -> None:
    from envs.proof.coq.branches import CoqBranches, candidates, form, shapes
    from envs.proof.coq.judge import judge
    from envs.proof.lemma import Lemma

    lemma = Lemma("proposition", "", "forall P Q : Prop, P /\\ Q -> Q /\\ P")
    kernel = CoqBranches(lemma)
    try:
        outcome = prove(kernel, kernel.root, TacticTable(candidates, shapes, form), budget=400)
        assert outcome.proof is not None
        assert judge(lemma, [t + "." for t in outcome.proof.script]) == ""
        assert (
            judge(
                Lemma("proposition", "", "forall P Q : Prop, P -> Q /\\ P"),
                [t + "." for t in outcome.proof.script],
            )
            != ""
        )
        assert kernel.apply((), "admit") is None, (
            "what the world forbids, a search may not say either"
        )
        assert kernel.apply((), "Axiom a : False") is None
    finally:
        kernel.close()
