"""The rate limiter: how far collecting may run ahead of learning."""

from __future__ import annotations

from dataclasses import dataclass

from experience.errors import ConfigError

_FOR_EVER = 1 << 62


@dataclass(frozen=True)
class RateLimiter:
    """Bounds the age of what is learned from, counted in versions of the policy.

    With B = `items_per_update` items an update, no item is older than η = `max_lag` versions when
    it is learned from. B = 0: no bound.
    """

    items_per_update: int = 0
    max_lag: int = 0

    def __post_init__(self) -> None:
        if self.items_per_update < 0 or self.max_lag < 0:
            raise ConfigError(
                f"a rate limiter of {self.items_per_update} items an update and a lag of "
                f"{self.max_lag}",
                "give 0 or more for both",
            )

    def inserts_allowed(self, version: int) -> int:
        """How many items may have been collected by now, from the very first, at `version`.

        (η + version + 1)·B    AReaL (arXiv 2505.24298), eq. 3

        It is an absolute count, so that a collector far away may be told it late, or twice.
        """
        if not self.items_per_update:
            return _FOR_EVER
        return (self.max_lag + version + 1) * self.items_per_update
