"""proof/lean: prove a theorem in your own Lean 4, tactic by tactic; the kernel judges.

The `lean` on the path (elan's too), and a project with Mathlib, for example:

    gymnasium.make("envs:Lean-v0")
    gymnasium.make("envs:Lean-v0", project="~/my_project", theorems="~/miniF2F")

For every tactic Lean elaborates the proof so far, in a place of its own (`elaborator`). The agent
sees the goals that are left; any other error leaves the proof as it was. When no goal is left,
another Lean judges the proof. Covers: sorry, axioms, native_decide, new notation, commands after a
tactic, programs at elaboration (`tactics`). Does not cover: a bug in Lean's kernel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from envs.authoring import Outcome, action
from envs.proof.lean.elaborator import Elaborator, find_modules, find_toolchain, in_ascii
from envs.proof.lean.families import FAMILIES
from envs.proof.lean.tactics import checked_tactic
from envs.proof.lemma import Lemma, ProofWorld, read_statements
from envs.refused import Refused
from experience.errors import EnvironmentFailure

_RANDOM_TACTICS = (
    "intros",
    "intro h",
    "simp",
    "omega",
    "constructor",
    "rfl",
    "assumption",
    "exact h",
    "decide",
    "trivial",
)
# A `by` block without a tactic is a syntax error; `skip` proves nothing and shows the goal.
_NO_TACTICS = ("skip",)


def read_theorems(path: Path) -> list[Lemma]:
    """The theorems of .lean files that end in `:= by`: their statements, with their binders."""
    return read_statements(
        path, ".lean", r"/-.*?-/|--[^\n]*", r"^(?:theorem|lemma)\s+\S+\s*(.*?):=\s*by\b", "∀"
    )


class Lean(ProofWorld):
    families = FAMILIES
    briefing: ClassVar[str] = (
        "Prove a theorem in Lean 4 by tactics, one at a time. After |- stands what is to be "
        "proved, above it the hypotheses. The theorem is proved when no goal is left. Tactics "
        "that often help: intro, simp, omega, constructor, exact, apply, rfl, decide. Commands, "
        "comments and sorry are refused."
    )
    forms: ClassVar[dict[str, str]] = {
        "tactic": "Apply TEXT, one Lean tactic",
        "undo": "Take back the last accepted tactic",
    }
    cheats = (
        "tactic sorry",
        "tactic admit",
        "tactic native_decide",
        "tactic exact sorryAx _ true",
        "tactic skip axiom f : False",
        "tactic skip theorem x : True := trivial",
        "tactic skip #eval 1",
        "tactic run_tac pure ()",
        "tactic exact (by sorry)",
        "tactic skip end",
        "tactic skip open Lean in simp",
        'tactic skip notation "x" => True',
        "tactic skip macro_rules",
        "tactic skip -- done",
        "tactic stop",
        "tactic set_option maxRecDepth 1 in simp",
        "tactic skip instance : Inhabited Empty := ⟨x⟩",
        "undo",
    )

    def __init__(
        self,
        toolchain: str = "",
        project: str = "",
        header: str = "",
        theorems: str = "",
        seconds: float = 60.0,
    ) -> None:
        """A world for the Lean in `toolchain`, or for the one on the path.

        `project` is a Lake project that is built; `header` may import its modules. `theorems` is a
        .lean file or a folder of such files. `seconds` bounds one run of Lean. Raises
        MissingPartError without a Lean.
        """
        super().__init__(read_theorems(Path(theorems).expanduser()) if theorems else [])
        lean = find_toolchain(toolchain)
        modules = find_modules(project) if project else ()
        self.elaborator = Elaborator(lean, modules, header, seconds)

    def begin(self) -> None:
        self._tactics: list[str] = []
        self._goals, errors = self.elaborator.elaborate(self.task.statement, _NO_TACTICS)
        if errors:
            raise EnvironmentFailure(
                f"Lean does not take the statement: {errors[0]}"[:300], "is a header missing?"
            )

    def accepted(self) -> list[str]:
        return self._tactics

    def observe(self) -> str:
        return in_ascii("\n".join(self._goals)) or "no goals"

    def describe(self) -> str:
        done = f"Accepted so far: {in_ascii('; '.join(self._tactics))}\n" if self._tactics else ""
        return f"{done}What is left to prove:\n{self.observe()}"

    def example(self) -> str:
        return "tactic skip"

    @action
    def tactic(self, text: str) -> Outcome:
        """Apply one Lean tactic."""
        tried = [*self._tactics, checked_tactic(text)]
        goals, errors = self.elaborator.elaborate(self.task.statement, tried)
        if errors:
            wrong = in_ascii(errors[0])
            self._note = self.either(
                f"\n! {wrong[:200]}",
                "\nLean did not accept your last tactic; the goals are as before. Lean says: "
                f"{wrong[:200]}",
            )
            return {"tactics": 1.0, "errors": (1.0, wrong[:80])}, False
        self._tactics = tried
        self._goals = goals
        signals: dict[str, Any] = {"tactics": 1.0, "goals_left": float(len(goals))}
        if goals:
            return signals, False
        verdict = self.elaborator.verdict(self.task.statement, tried)
        proved = (float(not verdict), verdict or "no axiom but Lean's own")
        return signals | {"proved": proved}, True

    @action
    def undo(self) -> Outcome:
        """Take the last tactic back."""
        if not self._tactics:
            raise Refused("nothing to undo", "There is no accepted tactic to take back yet.")
        self._tactics.pop()
        left = self._tactics or _NO_TACTICS
        self._goals, _ = self.elaborator.elaborate(self.task.statement, left)
        return {"tactics": 1.0}, False

    def random_action(self, rng: np.random.Generator) -> str:
        return f"tactic {rng.choice(_RANDOM_TACTICS)}"
