"""`./xp env check ID`: tries on a world each claim that must hold before anybody learns from it.

Most check ids are those of OpenEnv's RFC 008, so that results compare; some are our own. A check
passes and says what it looked at, fails, or is skipped with a reason. A check with nothing to look
at is skipped. Actors are the oracle, random actions, doing nothing, and the world's own cheats. A
second process repeats their episodes.

Does not cover: whether the reward means what its author wants; a world whose oracle pursues the
wrong goal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Checks are tried in the order in which these are imported.
# isort: off
from envs.check import running, agents, repeating, containment, worth, learning  # noqa: F401

# isort: on
from envs.check.mutants import mutants
from envs.check.runner import Result, results
from envs.check.subject import CHECKS, Subject
from experience.errors import ConfigError

__all__ = ["Result", "Subject", "check", "checks", "mutants"]


def checks() -> list[str]:
    """The ids of all checks, in order."""
    return list(CHECKS)


def check(
    env_id: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    episodes: int = 12,
    only: Sequence[str] = (),
    with_mutants: bool = False,
) -> Iterator[Result]:
    """Yields the results for one id, in order.

    Raises ConfigError for an unknown id or check, and whatever `make` raises.
    """
    unknown = set(only) - set(CHECKS)
    if unknown:
        raise ConfigError(f"no check {sorted(unknown)[0]!r}", "there are: " + ", ".join(CHECKS))
    subject = Subject(env_id, arguments, episodes)
    try:
        yield from results(subject, only)
    finally:
        subject.close()
    if with_mutants:
        yield from mutants(env_id, arguments)
