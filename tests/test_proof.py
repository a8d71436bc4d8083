"""Proofs: what a kernel does not accept is worth nothing, whatever the agent says."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

needs_coq = pytest.mark.skipif(
    shutil.which("coqc") is None, reason="Coq is not installed: ./xp setup worlds"
)


@pytest.fixture(scope="module")
def coq() -> Any:
    world = gymnasium.make("envs:Coq-v0").unwrapped
    yield world
    world.close()


@needs_coq
@pytest.mark.parametrize("family", range(5))
def test_every_family_of_lemmas_is_provable_and_its_oracle_proves_it(family: int, coq: Any) -> None:
    from envs.proof.coq.families import FAMILIES
    from envs.proof.coq.judge import judge

    for seed in range(6):
        lemma = FAMILIES[family](np.random.default_rng([family, seed]))
        assert judge(lemma, lemma.proof) == "", lemma
        assert judge(lemma, lemma.proof[:-1]), "a proof without its end is none"


@needs_coq
@pytest.mark.parametrize(
    "claim",
    ["Admitted.", "admit. Admitted.", "exact (match boom with end). Qed. Axiom boom : False."],
)
def test_the_judge_refuses_what_is_no_proof_even_past_the_filter(claim: str) -> None:
    from envs.proof.coq.judge import judge
    from envs.proof.lemma import Lemma

    assert judge(Lemma("x", "", "1 = 2"), [claim])


@needs_coq
def test_an_axiom_or_another_statement_is_seen_by_the_judge() -> None:
    from envs.proof.coq.judge import judge
    from envs.proof.lemma import Lemma

    assert "Axioms" in judge(Lemma("x", "Axiom boom : False.", "1 = 2"), ["destruct boom."])
    assert judge(Lemma("x", "", "1 = 2"), ["Abort.", "Lemma sol : True.", "exact I."])


@needs_coq
def test_a_cheat_is_refused_before_it_reaches_coq(coq: Any) -> None:
    for cheat in coq.cheats:
        coq.reset(seed=1)
        _, reward, terminated, _, info = coq.step(cheat)
        assert not terminated and reward < 0
        assert "proved" not in info["signals"]


@needs_coq
def test_undo_gives_the_goal_before_and_search_changes_nothing(coq: Any) -> None:
    first, _ = coq.reset(seed=2)
    shown, *_ = coq.step("tactic intros.")
    assert shown != first
    searched, *_ = coq.step("search _ + _")
    assert searched.startswith(shown) and "Nat" in searched
    assert coq.step("undo")[0] == first


@needs_coq
def test_lemmas_come_from_a_users_files(tmp_path: Path) -> None:
    (tmp_path / "mine.v").write_text(
        "(* mine *) Theorem easy (n : nat) : n + 0 = n. Proof. Admitted."
    )
    world = gymnasium.make("envs:Coq-v0", lemmas=str(tmp_path)).unwrapped
    world.tasks = lambda split, rng: world.draw(rng)
    seen, _ = world.reset(seed=0)
    assert "forall n : nat, n + 0 = n" in seen
    assert world.step("tactic lia.")[4]["signals"]["proved"][0] == 1.0


needs_metamath = pytest.mark.skipif(
    shutil.which("metamath") is None, reason="Metamath is not installed: ./xp setup worlds"
)


@pytest.fixture(scope="module")
def metamath() -> Any:
    if not Path("/usr/share/metamath/databases/set.mm").exists():
        pytest.skip("set.mm is not installed: ./xp setup worlds")
    return gymnasium.make("envs:Metamath-v0").unwrapped


@needs_metamath
def test_the_kernel_accepts_every_short_proof_of_set_mm_and_metamath_agrees(metamath: Any) -> None:
    from envs.proof.metamath import _tasks, second_opinion
    from envs.proof.metamath_kernel import Proof

    tasks = _tasks(*metamath._where, 25)
    assert len(tasks["train"]) > 500 and len(tasks["heldout"]) > 200
    for number, (label, steps) in enumerate([*tasks["train"], *tasks["heldout"]]):
        goal = metamath.database.assertions[label]
        proof = Proof(metamath.database, goal)
        for step in steps:
            proof.push(step)
        assert proof.complete, label
        if number % 60 == 0:
            assert second_opinion(metamath.database, goal, list(steps)) == ""


@needs_metamath
def test_both_judges_refuse_a_proof_that_is_changed_anywhere(metamath: Any) -> None:
    from envs.proof.metamath import _tasks, second_opinion
    from envs.proof.metamath_kernel import Proof

    rng = np.random.default_rng(0)
    refused = 0
    for label, steps in _tasks(*metamath._where, 25)["train"][40:60]:
        goal = metamath.database.assertions[label]
        changed = list(steps)
        at = int(rng.integers(len(changed)))
        changed[at] = str(
            rng.choice(
                [s for s in ("ax-1", "ax-2", "ax-mp", "wph", "wi", "syl", "?") if s != changed[at]]
            )
        )
        proof = Proof(metamath.database, goal)
        try:
            for step in changed:
                proof.push(step)
            ours = proof.complete
        except ValueError:
            ours = False
        theirs = second_opinion(metamath.database, goal, changed) == ""
        assert ours == theirs, (label, changed)
        refused += not ours
    assert refused >= 18


@needs_metamath
def test_a_theorem_may_not_be_proved_by_itself_or_by_a_later_one(metamath: Any) -> None:
    metamath.reset(seed=3)
    for label in (metamath.task[0], list(metamath.database.assertions)[-1]):
        _, _, terminated, _, info = metamath.step(f"push {label}")
        assert not terminated and info["signals"]["refused"][0] == 1.0


def test_variables_that_must_be_distinct_are(tmp_path: Path) -> None:
    from envs.proof.metamath_kernel import Database, Proof

    (
        tmp_path / "a.mm"
    ).write_text("""$c |- wff set = $. $v x y z $. vx $f set x $. vy $f set y $. vz $f set z $.
        ${ $d x y $. ax-d $a |- x = y $. $}  ${ $d x z $. good $p |- x = z $= vx vz ax-d $. $}  bad $p |- x = x $= vx vx ax-d $.
        worse $p |- x = z $= vx vz ax-d $.""")
    database = Database(tmp_path / "a.mm", 10)
    for label, fine in (("good", True), ("bad", False), ("worse", False)):
        proof = Proof(database, database.assertions[label])
        proof.push("vx")
        proof.push(database.assertions[label].proof[1])
        if fine:
            proof.push("ax-d")
            assert proof.complete
        else:
            with pytest.raises(ValueError, match="distinct"):
                proof.push("ax-d")
