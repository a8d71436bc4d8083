"""Families of lemmas for Coq, each with a proof that a person wrote.

Numbers and names are drawn, so that a family holds many different lemmas. The proof is for the
oracle and for tests; the agent does not see it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from envs.proof.lemma import Lemma


def _proposition(rng: np.random.Generator) -> Lemma:
    a, b, c = (str(x) for x in rng.choice(list("PQRSTU"), 3, replace=False))
    made = [
        f"{a} /\\ {b} -> {b} /\\ {a}",
        f"({a} -> {b}) -> ({b} -> {c}) -> {a} -> {c}",
        f"{a} \\/ {b} -> ({a} -> {c}) -> ({b} -> {c}) -> {c}",
        f"{a} /\\ ({b} \\/ {c}) -> {a} /\\ {b} \\/ {a} /\\ {c}",
        f"~ ({a} \\/ {b}) -> ~ {a} /\\ ~ {b}",
        f"({a} -> {b} -> {c}) -> {a} /\\ {b} -> {c}",
        f"{a} -> ~ ~ {a}",
        f"({a} -> {b}) -> ~ {b} -> ~ {a}",
    ]
    statement = made[rng.integers(len(made))]
    return Lemma("proposition", "", f"forall {a} {b} {c} : Prop, {statement}", ("tauto.",))


def _linear(rng: np.random.Generator) -> Lemma:
    k, m, n = (int(x) for x in rng.integers(1, 30, 3))
    made = [
        f"forall a b : nat, a <= b -> a + {k} <= b + {k + m}",
        f"forall a b : nat, a + {k} < b -> {m} * a < {m} * b",
        f"forall x y : Z, (x + {k} = y -> {m} * x + {k * m} = {m} * y)%Z",
        f"forall a : nat, {k} < a -> exists b, a = b + {k}",
        f"forall a b c : nat, a < b -> b < c -> a + {min(k, 2)} <= c + {n}",
    ]
    which = int(rng.integers(len(made)))
    proof: tuple[str, ...] = ("intros.", "lia.")
    if made[which].startswith("forall a : nat"):
        # lia finds no witness for `exists` by itself.
        proof = ("intros a h.", f"exists (a - {k}).", "lia.")
    return Lemma("linear", "", made[which], proof)


def _ring(rng: np.random.Generator) -> Lemma:
    k, m = (int(x) for x in rng.integers(2, 20, 2))
    made = [
        f"forall x : Z, ((x + {k}) * (x - {k}) = x * x - {k * k})%Z",
        f"forall x y : Z, ((x + {k} * y) * (x + {m} * y) = "
        f"x * x + {k + m} * (x * y) + {k * m} * (y * y))%Z",
        f"forall x y : Z, ({k} * (x + y) * {m} = {k * m} * y + {k * m} * x)%Z",
        f"forall x : Z, ((x + {k}) * (x + {k}) * (x + {k}) = "
        f"x * x * x + {3 * k} * (x * x) + {3 * k * k} * x + {k**3})%Z",
    ]
    return Lemma("ring", "", made[rng.integers(len(made))], ("intros.", "ring."))


def _recursion(rng: np.random.Generator) -> Lemma:
    k, c = (int(x) for x in rng.integers(1, 12, 2))
    define = f"Fixpoint f (n : nat) : nat := match n with O => {c} | S m => {k} + f m end."
    made = [
        f"forall n, f n = {c} + {k} * n",
        f"forall n, {c} <= f n",
        "forall n m, n <= m -> f n <= f m",
        f"forall n, f (S n) = f n + {k}",
    ]
    which = int(rng.integers(len(made)))
    proofs = [
        ("induction n as [|n h].", "reflexivity.", "simpl.", "lia."),
        ("induction n as [|n h].", "simpl.", "lia.", "simpl.", "lia."),
        ("intros n m h.", "induction h as [|m h i].", "lia.", "simpl.", "lia."),
        ("intros n.", "simpl.", "lia."),
    ]
    return Lemma("recursion", define, made[which], proofs[which])


def _lists(rng: np.random.Generator) -> Lemma:
    k = int(rng.integers(1, 12))
    made: list[tuple[str, tuple[str, ...]]] = [
        (
            f"forall l : list nat, length (map (fun x => x + {k}) l) = length l",
            ("intros l.", "apply map_length."),
        ),
        (
            f"forall l m : list nat, length (l ++ m ++ repeat {k} {k}) = length l + length m + {k}",
            ("intros l m.", "repeat rewrite app_length.", "rewrite repeat_length.", "lia."),
        ),
        (
            "forall l : list nat, "
            f"map (fun x => x + 0) (l ++ [{k}]) = map (fun x => x) (l ++ [{k}])",
            ("intros l.", "apply map_ext.", "intros a.", "lia."),
        ),
        (
            f"forall l m : list nat, rev (l ++ [{k}] ++ m) = rev m ++ [{k}] ++ rev l",
            (
                "intros l m.",
                "repeat rewrite rev_app_distr.",
                "simpl.",
                "rewrite app_assoc_reverse.",
                "reflexivity.",
            ),
        ),
        (
            f"forall (l : list nat) (x : nat), In x l -> In (x + {k}) (map (fun y => y + {k}) l)",
            ("intros l x h.", f"exact (in_map (fun y => y + {k}) l x h)."),
        ),
    ]
    statement, proof = made[rng.integers(len(made))]
    return Lemma("list", "", statement, proof)


FAMILIES: tuple[Callable[[np.random.Generator], Lemma], ...] = (
    _proposition,
    _linear,
    _ring,
    _recursion,
    _lists,
)
