"""The policies that a run's collectors act with: the newest, and those that evaluations name."""

from __future__ import annotations

from collections.abc import Set
from typing import Any


class Policies:
    """Invariant: the version of the newest policy only ever rises."""

    def __init__(self) -> None:
        self.version = -1
        self._newest: Any = None
        self._pins: dict[int, Any] = {}

    def publish(self, version: int, policy: Any) -> None:
        """The newest policy; one that is older came late, and is ignored."""
        if version >= self.version:
            self.version, self._newest = version, policy

    def newer_than(self, version: int) -> Any:
        """The newest policy; None for whoever has it."""
        return self._newest if self.version > version else None

    def pin(self, version: int, policy: Any) -> None:
        """Keeps a policy for the work that names its version."""
        self._pins[version] = policy

    def keep(self, versions: Set[int]) -> None:
        """Drops the pinned policies of all other versions: weights that no work names any more
        would stay in memory as long as the run."""
        self._pins = {version: pin for version, pin in self._pins.items() if version in versions}

    def pinned(self, versions: Set[int]) -> dict[int, Any]:
        return {version: self._pins[version] for version in versions & self._pins.keys()}
