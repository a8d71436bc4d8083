"""The interface of every pool, and the one way in which pools read new steps.

Calls to a pool carry policies, orders and counts. Steps never travel through a call: collectors
write them to the shards, and the pool reads them there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from actors.collecting.loop.collector import MakeDesk
from actors.collecting.work import Work
from actors.config.schema import Config
from experience.interrupts import whole
from experience.models.weights import PolicyBundle
from experience.step import Step


def programs_of(config: Config) -> MakeDesk | None:
    """The desk of collectors whose agents are programs; None where there are none."""
    if not config.agents:
        return None
    # imported here: it loads a web server, which no other run needs
    from actors.gateway.programs import desk_of

    return desk_of(config)


class Follows(Protocol):
    """What gives the committed steps of a store, each once: a Catalog, or an EpisodeIndex."""

    def follow(self) -> Iterator[list[Step]]:
        """The steps committed since the last call, a block at a time."""


class Pool(Protocol):
    """Collectors that live episodes, wherever they run."""

    def push(self, policy: PolicyBundle, quota: int) -> None:
        """Offers a new policy to the collectors. quota: training groups that may have been begun
        in all, by all of them; it only ever rises."""

    def stop(self) -> None:
        """No further training group is begun until `push` allows more than ever before."""

    def order(self, works: Sequence[Work], policy: PolicyBundle | None = None) -> None:
        """Shares out episodes that must be lived before training goes on.

        policy: the policy that acts in these episodes; None for works that need no policy.
        """

    def drop(self) -> None:
        """Cancels all ordered episodes that are not done."""

    def shards(self, until: Callable[[], bool]) -> Iterator[list[Step]]:
        """Yields committed steps of all collectors as the steps become readable.

        Yields an empty list while there is nothing new, and ends when `until()` is true.
        """

    @property
    def restarts(self) -> int:
        """How often a collector died and came back."""

    def status(self) -> list[dict[str, Any]]:
        """One record per collector, for progress and metrics."""

    @property
    def quarantined(self) -> list[tuple[str, int]]:
        """Tasks (world, seed) that ended too many processes, and are not lived any more."""

    def close(self) -> dict[bytes, int]:
        """Seals all journals. Returns the last acknowledged t of each stream."""


@whole
def all_new(catalog: Follows) -> list[Step]:
    """All steps committed since the last call.

    The catalog's cursor moves while it is read. A signal therefore waits until the whole list is
    read: an interrupted read would lose the steps that the cursor has passed.
    """
    return [step for block in catalog.follow() for step in block]
