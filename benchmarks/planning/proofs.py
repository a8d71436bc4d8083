"""Proof search with Coq as its kernel: theorems solved before and after expert iteration."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.planning.record import Row, row
from envs.proof.coq.branches import CoqBranches, candidates, form, shapes
from envs.proof.coq.judge import judge
from envs.proof.coq.world import Coq
from envs.proof.lemma import Lemma
from experience.planning.proof_search import Outcome, TacticTable, prove


def lemmas(split: str, n: int, seed: int) -> list[Lemma]:
    """Up to `n` different lemmas of a split; two are equal if their contents are."""
    world = Coq()
    rng = np.random.default_rng(seed)
    found = dict[str, Lemma]()
    # The families are finite, so draws repeat: 50 draws a lemma, and fewer lemmas if that fails.
    for _ in range(50 * n):
        lemma = world.tasks(split, rng)  # type: ignore[arg-type]
        if len(found) < n:
            found.setdefault(world.signature(lemma), lemma)
    world.close()
    return list(found.values())


def search(lemma: Lemma, prior: TacticTable, budget: int) -> Outcome:
    kernel = CoqBranches(lemma)
    try:
        return prove(kernel, kernel.root, prior, budget=budget)
    finally:
        kernel.close()


def expert_iteration(
    train: int = 60, held_out: int = 40, rounds: int = 2, budget: int = 24
) -> Iterator[Row]:
    prior = TacticTable(candidates, shapes, form)
    learned_from = lemmas("train", train, 1)
    tests = lemmas("heldout", held_out, 2)
    solved = []
    claimed = 0
    judged = 0
    for number in range(rounds + 1):
        outcomes = [(lemma, search(lemma, prior, budget)) for lemma in tests]
        proofs = [(lemma, o.proof) for lemma, o in outcomes if o.proof is not None]
        claimed += len(proofs)
        # The search's own kernel is trusted with nothing: a new process checks each proof.
        for lemma, proof in proofs:
            judged += judge(lemma, [f"{tactic}." for tactic in proof.script]) == ""
        solved.append([float(o.proof is not None) for _, o in outcomes])
        if number < rounds:
            for lemma in learned_from:
                outcome = search(lemma, prior, 4 * budget)
                if outcome.proof is not None:
                    prior.learn(outcome.proof)
    gain = [after - before for after, before in zip(solved[-1], solved[0], strict=True)]
    yield row(
        f"proof search: held-out theorems solved with {budget} tactics, after {rounds} rounds "
        "less before",
        "AlphaProof: more with every round (plot)",
        "share",
        gain,
        ">= 0.1",
        {f"solved after round {n}": float(np.mean(s)) for n, s in enumerate(solved)},
        "Coq; five generated families, tauto and auto not offered; the prior is a table of "
        "goal shapes",
    )
    yield row(
        "proof search: claimed proofs that a fresh coqc accepts without axioms",
        "all must",
        "share",
        [1.0] * judged + [0.0] * (claimed - judged),
        ">= 1",
        {"claimed": float(claimed)},
    )
