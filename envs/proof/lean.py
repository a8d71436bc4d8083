"""proof/lean: prove a theorem in your own Lean 4, tactic by tactic; the kernel judges.

    gymnasium.make("envs:Lean-v0")                                            # the `lean` on the
    path (elan's will do) gymnasium.make("envs:Lean-v0", project="~/my_project",
    theorems="~/miniF2F")   # with Mathlib, say

Every tactic has Lean elaborate the proof so far in a place of its own (no network, nothing to
write): what is left unsolved is what the agent sees, any other error leaves the proof as it was.
What closes the last goal is judged by another Lean, which proves the statement, written out once
more, by that proof, and must find no axiom but Lean's three. No REPL is built and nothing fetched.
Covers: sorry, axioms, native_decide, new notation, commands after a tactic, programs at
elaboration. Does not cover: a bug in Lean's kernel.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from envs.authoring import Outcome, action
from envs.proof.lemma import Lemma, ProofWorld, read_statements
from envs.sandbox import confine
from experience.errors import EnvironmentFailure, MissingPartError

HINT = "install Lean 4 (https://lean-lang.org), or tell toolchain=, the folder that holds bin/lean"
AXIOMS = {"propext", "Classical.choice", "Quot.sound"}
_WORDS = (
    "sorry|admit|sorryAx|native_decide|run_tac|by_elab|eval|unsafe|IO|open|set_option|theorem|lemma|def|axiom|"
    "abbrev|opaque|example|instance|structure|inductive|class|macro|macro_rules|notation|syntax|elab|elab_rules|"
    "infix|infixl|infixr|prefix|postfix|attribute|namespace|section|end|universe|variable|export|mutual|"
    "initialize|builtin_initialize|deriving|local|scoped|private|protected|noncomputable|partial|simproc|"
    "declare_syntax_cat|register_simp_attr|register_option|import|public|meta|include|omit|compile_inductive|"
    "unseal|seal|add_decl_doc|ofReduceBool|trustCompiler|debug|stop"
)
_FORBIDDEN = re.compile(rf"(?<![\w.])({_WORDS})(?!\w)|--|/-|-/|[#\"«»`]|%")
_ASCII = {
    "⊢": "|-",
    "∧": "/\\",
    "∨": "\\/",
    "¬": "Not ",
    "→": "->",
    "↔": "<->",
    "∀": "forall",
    "∃": "exists",
    "≤": "<=",
    "≥": ">=",
    "≠": "=/=",
    "ℕ": "Nat",
    "ℤ": "Int",
    "ℝ": "Real",
    "ℚ": "Rat",
    "⟨": "(|",
    "⟩": "|)",
    "×": "><",
    "∈": "in",
    "∣": "|",
    "·": ".",
    "✝": "'",
    "↑": "^",
    "fun x ↦": "fun x =>",
    "↦": "=>",
}


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


def find_toolchain(folder: str = "") -> Path:
    """The folder that holds bin/lean: `folder`, or that of the `lean` on the path.

    Raises MissingPartError.
    """
    if folder:
        found = Path(folder).expanduser().resolve()
    else:
        lean = shutil.which("lean")
        if lean is None:
            raise MissingPartError("proof/lean needs your own Lean 4", HINT)
        told = subprocess.run([lean, "--print-prefix"], capture_output=True, text=True, check=False)
        found = Path(told.stdout.strip() or "/none")
    if not (found / "bin" / "lean").is_file():
        raise MissingPartError(f"no bin/lean in {found}", HINT)
    return found


def read_theorems(path: Path) -> list[Lemma]:
    """The theorems of .lean files that end in `:= by`: their statements, with their binders."""
    return read_statements(
        path, ".lean", r"/-.*?-/|--[^\n]*", r"^(?:theorem|lemma)\s+\S+\s*(.*?):=\s*by\b", "∀"
    )


def checked_tactic(text: str) -> str:
    """`text` as one line of Lean that is a tactic.

    Raises ValueError for anything that is, or may hold, a command.
    """
    text = " ".join(text.split())
    if not re.match(r"[a-z(<|]", text):
        raise ValueError("a tactic begins with a small letter")
    if found := _FORBIDDEN.search(text):
        raise ValueError(
            f"{found[0]} is refused: one tactic, no command, comment, string or program"
        )
    return text


class Lean(ProofWorld):
    families = FAMILIES
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
        """`project`: a Lake project that is built, whose modules `header` may import. `theorems`: a
        .lean file or a folder of them. `seconds`: for one run of Lean. Raises MissingPartError
        without a Lean."""
        super().__init__(read_theorems(Path(theorems).expanduser()) if theorems else [])
        self._toolchain, self._header, self._seconds = find_toolchain(toolchain), header, seconds
        self._modules: list[Path] = []
        if project:
            lake = Path(project).expanduser().resolve() / ".lake"
            self._modules = [
                *lake.glob("build/lib/lean"),
                *lake.glob("packages/*/.lake/build/lib/lean"),
            ]
            if not self._modules:
                raise MissingPartError(f"{lake.parent} holds no built Lake project", "lake build")

    def begin(self) -> None:
        self._done: list[str] = []
        self._goals, errors = self._elaborated(["skip"])
        if errors:
            raise EnvironmentFailure(
                f"Lean does not take the statement: {errors[0]}"[:300], "is a header missing?"
            )

    def accepted(self) -> list[str]:
        return self._done

    def observe(self) -> str:
        return "\n".join(self._goals) or "no goals"

    @action
    def tactic(self, text: str) -> Outcome:
        """Apply one Lean tactic."""
        tried = [*self._done, checked_tactic(text)]
        goals, errors = self._elaborated(tried)
        if errors:
            self._note = f"\n! {_ascii(errors[0])[:200]}"
            return {"tactics": 1.0, "errors": (1.0, _ascii(errors[0])[:80])}, False
        self._done, self._goals = tried, goals
        signals: dict[str, Any] = {"tactics": 1.0, "goals_left": float(len(goals))}
        if goals:
            return signals, False
        verdict = self._verdict()
        return signals | {
            "proved": (float(not verdict), verdict or "no axiom but Lean's own")
        }, True

    @action
    def undo(self) -> Outcome:
        """Take the last tactic back."""
        if not self._done:
            raise ValueError("nothing to undo")
        self._done.pop()
        self._goals, _ = self._elaborated(self._done or ["skip"])
        return {"tactics": 1.0}, False

    def _elaborated(self, tactics: Sequence[str]) -> tuple[list[str], list[str]]:
        """What is left to prove, and what is wrong."""
        goals, errors = [], []
        for message in self._lean(self._text(tactics)):
            if message["severity"] == "error":
                unsolved, _, left = str(message["data"]).partition("\n")
                if unsolved == "unsolved goals":
                    goals += [_ascii(goal) for goal in left.split("\n\n")]
                else:
                    errors.append(" ".join(str(message["data"]).split()))
        return goals, errors

    def _verdict(self) -> str:
        """Empty if another Lean accepts the proof of exactly that statement, else what it said."""
        said = self._lean(
            f"{self._text(self._done)}\ntheorem judged : {self.task.statement} := sol\n"
            "#print axioms judged\n"
        )
        wrong = [
            m
            for m in said
            if m["severity"] != "information" and "unused variable" not in str(m["data"])
        ]
        told = [str(m["data"]) for m in said if m["severity"] == "information"]
        if wrong or len(told) != 1:
            return " ".join(str(m["data"]) for m in wrong or said)[-300:] or "no verdict"
        if told[0] == "'judged' does not depend on any axioms":
            return ""
        used = re.fullmatch(
            r"'judged' depends on axioms: \[([\w., ]+)\]", " ".join(told[0].split())
        )
        return "" if used and {a.strip() for a in used[1].split(",")} <= AXIOMS else told[0]

    def _text(self, tactics: Sequence[str]) -> str:
        return "\n".join(
            [
                self._header,
                f"theorem sol : {self.task.statement} := by",
                *(f"  {t}" for t in tactics),
                "",
            ]
        )

    def _lean(self, text: str) -> list[dict[str, Any]]:
        """Lean's messages on a file. Raises EnvironmentFailure if there is no verdict."""
        lean = self._toolchain / "bin" / "lean"
        path = ":".join(map(str, self._modules))
        try:
            done = confine.run(
                ["env", f"LEAN_PATH={path}", str(lean), "--stdin", "--json"],
                stdin=text.encode(),
                seconds=self._seconds,
                readable=[self._toolchain, *self._modules],
            )
        except subprocess.TimeoutExpired:
            return [{"severity": "error", "data": f"no answer in {self._seconds:g} s"}]
        said = done.stdout.decode("utf-8", "replace").splitlines()
        found: list[dict[str, Any]] = [json.loads(line) for line in said if line.startswith("{")]
        if done.returncode not in (0, 1) or (done.returncode and not found):
            raise EnvironmentFailure(
                f"Lean ended with {done.returncode}: {done.stdout[-200:]!r}",
                f"may another user read {self._toolchain}?",
            )
        return found

    def random_action(self, rng: np.random.Generator) -> str:
        return "tactic " + str(
            rng.choice(
                [
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
                ]
            )
        )


def _ascii(text: str) -> str:
    for symbol, words in _ASCII.items():
        text = text.replace(symbol, words)
    return text
