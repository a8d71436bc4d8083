"""`./xp env check ID`: what a world must keep before anybody learns from it, each claim tried on the world itself.

The ids are those of OpenEnv's RFC 008, so that results compare, and some of our own. A check passes and says what
it looked at, fails, or is skipped with the reason: one that had nothing to look at is skipped. Episodes are lived by
the oracle, at random, by doing nothing and by the world's own cheats; a second process repeats them.
Does not cover: whether a reward means what its author wants; worlds whose oracle is wrong about the goal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Checks are tried in the order in which these are imported.
# isort: off
from envs.check import running, repeating, containment, worth, learning  # noqa: F401

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
    """All results for one id, in order. Raises ConfigError for an unknown id or check, and what `make` raises."""
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
