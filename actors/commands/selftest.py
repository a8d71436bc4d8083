"""`xp test`: style, types, then every test; the long ones when asked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from actors import ROOT
from experience.command.output import data

# Most tests wait for another program half of the time.
_AT_ONCE = ("--numprocesses=3", "--dist=worksteal")


def run_all(long: bool, extras: str, coverage: bool, words: Sequence[str]) -> int:
    """Returns the exit code of the first failing step, or 0.

    With `words` or `extras` (worlds, wiki, peers or vllm), only pytest runs, on the tests they select.
    With `coverage`, the share of lines of experience and actors that tests ran is printed.
    """
    which = ["--long"] if long else []
    if extras:
        which.append(f"--extras={extras}")
    if coverage:
        which += ["--cov", "--cov-report=term:skip-covered"]
    pytest = [sys.executable, "-m", "pytest", *which, *(words or _AT_ONCE)]
    tools = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"])
    checks = [[sys.executable, "-m", *tool] for tool in tools]
    checks.append([sys.executable, "-m", "benchmarks.house"])
    steps = [pytest] if words or extras else [*checks, pytest]
    for step in steps:
        print("$ " + " ".join(["python", *step[1:]]), file=sys.stderr, flush=True)
        code = subprocess.call(step, cwd=ROOT, stdout=data())
        if code:
            return code
    return 0
