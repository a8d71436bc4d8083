"""Coq as the kernel of a proof search, and the tactics that the search tries on a goal.

A goal of any branch is named by the path of tactics that leads to it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from envs.proof.coq.coqtop import TACTIC_SECONDS, Coqtop, goals_left, without_goal_ids
from envs.proof.coq.sentences import checked, formal
from envs.proof.lemma import Lemma


class CoqBranches:
    """A lemma in a coqtop of its own.

    A path is the sentences from `Proof.` to a goal. Sentences that a path shares with the path
    before it are not said again: coqtop goes back to the last state that both have.
    """

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
        """The goals that `tactic` leaves, each with its path.

        None if Coq refuses the tactic, or if it is no tactic that may be said.
        """
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
        # A brace focuses one goal, so that no tactic on its branch touches the others.
        return [((*here, f"{i}: {{"), self._goal(i)) for i in range(1, left + 1)]

    def _go(self, path: Sequence[str]) -> None:
        shared = 0
        while shared < min(len(path), len(self._said)) and path[shared] == self._said[shared]:
            shared += 1
        if shared < len(self._said):
            self._top.back(self._states[shared])
            self._states = self._states[: shared + 1]
            self._said = self._said[:shared]
        for sentence in path[shared:]:
            self._say(sentence)

    def _say(self, sentence: str) -> None:
        self._top.say(sentence)
        self._states.append(self._top.state)
        self._said += (sentence,)

    def _goal(self, number: int) -> str:
        """Hypotheses, a line, and the conclusion of one goal."""
        said = self._top.say(f"Show {number}.")
        lines = [line.strip() for line in without_goal_ids(said)]
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
MOST_NAMES = 6
ON_A_NAME = ("destruct {}", "apply {}", "induction {}", "rewrite {}")


def names(goal: str) -> list[str]:
    """The names of a goal's newest hypotheses, newest first: at most six."""
    found = [name for line in _hypotheses(goal) for name in _names_in(line)]
    return found[::-1][:MOST_NAMES]


def _hypotheses(goal: str) -> list[str]:
    """The lines above the rule of `=`, each of the form `a, b : type`."""
    return [line for line in goal.partition("====")[0].splitlines() if " : " in line]


def _names_in(line: str) -> list[str]:
    return line.partition(" : ")[0].replace(",", " ").split()


def _type_in(line: str) -> str:
    return line.partition(" : ")[2]


def candidates(goal: str) -> list[str]:
    """The tactics that are tried on a goal.

    No decision procedure for propositions (tauto, auto) is among them, so that the search has to
    find such proofs.
    """
    return [*FIXED, *(form.format(name) for name in names(goal) for form in ON_A_NAME)]


def shapes(goal: str) -> tuple[str, str]:
    """What a prior tells goals apart by: a fine and a coarse description.

    The fine one is the heads of the conclusion and of all hypotheses, the coarse one the head of
    the conclusion alone.
    """
    conclusion = head(goal.partition("====")[2].strip("= \n"))
    kinds = [head(_type_in(line)) for line in _hypotheses(goal)]
    return f"{conclusion}|{' '.join(sorted(set(kinds)))}", conclusion


def head(formula: str) -> str:
    """The outermost connective of a formula, as far as its text tells."""
    depth = 0
    found = set()
    words: list[str] = re.findall(r"\(|\)|->|/\\|\\/|<=|<|=|~|forall|exists|[\w']+", formula)
    for word in words:
        depth += (word == "(") - (word == ")")
        if depth == 0:
            found.add(word)
    # From the connective that binds weakest to the one that binds strongest.
    for connective in ("forall", "exists", "->", "\\/", "/\\", "~", "=", "<=", "<"):
        if connective in found:
            return connective
    if formula.strip() == "Prop":
        return "Prop"
    if words and words[0] in ("nat", "Z", "False"):
        return words[0]
    return "atom"


def form(goal: str, tactic: str) -> str:
    """A tactic in which the head of a hypothesis stands in place of its name.

    A prior can use it for other goals, where hypotheses have other names.
    """
    word, _, name = tactic.partition(" ")
    if name not in names(goal):
        return tactic
    for line in _hypotheses(goal):
        if name in _names_in(line):
            return f"{word} <{head(_type_in(line))}>"
    return tactic
