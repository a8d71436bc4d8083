"""Lemmas, drawn or read from files, and the world that proves them, shared by Coq and Lean."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from envs.authoring import SignalKind, ToolWorld
from experience.errors import MissingPartError


@dataclass(frozen=True)
class Lemma:
    """A statement to prove, the definitions that it needs, and a proof that a person wrote."""

    family: str
    definitions: str
    statement: str
    proof: tuple[str, ...] = ()


def read_statements(path: Path, suffix: str, comment: str, stated: str, forall: str) -> list[Lemma]:
    """The statements in a file, or in all files of a folder that end in `suffix`.

    `comment` and `stated` are regular expressions. The first group of `stated` holds the binders, a
    colon and the statement; the binders go behind the word `forall` of the language. Raises
    MissingPartError if there is no statement.
    """
    files = sorted(path.rglob(f"*{suffix}")) if path.is_dir() else [path]
    found = []
    for file in files:
        # Comments go first: a theorem that is commented out is no task.
        text = re.sub(comment, "", file.read_text(), flags=re.DOTALL)
        for match in re.finditer(stated, text, re.DOTALL | re.MULTILINE):
            binders, statement = at_the_colon(match[1])
            if binders.strip():
                statement = f"{forall} {' '.join(binders.split())}, {statement}"
            found.append(Lemma(file.stem, "", " ".join(statement.split())))
    if not found:
        raise MissingPartError(
            f"{path} holds no theorem or lemma with a proof to come",
            f"give a {suffix} file or a folder of them",
        )
    return found


def at_the_colon(text: str) -> tuple[str, str]:
    """The text before and after the first colon outside brackets; no binders without one."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character in "([{⦃") - (character in ")]}⦄")
        if character == ":" and depth == 0:
            return text[:i], text[i + 1 :]
    return "", text


class ProofWorld(ToolWorld[Lemma]):
    """A world where a lemma is proved tactic by tactic.

    Subclasses give `families` to draw from, actions, and the tactics `accepted` so far.
    """

    max_turns = 12
    sandbox_tier = "namespaces"
    goes_back: ClassVar[bool] = True
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "proved": SignalKind("fraction", "verifier"),
        "tactics": SignalKind("count", "env_state"),
        "errors": SignalKind("count", "verifier"),
        "goals_left": SignalKind("count", "verifier"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"proved": 1.0, "tactics": -0.01, "errors": -0.02}
    meanings: ClassVar[dict[str, str]] = {
        "proved": "if the lemma is proved and a second prover agrees",
        "tactics": "for each tactic, undo or search",
        "errors": "for each answer that the prover does not accept",
    }
    oracle_target: ClassVar[float] = 0.9
    families: ClassVar[Sequence[Callable[[np.random.Generator], Lemma]]] = ()

    def __init__(self, given: Sequence[Lemma]) -> None:
        super().__init__()
        self._given = given

    def draw(self, rng: np.random.Generator) -> Lemma:
        if self._given:
            return self._given[int(rng.integers(len(self._given)))]
        return self.families[int(rng.integers(len(self.families)))](rng)

    def signature(self, task: Lemma) -> str:
        return f"{task.definitions} {task.statement}".strip()

    def accepted(self) -> list[str]:
        """The answers that the prover has taken and that were not taken back."""
        raise NotImplementedError

    def oracle_action(self) -> str:
        done = len(self.accepted())
        if done < len(self.task.proof):
            return f"tactic {self.task.proof[done]}"
        return "undo"
