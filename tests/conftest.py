"""Shared by all rooms' tests: the --long and --extras switches, and small real objects.

What `./xp setup worlds`, `wiki` or `peers` installs may be missing: a test that needs it is
skipped, its reason holds that command, and `.xp-skipped` lists it, so that `--extras=worlds` can
run what a setup has made possible.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest

from experience.errors import MissingPartError
from experience.policy import Decision, VersionSpan
from experience.signal import Signal, SignalKind
from experience.step import Boundary, Step

# two workers whose threads wait for each other on two cores take up to 50 times as long
os.environ.setdefault("OMP_NUM_THREADS", "1")

CATALOGUE = {"done": SignalKind("fraction", "env_state"), "cost": SignalKind("count", "env_state")}


SKIPPED = ".xp-skipped"
"""In the root: per test that an optional part was missing for, its id, a tab and why."""
_SETUP = "./xp setup"
_PARTS = ("worlds", "wiki", "peers", "vllm")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also the tests that take long")
    parser.addoption(
        "--extras",
        choices=_PARTS,
        help="only the tests that the last run skipped because `./xp setup "
        "...` had not been run; one that is skipped for it again fails the run",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes long; runs only with --long")
    if not hasattr(
        config, "workerinput"
    ):  # with --numprocesses, the process that all reports reach
        config.pluginmanager.register(SkipNotes(config), "skip-notes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        for item in items:
            if "long" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="runs with --long"))
    if what := config.getoption("--extras"):
        wanted = _skipped_before(config, what)
        others = [i for i in items if not {i.nodeid, i.nodeid.partition("::")[0]} & wanted]
        items[:] = [i for i in items if i not in set(others)]
        config.hook.pytest_deselected(items=others)


def _skipped_before(config: pytest.Config, what: str) -> set[str]:
    """The ids of tests, or of whole files, whose last run skipped them for want of `./xp setup
    WHAT`."""
    notes = config.rootpath / SKIPPED
    if not notes.exists():
        raise pytest.UsageError(
            f"no earlier run noted in {notes} what it skipped; run ./xp test first"
        )
    return {test for test, why in _read_notes(notes).items() if f"{_SETUP} {what}" in why}


def _read_notes(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines() if path.exists() else []
    return {test: why for test, _, why in (line.partition("\t") for line in lines)}


class SkipNotes:
    """Keeps SKIPPED, and fails a run with --extras that skips a test for the very part that should
    be there now."""

    def __init__(self, config: pytest.Config) -> None:
        self._path, self._what = config.rootpath / SKIPPED, config.getoption("--extras")
        self._found: dict[str, str] = {}
        self._ran: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)
        if report.when == "call" and not report.skipped:
            self._ran |= {report.nodeid, report.nodeid.partition("::")[0]}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and isinstance(report.longrepr, tuple) and _SETUP in report.longrepr[2]:
            self._found[report.nodeid] = " ".join(report.longrepr[2].split())

    def _still_missing(self) -> list[str]:
        return [
            test
            for test, why in self._found.items()
            if self._what and f"{_SETUP} {self._what}" in why
        ]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._still_missing():
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
        if self._what and session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK  # nothing had been skipped for it
        kept = {
            test: why for test, why in _read_notes(self._path).items() if test not in self._ran
        } | self._found
        self._path.write_text("".join(f"{test}\t{why}\n" for test, why in sorted(kept.items())))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for test in self._still_missing():
            terminalreporter.write_line(f"FAILED {test} - still {self._found[test]}")
        counted = Counter(
            part for why in self._found.values() for part in _PARTS if f"{_SETUP} {part}" in why
        )
        for part, count in counted.items():
            terminalreporter.write_line(
                f"{count} skipped; to run them: {_SETUP} {part}, then ./xp test --extras {part}"
            )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
    return (yield from _skipped_without_its_part())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    return (yield from _skipped_without_its_part())


def _skipped_without_its_part() -> Generator[None, object, object]:
    try:
        return (yield)
    except MissingPartError as missing:
        if _SETUP not in missing.hint:
            raise
        pytest.skip(" ".join(str(missing).split()))


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_step(
    t: int,
    stream: bytes = b"s" * 16,
    *,
    rng: np.random.Generator | None = None,
    closing: bool = False,
    **changes: object,
) -> Step:
    """A step as an engine and a world would make it, with tokens of varying number."""
    rng = rng or np.random.default_rng(t)
    prompt = np.concatenate(
        [np.arange(5, dtype=np.int32), rng.integers(0, 256, rng.integers(1, 60)).astype(np.int32)]
    )
    action = rng.integers(0, 256, rng.integers(1, 20)).astype(np.int32)
    decision = (
        None
        if closing
        else Decision(
            "press 1",
            3,
            prompt,
            action,
            rng.normal(-1, 0.1, len(action)).astype(np.float32),
            (VersionSpan(3, len(action)),),
            token_exact=True,
            decoder="temperature=1",
            behaviour_id="small",
            sampled=True,
            temperature=1.0,
            allowed_ids=action[-1:],
            prompt_cut=2,
            action_cut=False,
            allowed_counts=np.array([0] * (len(action) - 1) + [1], np.int32),
        )
    )
    fields: dict[str, object] = dict(
        stream_id=stream,
        t=t,
        env_id="envs:Test-v0",
        obs_text=f"page {t} — ünïcode",
        decision=decision,
        work_id=uuid.UUID(int=t).bytes,
        signals=() if closing else (Signal("done", 0.5, "fraction", "env_state", "db"),),
        reward=None if closing else 0.25 * t,
        reward_version="linear-1",
        boundary=Boundary.RESET if t == 0 else Boundary.NONE,
    )
    return Step(**(fields | changes))  # type: ignore[arg-type]
