"""Checks of `./xp env check` as graders of OpenEnv's RFC 008.

They have the ids that OpenEnv 0.10 reserves but does not implement. Each tries its claim on the
running subject, over OpenEnv's protocol. OpenEnv finds them by their entry points.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from openenv.validation.report import CheckResult
from openenv.validation.types import CheckStatus, Level

_ROOT = str(Path(__file__).resolve().parents[3])


class _Grader:
    """`check` is the name that the check has here."""

    check_id: str
    check: str
    level = Level.RUNTIME
    requires_capabilities: frozenset[str] = frozenset()
    requires_provider: frozenset[Any] = frozenset()
    depends_on = ("runtime.startup",)

    def applies_to(self, manifest: Any) -> bool:
        return True

    def run(self, subject: Any) -> CheckResult:
        # This checkout is no package of that Python: only this folder is installed there.
        if _ROOT not in sys.path:
            sys.path.insert(0, _ROOT)
        from envs.check import check

        server = {"url": subject.running.base_url}
        found = next(iter(check("envs:OpenEnv-v0", server, only=[self.check], episodes=4)))
        return CheckResult(
            check_id=self.check_id,
            status=CheckStatus(found.outcome.lower()),
            evidence=[found.detail],
            duration_s=found.seconds,
        )


class SeedControl(_Grader):
    check_id = "runtime.seed_control"
    check = "seed_control"


class EpisodeDeterminism(_Grader):
    check_id = "runtime.episode_determinism"
    check = "episode_determinism"


class EpisodeIsolation(_Grader):
    check_id = "runtime.episode_isolation"
    check = "episode_isolation"


class Replayability(_Grader):
    check_id = "semantic.replayability"
    check = "replayability"
    level = Level.SEMANTIC


class ResourceEnvelope(_Grader):
    check_id = "semantic.resource_envelope"
    check = "resource_envelope"
    level = Level.SEMANTIC
