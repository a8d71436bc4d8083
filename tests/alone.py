"""A collector with a dispatcher of its own, both in the test's process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from actors.collecting.dispatcher import Dispatcher
from actors.collecting.loop.collector import Collector
from actors.collecting.loop.leases import DirectLine
from actors.collecting.work import Work, done_before
from actors.config.schema import Config
from experience.models.weights import PolicyBundle

SMALLEST_POLICY = (
    "policy.layers=1",
    "policy.width=16",
    "policy.heads=2",
    "policy.max_tokens=4",
    "policy.context=64",
)
"""Settings of a policy that is made in milliseconds, where it does not matter what it does."""


class Alone(Collector):
    """Is told what to live by the test, as a pool tells its dispatcher."""

    def __init__(self, config: Config, folder: Path) -> None:
        done = done_before(folder, config.collecting.group_size)
        self.dispatcher = Dispatcher(config, done, lease_seconds=math.inf)
        super().__init__(config, "r", folder, 0, DirectLine(self.dispatcher))
        self.dispatcher.on_news = self.leases.hear

    def load(self, policy: PolicyBundle | None, quota: int) -> None:
        self.dispatcher.publish(-1 if policy is None else policy.version, quota, policy)

    def order(self, works: Sequence[Work], policy: PolicyBundle | None = None) -> None:
        self.dispatcher.order(works, -1 if policy is None else policy.version, policy)

    @property
    def is_done(self) -> bool:
        """Whether nothing is ordered, waits or is under way."""
        return self.idle and not self.dispatcher.may_go_on
