"""A step's reward by term: which signal gave how much of it, and whether the terms add up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actors.reading.viewer.shelf.shelf import config_of
from actors.reading.viewer.shelf.worlds import world_class
from actors.runs.directory import RunDirectory
from experience.step import Step
from experience.world import WorldCard

_EXACT = 1e-6
REWARDS = "rewards"
"""The entry of run.json that says what each reward version is: {version: {"weights", "functions"}}.
"""


class Terms:
    """The weights of a run's rewards.

    They stand in its record; of a run that an older source made, in its configuration, and where
    that leaves them to the world, in the world's class.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._recorded = _recorded(directory.record.get(REWARDS))
        self._fallback: dict[str, Mapping[str, float] | None] = {}

    def of(self, step: Step) -> dict[str, Any] | None:
        """{terms: [{name, weight, value, part}], adds_up, is_code}; None if no weights are known.

        `adds_up` is None where the reward is unknown, or where a function of the world computes it.
        """
        if step.decision is None or not step.signals:
            return None
        described = self._recorded.get(step.reward_version)
        weights = self._weights(described, step.env_id)
        if weights is None:
            return None
        terms: list[dict[str, Any]] = []
        for signal in step.signals:
            weight = weights.get(signal.name)
            if weight is None:
                continue
            part = None if signal.value is None else weight * signal.value
            terms.append(
                {"name": signal.name, "weight": weight, "value": signal.value, "part": part}
            )
        is_code = step.reward_version.startswith("code-")
        parts = [term["part"] for term in terms]
        adds_up = None
        if step.reward is not None and not is_code:
            known = [part for part in parts if part is not None]
            adds_up = len(known) == len(parts) and abs(sum(known) - step.reward) <= _EXACT
        return {"terms": terms, "adds_up": adds_up, "is_code": is_code}

    def _weights(
        self, described: Mapping[str, Any] | None, env_id: str
    ) -> Mapping[str, float] | None:
        if described is not None:
            found = described.get(env_id)
            return found if isinstance(found, Mapping) else None
        if env_id not in self._fallback:
            self._fallback[env_id] = self._guessed(env_id)
        return self._fallback[env_id]

    def _guessed(self, env_id: str) -> Mapping[str, float] | None:
        """Weights that stood in no record: a page compares their sum with the reward."""
        config = config_of(self._directory)
        for world in config.worlds if config else ():
            if world.id == env_id and world.rewards is not None:
                return world.rewards
        made = world_class(env_id, self._directory)
        return None if made is None else WorldCard.of(made).rewards


def _recorded(found: Any) -> dict[str, Mapping[str, Any]]:
    """Reward version -> environment id -> weights; leaves out what is no such thing."""
    if not isinstance(found, Mapping):
        return {}
    named = {}
    for version, described in found.items():
        weights = described.get("weights") if isinstance(described, Mapping) else None
        if isinstance(weights, Mapping):
            named[str(version)] = weights
    return named
