"""Families of theorems for Lean, each with a proof that a person wrote.

Numbers and names are drawn, so that a family holds many different theorems. None needs Mathlib. The
proof is for the oracle and for tests; the agent does not see it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from envs.proof.lemma import Lemma


def _proposition(rng: np.random.Generator) -> Lemma:
    a, b, c = (str(x) for x in rng.choice(list("PQRSTU"), 3, replace=False))
    made = [
        (f"{a} ∧ {b} → {b} ∧ {a}", ("intro h", "constructor", "exact h.2", "exact h.1")),
        (f"({a} → {b}) → ({b} → {c}) → {a} → {c}", ("intro f g x", "exact g (f x)")),
        (f"{a} ∨ {b} → ({a} → {c}) → ({b} → {c}) → {c}", ("intro h f g", "exact h.elim f g")),
        (f"{a} → ¬ ¬ {a}", ("intro x f", "exact f x")),
    ]
    statement, proof = made[rng.integers(len(made))]
    return Lemma(
        "proposition", "", f"∀ {a} {b} {c} : Prop, {statement}", (f"intro {a} {b} {c}", *proof)
    )


def _linear(rng: np.random.Generator) -> Lemma:
    k, m = (int(x) for x in rng.integers(1, 30, 2))
    made = [
        f"∀ a b : Nat, a ≤ b → a + {k} ≤ b + {k + m}",
        f"∀ x y : Int, x + {k} = y → {m} * x + {k * m} = {m} * y",
        f"∀ a b : Nat, (a + b) * {k} = b * {k} + a * {k}",
        f"∀ a b : Nat, a + {k} < b → {m} * a < {m} * b",
    ]
    return Lemma("linear", "", made[rng.integers(len(made))], ("intros", "omega"))


def _lists(rng: np.random.Generator) -> Lemma:
    k = int(rng.integers(1, 12))
    made = [
        f"∀ l : List Nat, (l.map (fun x => x + {k})).length = l.length",
        f"∀ l m : List Nat, (l ++ m ++ [{k}]).length = l.length + m.length + 1",
        f"∀ l m : List Nat, (l ++ {k} :: m).reverse = m.reverse ++ {k} :: l.reverse",
    ]
    return Lemma("list", "", made[rng.integers(len(made))], ("intros", "simp"))


FAMILIES: tuple[Callable[[np.random.Generator], Lemma], ...] = (_proposition, _linear, _lists)
