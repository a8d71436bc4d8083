"""code/repo: find and mend one changed line in a real package, by its own tests.

The package is networkx as installed, with its own test files. One operator, constant or comparison
of a module is changed so that some of its tests fail. The agent reads the file, edits lines, runs
the tests and submits. The file is mended if every test that passed before the change passes again,
in a fresh place, with the test files as they came. Covers: edited tests (`package`), forged reports
(`edits`), files left behind. Does not cover: a mend that the tests do not tell from a wrong one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from envs.authoring import Outcome, SignalKind, ToolWorld, action
from envs.code_execution import workspace
from envs.code_execution.repo.edits import Fault, changed, check_edit, faults
from envs.code_execution.repo.package import MODULES, copied, reference, source, tested
from envs.refused import Refused

_WINDOW = 24
"""The number of lines that an agent sees at a time."""


class Repo(ToolWorld[Fault]):
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "mended": SignalKind("fraction", "verifier"),
        "test_runs": SignalKind("count", "env_state"),
        "edits": SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"mended": 1.0, "test_runs": -0.01, "edits": -0.01}
    briefing: ClassVar[str] = (
        "One line of a module of the Python package networkx was changed by mistake: an operator, "
        "a constant or a comparison. Some of the module's tests have failed since. Find that line, "
        "put it right, and hand the file in."
    )
    forms: ClassVar[dict[str, str]] = {
        "show": f"Show {_WINDOW} lines of the file, from LINE on",
        "edit": "Replace line LINE by TEXT; its indentation is kept. No imports, strings or "
        "comments, and no names that are new to the file",
        "test": "Run the module's tests and list those that fail",
        "submit": "Hand the file in, which ends the task",
    }
    meanings: ClassVar[dict[str, str]] = {
        "mended": "if every test passes again in the file that you hand in",
        "test_runs": "for each test run",
        "edits": "for each edit",
    }
    max_turns = 16
    sandbox_tier = "namespaces"
    goes_back: ClassVar[bool] = True
    oracle_target: ClassVar[float] = 0.95
    cheats = (
        "edit 1 import os; os._exit(0)",
        "edit 1 print('PASSED test_x')",
        "edit 1 raise SystemExit(0)",
        "submit",
        "edit 1 exec('1')",
        "edit 1 __import__('sys').exit()",
        "edit 999999 x",
        "edit 0 x",
        "edit 1 x = ''",
        "test",
    )

    def tasks(self, split: str, rng: np.random.Generator) -> Fault:
        """A fault that fails some tests of its module. One module in five is held out, whole."""
        held = {module for i, module in enumerate(MODULES) if i % 5 == 2}
        while True:
            module = MODULES[int(rng.integers(len(MODULES)))]
            if (module in held) != (split == "heldout"):
                continue
            among = faults(module)
            start = int(rng.integers(len(among)))
            return next(f for f in (*among[start:], *among[:start]) if self.failing(f))

    def failing(self, fault: Fault) -> list[str]:
        """The tests that pass before the change and fail with it.

        Empty if all tests fail: then the module cannot even be imported, which is too easy to see.
        """
        before = reference(fault.module)
        failed = _lost(fault.module, fault.lines())
        return failed if 0 < len(failed) < len(before) else []

    def signature(self, task: Fault) -> str:
        return f"{task.module}:{task.line} {task.text.strip()}"

    def begin(self) -> None:
        self._lines = self.task.lines()
        self._failing = self.failing(self.task)
        # The fault is somewhere in the first window, at no fixed place of it.
        self._at = max(1, self.task.line - int(self.np_random.integers(0, _WINDOW)))
        self._report = ""
        self._unwanted = ""

    def observe(self) -> str:
        end = min(self._at + _WINDOW, len(self._lines) + 1)
        numbered = [f"{n:4d} {self._lines[n - 1]}" for n in range(self._at, end)]
        failing = ", ".join(self._failing[:4])
        shown = [f"networkx/algorithms/{self.task.module}.py; failing: {failing}", *numbered]
        if self._report:
            shown.append(self._report)
        return "\n".join(shown)

    def describe(self) -> str:
        end = min(self._at + _WINDOW, len(self._lines) + 1)
        numbered = [f"{n:4d} {self._lines[n - 1]}" for n in range(self._at, end)]
        shown = [
            f"The file is networkx/algorithms/{self.task.module}.py. Tests that fail with it as "
            f"you got it: {', '.join(self._failing[:4])}.",
            f"Lines {self._at} to {end - 1} of {len(self._lines)}, each after its number:",
            *numbered,
        ]
        if self._report:
            shown.append(f"Your last test run: {self._report}")
        return "\n".join(shown)

    def example(self) -> str:
        return f"show {min(self._at + _WINDOW, len(self._lines))}"

    @action
    def show(self, line: int) -> Outcome:
        """Show the file from a line on."""
        self._check_number(line)
        self._at = line
        return {}, False

    @action
    def edit(self, line: int, text: str) -> Outcome:
        """Replace a line; its indentation is kept."""
        self._check_number(line)
        old = self._lines[line - 1]
        indentation = old[: len(old) - len(old.lstrip())]
        changed = [*self._lines[: line - 1], indentation + text.strip(), *self._lines[line:]]
        check_edit(text, "\n".join(self._lines), "\n".join(changed))
        self._lines = changed
        return {"edits": 1.0}, False

    def _check_number(self, line: int) -> None:
        if not 1 <= line <= len(self._lines):
            raise Refused(
                f"line from 1 to {len(self._lines)}",
                f"The file has lines 1 to {len(self._lines)}, and no line {line}.",
            )

    @action
    def test(self) -> Outcome:
        """Run the module's tests."""
        verdicts = tested(self.task.module, _text(self._lines))
        failed = [name for name, verdict in verdicts.items() if verdict != "PASSED"]
        some = ", ".join(failed[:4]) or "none"
        self._report = f"{len(verdicts) - len(failed)} passed, failing: {some}"
        return {"test_runs": 1.0}, False

    def run_program(self, program: Mapping[str, Any]) -> Any:
        """Lets somebody else's agent mend the file in a copy of the package, and judges the file.

        The file must keep to the rules of `edit`; no other file that it leaves is looked at. Raises
        as workspace.run does.
        """
        with copied(self.task.module, _text(self._lines)) as folder:
            workspace.run(folder, program, self._as_issue())
            try:
                self._lines = changed(self._lines, workspace.read_left(folder, self._file()))
            except ValueError as unwanted:
                self._unwanted = str(unwanted)
        return self.step("submit")

    def _file(self) -> str:
        return f"networkx/algorithms/{self.task.module}.py"

    def _as_issue(self) -> str:
        """The task for a program that finds the package in its folder."""
        end = min(self._at + _WINDOW, len(self._lines) + 1)
        return (
            f"{self.briefing} The package is in the folder networkx of your working directory, and "
            f"the module is {self._file()}; the line is one of {self._at} to {end - 1}. Tests in "
            f"networkx/algorithms/tests/test_{self.task.module}.py that fail: "
            f"{', '.join(self._failing[:4])}. Change only that line, in place, and write no "
            "imports, strings or comments, and no names that are new to the file."
        )

    @action
    def submit(self) -> Outcome:
        """Hand the file in."""
        if self._unwanted:
            return {"mended": (0.0, self._unwanted)}, True
        wrong = _lost(self.task.module, self._lines)
        return {"mended": (float(not wrong), f"failing: {', '.join(wrong[:3]) or 'none'}")}, True

    def oracle_action(self) -> str:
        right = source(self.task.module)[self.task.line - 1]
        if self._lines[self.task.line - 1] != right:
            return f"edit {self.task.line} {right.strip()}"
        return "submit"

    def random_action(self, rng: np.random.Generator) -> str:
        among = faults(self.task.module)
        guess = among[int(rng.integers(len(among)))]
        edit = f"edit {guess.line} {guess.text.strip()}"
        return str(rng.choice(["test", "submit", f"show {guess.line}", edit]))


def _lost(module: str, lines: Sequence[str]) -> list[str]:
    """The tests that pass with the module as it came, and not with `lines` in its place."""
    before = reference(module)
    now = tested(module, _text(lines))
    return [
        name
        for name, verdict in before.items()
        if verdict == "PASSED" and now.get(name) != "PASSED"
    ]


def _text(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"
