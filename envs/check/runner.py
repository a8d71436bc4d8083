"""Runs checks in order; each gives a result, whatever the world does."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from envs.check.subject import CHECKS, Failed, Skipped, Subject
from experience.command.failures import own_traceback
from experience.errors import MissingPartError

Verdict = Literal["PASS", "FAIL", "SKIP"]


@dataclass(frozen=True)
class Result:
    """One line of the table. `detail` says what the check looked at, or what is wrong."""

    id: str
    outcome: Verdict
    detail: str
    seconds: float


def results(subject: Subject, only: Sequence[str] = ()) -> Iterator[Result]:
    """Yields a result for each check, or for those named in `only`."""
    reported = set[str]()
    for name in CHECKS:
        if only and name not in only:
            continue
        started = time.perf_counter()
        with quiet_stdout():
            verdict, detail = _tried(subject, name, reported)
        yield Result(name, verdict, detail, time.perf_counter() - started)


def _tried(subject: Subject, name: str, reported: set[str]) -> tuple[Verdict, str]:
    """The verdict of one check and its detail.

    An error of the world is printed on stderr with its traceback, unless `reported` has it already.
    """
    try:
        return "PASS", CHECKS[name](subject)
    except Failed as wrong:
        return "FAIL", str(wrong)
    except (Skipped, NotImplementedError) as why:
        return "SKIP", str(why)
    except (MissingPartError, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001  a world may raise anything, SystemExit too
        if (where := own_traceback(error)) not in reported:
            reported.add(where)
            print(f"{name}: {where}", file=sys.stderr)
        return "FAIL", f"{type(error).__name__}: {error}".splitlines()[0][:200]


@contextlib.contextmanager
def quiet_stdout() -> Iterator[None]:
    """Sends to stderr what a world prints, here or in a child process: stdout is for results."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
