"""The seam of a checkpoint: parts of a run that are saved and restored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Saveable(Protocol):
    """A part of a run whose state goes into a checkpoint."""

    def save(self) -> dict[str, bytes]:
        """The state, as contents by file name."""

    def restore(self, saved: Mapping[str, bytes], *history: Any, **more: Any) -> None:
        """Continues where `save` was called. `saved` holds the files of all parts.

        Some parts do not save what the store already holds: they take it as `history`.
        """
