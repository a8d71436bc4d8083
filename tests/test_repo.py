"""code/repo: what its tests do not tell is no verdict."""

from __future__ import annotations

from typing import Any

import gymnasium
import pytest

from envs.code_execution.repo import package
from envs.code_execution.repo.edits import check_edit, faults
from experience.errors import EnvironmentFailure


def test_tests_without_a_verdict_in_time_are_a_failure_and_mend_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No test passes in an empty reference, so that any file would have them all."""
    world: Any = gymnasium.make("envs:Repo-v0").unwrapped
    world.task = faults("euler")[0]
    world._lines, world._unwanted = world.task.lines(), ""
    monkeypatch.setattr(package, "TEST_SECONDS", 0.05)
    package.reference.cache_clear()
    with pytest.raises(EnvironmentFailure, match=r"gave no verdict in 0\.05 s"):
        world.act("submit")


def test_every_fault_can_be_written_and_mended_by_an_agent() -> None:
    found = faults("euler")
    assert len(found) > 20 and len(set(found)) == len(found)
    right = package.source("euler")
    for fault in found[::5]:
        broken = "\n".join(fault.lines())
        assert fault.lines() != list(right)
        check_edit(right[fault.line - 1].strip(), broken, "\n".join(right))
