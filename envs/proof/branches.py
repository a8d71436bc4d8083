"""Coq as the kernel of a search: any goal of any branch, by the tactics that lead to it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from envs.proof.coq import TACTIC_SECONDS, Coqtop, Lemma, goals_left
from envs.proof.coq_sentences import checked, formal


class CoqBranches:
    """A lemma in a coqtop of its own. A path is the sentences from `Proof.` to a goal; what two
    paths share is not said twice."""

    def __init__(self, lemma: Lemma) -> None:
        self._top = Coqtop()
        if lemma.definitions:
            self._top.say(lemma.definitions)
        self._top.say(f"Lemma sol : {lemma.statement}.")
        self._top.say("Proof.")
        self._states = [self._top.state]
        self._said: tuple[str, ...] = ()
        self.root = self._goal(1)

    def apply(self, path: tuple[str, ...], tactic: str) -> list[tuple[tuple[str, ...], str]] | None:
        """The goals that `tactic` leaves, each with its path; None where Coq, or what may be said
        at all, refuses."""
        try:
            [sentence] = (formal(s, TACTIC_SECONDS) for s in checked(tactic))
            self._go(path)
            self._say(sentence)
        except ValueError:
            return None
        here = (*path, sentence)
        said = self._top.say("Show.")
        left = 0 if "subproof is complete" in said else goals_left(said)
        if left == 0:
            return []
        if left == 1:
            return [(here, self._goal(1))]
        return [((*here, f"{i}: {{"), self._goal(i)) for i in range(1, left + 1)]

    def _go(self, path: Sequence[str]) -> None:
        shared = 0
        while shared < min(len(path), len(self._said)) and path[shared] == self._said[shared]:
            shared += 1
        if shared < len(self._said):
            self._top.back(self._states[shared])
            self._states, self._said = self._states[: shared + 1], self._said[:shared]
        for sentence in path[shared:]:
            self._say(sentence)

    def _say(self, sentence: str) -> None:
        self._top.say(sentence)
        self._states.append(self._top.state)
        self._said += (sentence,)

    def _goal(self, number: int) -> str:
        """Hypotheses, a line, and the conclusion of one goal."""
        said = self._top.say(f"Show {number}.")
        lines = [re.sub(r" \(ID \d+\)", "", line).strip() for line in said.splitlines()]
        kept = [line for line in lines if line and "goal" not in line and not line.startswith("<")]
        return "\n".join(kept)

    def close(self) -> None:
        self._top.close()


FIXED = (
    "intros",
    "split",
    "left",
    "right",
    "assumption",
    "lia",
    "ring",
    "reflexivity",
    "simpl",
    "exfalso",
    "unfold not",
)
ON_A_NAME = ("destruct {}", "apply {}", "induction {}", "rewrite {}")


def names(goal: str) -> list[str]:
    """The hypotheses of a goal, newest first."""
    found = [
        name
        for line in goal.partition("====")[0].splitlines()
        if " : " in line
        for name in line.partition(" : ")[0].replace(",", " ").split()
    ]
    return found[::-1][:6]


def candidates(goal: str) -> list[str]:
    """The tactics tried on a goal: none that is a decision procedure for propositions, so that
    those must be found."""
    return [*FIXED, *(form.format(name) for name in names(goal) for form in ON_A_NAME)]


def shapes(goal: str) -> tuple[str, str]:
    """(the heads of the conclusion and of the newest hypotheses, the head of the conclusion)."""
    above, _, below = goal.partition("====")
    conclusion = head(below.strip("= \n"))
    kinds = [head(line.partition(" : ")[2]) for line in above.splitlines() if " : " in line]
    return f"{conclusion}|{' '.join(sorted(set(kinds)))}", conclusion


def head(formula: str) -> str:
    """The outermost connective of a formula, as far as its text tells."""
    depth, found = 0, set()
    words = re.findall(r"\(|\)|->|/\\|\\/|<=|<|=|~|forall|exists|[\w']+", formula)
    for word in words:
        depth += (word == "(") - (word == ")")
        if depth == 0:
            found.add(word)
    for connective in ("forall", "exists", "->", "\\/", "/\\", "~", "=", "<=", "<"):
        if connective in found:
            return connective
    return (
        "Prop"
        if formula.strip() == "Prop"
        else words[0]
        if words and words[0] in ("nat", "Z", "False")
        else "atom"
    )


def form(goal: str, tactic: str) -> str:
    """A tactic with the kind of the hypothesis that it names in place of its name."""
    word, _, name = tactic.partition(" ")
    if name not in names(goal):
        return tactic
    for line in goal.partition("====")[0].splitlines():
        if name in line.partition(" : ")[0].replace(",", " ").split():
            return f"{word} <{head(line.partition(' : ')[2])}>"
    return tactic
