"""proof/metamath: prove theorems of set.mm, label by label, before two judges.

The agent works the stack of a proof (push a label, pop it again) in a kernel of our own. A finished
proof replaces the old one in the database and is verified once more by `metamath`, the reference
program, in a place of its own. Only what stands before a theorem may be used to prove it. Theorems
are those of the database whose unpacked proofs are short. One in five is held out, chosen by its
content for ever; a training theorem whose proof uses a held-out one is left out.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from envs.authoring import Outcome, SignalKind, ToolWorld, action
from envs.contract import is_held_out
from envs.proof.metamath_kernel import Assertion, Database, Proof
from envs.refused import Refused
from envs.sandbox import confine
from experience.errors import EnvironmentFailure, MissingPartError

SET_MM = "/usr/share/metamath/databases/set.mm"
_JUDGE_SECONDS = 60
_STACK_SHOWN = 8
_LABEL = re.compile(r"[A-Za-z0-9._-]{1,40}")


@lru_cache(maxsize=2)
def _database(path: str, theorems: int) -> Database:
    return Database(Path(path), theorems)


@lru_cache(maxsize=2)
def _tasks(path: str, theorems: int, longest: int) -> dict[str, list[tuple[str, tuple[str, ...]]]]:
    """(label, labels of its proof) per split. A training proof uses no held-out theorem."""
    database = _database(path, theorems)
    found: dict[str, list[tuple[str, tuple[str, ...]]]] = {"train": [], "heldout": []}
    for assertion in database.assertions.values():
        # What is no `|-` says that a formula is well formed, which is no theorem.
        if not assertion.proved or assertion.statement[0] != "|-":
            continue
        # To unpack a proof can take time exponential in its length: long ones are not tried.
        if sum(len(part) for part in assertion.proof) > 40 * longest:
            continue
        try:
            steps = database.unpack(assertion)
        except ValueError:
            continue
        if len(steps) > longest:
            continue
        held = is_held_out(" ".join(assertion.statement))
        cited = (database.assertions[s] for s in steps if s in database.assertions)
        if not held and any(c.proved and is_held_out(" ".join(c.statement)) for c in cited):
            continue
        found["heldout" if held else "train"].append((assertion.label, tuple(steps)))
    return found


def second_opinion(database: Database, goal: Assertion, steps: list[str]) -> str:
    """Empty if `metamath` verifies the steps as a proof of `goal`, else what it said.

    Raises EnvironmentFailure if it gives no verdict in time. Its work grows with the number of
    steps only, so that no proof can keep it from a verdict.
    """
    metamath = shutil.which("metamath")
    if metamath is None:
        raise MissingPartError("proof/metamath needs the metamath program", "./xp setup worlds")
    start = database.text.index(goal.label, goal.start)
    proof_from = database.text.index("$=", start)
    # The database ends with this proof, so that no later theorem can be used; scopes that are
    # still open are closed.
    head = database.text[:proof_from]
    open_scopes = head.count("${") - head.count("$}")
    whole = f"{head}$= {' '.join(steps)} $.\n" + "$}\n" * open_scopes
    try:
        done = confine.run(
            [
                "sh",
                "-c",
                "cd /tmp && cat > a.mm && printf 'read a.mm\\nverify proof "
                f"{goal.label}\\nexit\\nyes\\n' | {metamath}",
            ],
            stdin=whole.encode(),
            seconds=_JUDGE_SECONDS,
        )
    except subprocess.TimeoutExpired as late:
        raise EnvironmentFailure(
            f"metamath gave no verdict on {goal.label} in {_JUDGE_SECONDS} s"
        ) from late
    said = done.stdout.decode("utf-8", "replace")
    # If the proof is right, the program repeats the label and says no more.
    verdict = said.rpartition("if you want to check them.")[2]
    if verdict.split() == ["MM>", goal.label, "MM>"]:
        return ""
    return " ".join(said.split())[-300:]


class Metamath(ToolWorld[tuple[str, tuple[str, ...]]]):
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "proved": SignalKind("fraction", "verifier"),
        "steps": SignalKind("count", "env_state"),
        "refused": SignalKind("count", "verifier"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"proved": 1.0, "steps": -0.002, "refused": -0.01}
    briefing: ClassVar[str] = (
        "Prove a theorem of set.mm, Metamath's database, on a stack. A label names a hypothesis, "
        "an axiom or an earlier theorem. To push a label takes its hypotheses from the top of the "
        "stack and puts what it states there instead; they must match. First push how formulas "
        "are built (wff, class, setvar), then the hypotheses and steps. The proof is complete when "
        "the theorem itself is the only line of the stack."
    )
    forms: ClassVar[dict[str, str]] = {
        "push": "Use the hypothesis, axiom or earlier theorem of that label on the stack",
        "pop": "Take the last push back",
        "lookup": "Show what a label needs and states; the stack stays as it is",
    }
    meanings: ClassVar[dict[str, str]] = {
        "proved": "if the theorem is proved and the program metamath agrees",
        "steps": "for each action",
        "refused": "for each push that does not fit the stack",
    }
    sandbox_tier = "namespaces"
    goes_back: ClassVar[bool] = True
    oracle_target: ClassVar[float] = 0.9
    cheats = (
        "push ?",
        "push $= ax-1 $.",
        "push wph $. x $p |- ph $= ",
        "push NONSUCH",
        "pop",
        "push ( ) A",
        '{"name": "push", "arguments": {"label": "../x"}}',
        "push $[ /etc/passwd $]",
        "lookup ax-mp",
        "push qed",
    )

    def __init__(self, database: str = SET_MM, theorems: int = 2000, longest: int = 25) -> None:
        super().__init__()
        self._where = (database, theorems)
        self._longest = longest
        # Twice what the longest proof takes: half of an agent's pushes may be wrong.
        self.max_turns = 2 * longest  # type: ignore[misc]

    @property
    def database(self) -> Database:
        return _database(*self._where)

    def tasks(self, split: str, rng: np.random.Generator) -> tuple[str, tuple[str, ...]]:
        among = _tasks(*self._where, self._longest)[split]
        return among[int(rng.integers(len(among)))]

    def signature(self, task: tuple[str, tuple[str, ...]]) -> str:
        return task[0]

    @property
    def goal(self) -> Assertion:
        return self.database.assertions[self.task[0]]

    def begin(self) -> None:
        self._steps: list[str] = []

    def _proof(self) -> Proof:
        proof = Proof(self.database, self.goal)
        for label in self._steps:
            proof.push(label)
        return proof

    def observe(self) -> str:
        goal = self.goal
        hypotheses = [f"{h.label}: {' '.join(h.statement)}" for h in goal.hypotheses]
        stack = [" ".join(s) for s in self._proof().stack]
        return "\n".join(
            [f"prove {' '.join(goal.statement)}", *hypotheses, "stack:", *stack[-_STACK_SHOWN:]]
        )

    def describe(self) -> str:
        goal = self.goal
        hypotheses = [f"- {h.label}: {' '.join(h.statement)}" for h in goal.hypotheses]
        stack = [f"- {' '.join(s)}" for s in self._proof().stack]
        hidden = len(stack) - _STACK_SHOWN
        return "\n".join(
            [
                f"Prove: {' '.join(goal.statement)}",
                "Its hypotheses, by their labels:" if hypotheses else "It has no hypotheses.",
                *hypotheses,
                "The stack, its top last:" if stack else "The stack is empty.",
                *([f"- ({hidden} more below)"] if hidden > 0 else []),
                *stack[-_STACK_SHOWN:],
            ]
        )

    def example(self) -> str:
        order = self.database.order
        # `wi`, how an implication is built, stands before nearly all theorems; the first label of
        # the database stands before all.
        early = "wi" if order.get("wi", len(order)) < order[self.task[0]] else next(iter(order))
        return f"lookup {early}"

    @action
    def push(self, label: str) -> Outcome:
        """Use a hypothesis, axiom or earlier theorem on the stack."""
        if not _LABEL.fullmatch(label):
            raise Refused(
                "a label is letters, digits, . _ and -",
                "A label has only letters, digits, dots, underscores and hyphens, at most 40.",
            )
        proof = self._proof()
        try:
            proof.push(label)
        except ValueError as refused:
            self._note = self.either(
                f"\n! {refused}",
                f"\nThe label {label} could not be used; the stack is as before: {refused}.",
            )
            return {"steps": 1.0, "refused": (1.0, str(refused)[:200])}, False
        self._steps.append(label)
        if not proof.complete:
            return {"steps": 1.0}, False
        verdict = second_opinion(self.database, self.goal, self._steps)
        proved = (float(not verdict), verdict or "verified by metamath")
        return {"steps": 1.0, "proved": proved}, True

    @action
    def pop(self) -> Outcome:
        """Take the last step back."""
        if not self._steps:
            raise Refused("nothing to take back", "The stack is empty: nothing can be taken back.")
        self._steps.pop()
        return {"steps": 1.0}, False

    @action
    def lookup(self, label: str) -> Outcome:
        """Show what a label says."""
        found = self.database.assertions.get(label)
        # A later theorem may not be used, so it is not shown either.
        if found is None or self.database.order[label] >= self.database.order[self.task[0]]:
            raise Refused(
                "no such label here",
                f"No label {label} stands before this theorem in the database.",
            )
        told = [" ".join(h.statement) for h in found.hypotheses]
        self._note = f"\n{label}: {' ; '.join(told)} => {' '.join(found.statement)}"
        return {"steps": 1.0}, False

    def oracle_action(self) -> str:
        done = len(self._steps)
        proof = self.task[1]
        if tuple(self._steps) != proof[:done]:
            return "pop"
        return f"push {proof[done]}"

    def random_action(self, rng: np.random.Generator) -> str:
        labels = [
            *(h.label for h in self.goal.hypotheses),
            "ax-mp",
            "ax-1",
            "ax-2",
            "wi",
            "wn",
            "syl",
            "a1i",
        ]
        return f"push {labels[int(rng.integers(len(labels)))]}"
