"""The user's own Lean 4: elaborates proofs that are not finished, and judges finished ones.

Each run is a `lean` of its own, in a place with no network and nothing to write. No REPL is built
and nothing is fetched. The verdict is that of another run, which proves the statement, written out
once more, by the agent's proof, and must find no axiom but Lean's three. Covers: a proof that
passed the refused words and holds an axiom or a hole. Does not cover: a bug in Lean's kernel.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.sandbox import confine
from experience.errors import EnvironmentFailure, MissingPartError

HINT = "install Lean 4 (https://lean-lang.org), or tell toolchain=, the folder that holds bin/lean"
AXIOMS = {"propext", "Classical.choice", "Quot.sound"}
"""Lean's own three axioms."""
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


@dataclass(frozen=True)
class Elaborator:
    """A Lean toolchain, with what its runs may import and how long one run may take."""

    toolchain: Path
    modules: tuple[Path, ...]
    """Folders of compiled modules (.olean) that `header` may import."""
    header: str
    seconds: float

    def elaborate(self, statement: str, tactics: Sequence[str]) -> tuple[list[str], list[str]]:
        """(the goals that the tactics leave, the errors as Lean words them)."""
        goals: list[str] = []
        errors: list[str] = []
        for message in self._messages(self._source(statement, tactics)):
            if message["severity"] != "error":
                continue
            said = str(message["data"])
            first, _, rest = said.partition("\n")
            # Lean reports open goals as an error of the `by` block; it is no error of a tactic.
            if first == "unsolved goals":
                goals += rest.split("\n\n")
            else:
                errors.append(" ".join(said.split()))
        return goals, errors

    def verdict(self, statement: str, tactics: Sequence[str]) -> str:
        """Empty if Lean accepts the proof of exactly that statement, else what it said."""
        messages = self._messages(
            f"{self._source(statement, tactics)}\ntheorem judged : {statement} := sol\n"
            "#print axioms judged\n"
        )
        told = [str(m["data"]) for m in messages if m["severity"] == "information"]
        wrong = [str(m["data"]) for m in messages if _is_objection(m)]
        # Only `#print axioms` may have told anything: any other message is somebody else's.
        if wrong or len(told) != 1:
            return " ".join(wrong or [str(m["data"]) for m in messages])[-300:] or "no verdict"
        if told[0] == "'judged' does not depend on any axioms":
            return ""
        used = re.fullmatch(
            r"'judged' depends on axioms: \[([\w., ]+)\]", " ".join(told[0].split())
        )
        if used and {axiom.strip() for axiom in used[1].split(",")} <= AXIOMS:
            return ""
        return told[0]

    def _source(self, statement: str, tactics: Sequence[str]) -> str:
        lines = [f"  {tactic}" for tactic in tactics]
        return "\n".join([self.header, f"theorem sol : {statement} := by", *lines, ""])

    def _messages(self, text: str) -> list[dict[str, Any]]:
        """Lean's messages on a file.

        A run that takes too long is an error of the file. Raises EnvironmentFailure if Lean itself
        failed.
        """
        lean = self.toolchain / "bin" / "lean"
        path = ":".join(map(str, self.modules))
        try:
            done = confine.run(
                ["env", f"LEAN_PATH={path}", str(lean), "--stdin", "--json"],
                stdin=text.encode(),
                seconds=self.seconds,
                readable=[self.toolchain, *self.modules],
            )
        except subprocess.TimeoutExpired:
            return [{"severity": "error", "data": f"no answer in {self.seconds:g} s"}]
        said = done.stdout.decode("utf-8", "replace").splitlines()
        found: list[dict[str, Any]] = [json.loads(line) for line in said if line.startswith("{")]
        # Lean exits with 1 after any error in the file; without a message it has failed itself.
        if done.returncode not in (0, 1) or (done.returncode and not found):
            raise EnvironmentFailure(
                f"Lean ended with {done.returncode}: {done.stdout[-200:]!r}",
                f"may another user read {self.toolchain}?",
            )
        return found


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
        # elan puts a chooser on the path; only lean itself knows which toolchain it is of.
        told = subprocess.run([lean, "--print-prefix"], capture_output=True, text=True, check=False)
        found = Path(told.stdout.strip() or "/none")
    if not (found / "bin" / "lean").is_file():
        raise MissingPartError(f"no bin/lean in {found}", HINT)
    return found


def find_modules(project: str) -> tuple[Path, ...]:
    """The folders of compiled modules of a Lake project and of its packages.

    Raises MissingPartError if nothing is built there.
    """
    lake = Path(project).expanduser().resolve() / ".lake"
    found = (*lake.glob("build/lib/lean"), *lake.glob("packages/*/.lake/build/lib/lean"))
    if not found:
        raise MissingPartError(f"{lake.parent} holds no built Lake project", "lake build")
    return found


def _is_objection(message: dict[str, Any]) -> bool:
    """Whether a message speaks against a proof: all do but information and unused variables."""
    return message["severity"] != "information" and "unused variable" not in str(message["data"])


def in_ascii(text: str) -> str:
    """Lean's symbols spelt in ASCII, as an agent with few tokens types them."""
    for symbol, word in _ASCII.items():
        text = text.replace(symbol, word)
    return text
