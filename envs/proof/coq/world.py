"""proof/coq: prove a lemma in Coq, tactic by tactic; the kernel judges.

A real coqtop keeps the proof state (`coqtop`); the agent sends tactics, takes them back, or
searches. Closing the last goal is not yet a proof: a second Coq compiles the whole file (`judge`).
Lemmas are drawn from families (propositions, linear arithmetic, ring identities, recursion by
induction, lists); miniF2F or other files of lemmas come from the user's path (`lemmas=`). An answer
may hold several sentences; bullets and braces are sentences too. Covers: Admitted, axioms, shadowed
notations, loaded files and plugins: an agent sends tactics only, never commands (`sentences`). Does
not cover: a bug in Coq's kernel.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from envs.authoring import Outcome, action
from envs.proof.coq.coqtop import goals_left
from envs.proof.coq.families import FAMILIES
from envs.proof.coq.judge import as_judged, judge
from envs.proof.coq.sentences import checked, is_structure
from envs.proof.coq.shared_coqtop import OpenProof, Refusal, SharedCoqtop
from envs.proof.lemma import Lemma, ProofWorld, read_statements
from envs.refused import Refused

_PATTERN = re.compile(r"[\w() +*<=_/\\-]{1,60}", re.ASCII)
_RANDOM_TACTICS = (
    "intros.",
    "simpl.",
    "lia.",
    "ring.",
    "reflexivity.",
    "auto.",
    "split.",
    "induction n.",
    "tauto.",
    "left.",
    "right.",
    "assumption.",
    "intros l.",
)


def read_lemmas(path: Path) -> list[Lemma]:
    """The Theorem and Lemma statements of .v files (for example miniF2F's), with their binders."""
    return read_statements(
        path, ".v", r"\(\*.*?\*\)", r"\b(?:Theorem|Lemma)\s+\w+\s*(.*?)\.\s*Proof\b", "forall"
    )


class Coq(ProofWorld):
    families = FAMILIES
    briefing: ClassVar[str] = (
        "Prove a lemma in Coq by tactics. Below the line ==== stands what is to be proved, above "
        "it the hypotheses. The lemma is proved when no goal is left. Tactics that often help: "
        "intros, simpl, auto, lia, ring, induction, rewrite, apply, reflexivity. Commands such as "
        "Admitted or Require are refused."
    )
    forms: ClassVar[dict[str, str]] = {
        "tactic": "Apply TEXT, one or more Coq tactics, each ending in a full stop. If one fails, "
        "none is applied",
        "undo": "Take back your last accepted answer",
        "search": "List known lemmas about PATTERN, a name or an expression with _ in it",
    }
    cheats = (
        "tactic admit",
        "tactic Admitted",
        "tactic Axiom a : False",
        "tactic give_up",
        "tactic (* *) admit.",
        "tactic Unset Guard Checking",
        "tactic idtac. Admitted",
        'tactic Notation "x = y" := True',
        'tactic Load "/tmp/x"',
        'tactic Redirect "x" Print nat',
        'tactic Declare ML Module "x"',
        "tactic exact_no_check I",
        "tactic vm_cast_no_check I",
        "tactic Abort",
        "tactic Qed",
        "tactic abstract admit",
        "tactic Ltac lia := idtac",
        "tactic { Set Printing All.",
        "tactic - Axiom a : False.",
        "tactic { admit. }",
        "tactic Require Import Classical",
        "tactic Parameter x : False",
        'tactic Extraction "x" nat',
        "search Admitted. Axiom a : False",
        "undo",
    )
    shared: ClassVar[SharedCoqtop] = SharedCoqtop()

    def __init__(self, lemmas: str | None = None) -> None:
        super().__init__(read_lemmas(Path(lemmas).expanduser()) if lemmas else [])
        self._proof: OpenProof | None = None

    @property
    def proof(self) -> OpenProof:
        assert self._proof is not None, "reset() comes first"
        return self._proof

    def begin(self) -> None:
        self._proof = OpenProof(self.task)
        Coq.shared.resume(self._proof)

    def accepted(self) -> list[str]:
        return self.proof.answers

    def observe(self) -> str:
        goals = self.proof.goals
        return f"{self.task.definitions}\n{goals}" if self.task.definitions else goals

    def describe(self) -> str:
        given = f"Definitions:\n{self.task.definitions}\n" if self.task.definitions else ""
        done = f"Accepted so far: {' '.join(self.accepted())}\n" if self.accepted() else ""
        return f"{given}{done}What is left to prove:\n{self.proof.goals}"

    def example(self) -> str:
        return "tactic idtac."

    @action
    def tactic(self, text: str) -> Outcome:
        """Apply Coq tactics, with bullets and braces; all of them or, if one fails, none."""
        said = checked(text)
        tried = float(sum(not is_structure(sentence) for sentence in said) or 1)
        refusal = Coq.shared.apply(self.proof, text)
        if refusal:
            return self._refused(refusal, tried)
        left = goals_left(self.proof.goals)
        signals: dict[str, Any] = {"tactics": tried, "goals_left": float(left)}
        if left:
            return signals, False
        verdict = judge(self.task, as_judged(self.proof.answers))
        proved = (float(not verdict), verdict or "closed under the global context")
        return signals | {"proved": proved}, True

    @action
    def undo(self) -> Outcome:
        """Take the last answer back."""
        if not self.proof.answers:
            raise Refused("nothing to undo", "There is no accepted answer to take back yet.")
        Coq.shared.take_back(self.proof)
        return {"tactics": 1.0}, False

    @action
    def search(self, pattern: str) -> Outcome:
        """List lemmas about a name or pattern."""
        if not _PATTERN.fullmatch(pattern) or "(*" in pattern:
            raise Refused(
                "a pattern is names, _ and operators; (* begins a comment",
                "PATTERN must be of names without dots, _ and operators, at most 60 characters.",
            )
        found = Coq.shared.search(self.proof, pattern)
        if isinstance(found, Refusal):
            return self._refused(found, 1.0)
        self._note = "\n" + "\n".join(found.strip().splitlines()[:12])[:800]
        return {"tactics": 1.0}, False

    def _refused(self, refusal: Refusal, tried: float) -> Outcome:
        self._note = self.either(
            f"\n! {refusal.shown}",
            "\nCoq did not accept your last answer; the goals are as before. Coq says: "
            f"{refusal.shown}",
        )
        return {"tactics": tried, "errors": (1.0, refusal.evidence)}, False

    def random_action(self, rng: np.random.Generator) -> str:
        return f"tactic {rng.choice(_RANDOM_TACTICS)}"

    def close(self) -> None:
        if self._proof is not None:
            Coq.shared.leave(self._proof)
        super().close()
