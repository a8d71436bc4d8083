"""What a run's dispatcher was told, so that one that starts again can be told it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from actors.collecting.work import Work


class Teller(Protocol):
    """Takes what a dispatcher is told; see `Dispatcher`."""

    def publish(self, version: int, allowed: int, policy: Any) -> None: ...

    def hold_back(self) -> None: ...

    def order(self, works: Sequence[Work], version: int, policy: Any) -> None: ...

    def drop(self) -> None: ...


class Told:
    """Tells a dispatcher, and remembers what still holds."""

    def __init__(self, teller: Teller) -> None:
        self._teller = teller
        self._published: tuple[int, int, Any] | None = None
        self._orders: list[tuple[list[Work], int, Any]] = []
        """Everything ordered since the last `drop`."""
        self._held_at: int | None = None
        """The quota at which training was held back; None where it was not."""

    def publish(self, version: int, allowed: int, policy: Any) -> None:
        if self._held_at is not None and allowed > self._held_at:
            self._held_at = None
        self._published = (version, allowed, policy)
        self._teller.publish(version, allowed, policy)

    def hold_back(self) -> None:
        self._held_at = 0 if self._published is None else self._published[1]
        self._teller.hold_back()

    def order(self, works: Sequence[Work], version: int, policy: Any) -> None:
        self._orders.append((list(works), version, policy))
        self._teller.order(works, version, policy)

    def drop(self) -> None:
        self._orders.clear()
        self._teller.drop()

    def again(self) -> None:
        """The dispatcher was started again, and knows nothing."""
        if self._published is not None:
            self._teller.publish(*self._published)
        if self._held_at is not None:
            self._teller.hold_back()
        for order in self._orders:
            self._teller.order(*order)
