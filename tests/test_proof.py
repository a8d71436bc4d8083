"""Proofs: what a kernel does not accept is worth nothing, whatever the agent says."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

needs_coq = pytest.mark.skipif(shutil.which("coqc") is None, reason="Coq is not installed: ./xp setup proofs")


@pytest.fixture(scope="module")
def coq() -> Any:
    world = gymnasium.make("envs:Coq-v0").unwrapped
    yield world
    world.close()


@needs_coq
@pytest.mark.parametrize("family", range(5))
def test_every_family_of_lemmas_is_provable_and_its_oracle_proves_it(family: int, coq: Any) -> None:
    from envs.proof import coq as module

    for seed in range(6):
        lemma = module.FAMILIES[family](np.random.default_rng([family, seed]))
        assert module.judge(lemma, lemma.proof) == "", lemma
        assert module.judge(lemma, lemma.proof[:-1]), "a proof without its end is none"


@needs_coq
@pytest.mark.parametrize("claim", ["Admitted.", "admit. Admitted.", "exact (match boom with end). Qed. Axiom boom : False."])
def test_the_judge_refuses_what_is_no_proof_even_past_the_filter(claim: str) -> None:
    from envs.proof.coq import Lemma, judge

    assert judge(Lemma("x", "", "1 = 2"), [claim])


@needs_coq
def test_an_axiom_or_another_statement_is_seen_by_the_judge() -> None:
    from envs.proof.coq import Lemma, judge

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
    (tmp_path / "mine.v").write_text("(* mine *) Theorem easy (n : nat) : n + 0 = n. Proof. Admitted.")
    world = gymnasium.make("envs:Coq-v0", lemmas=str(tmp_path)).unwrapped
    world.tasks = lambda split, rng: world.draw(rng)
    seen, _ = world.reset(seed=0)
    assert "forall n : nat, n + 0 = n" in seen
    assert world.step("tactic lia.")[4]["signals"]["proved"][0] == 1.0
