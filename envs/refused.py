"""What a world raises for an action that it refuses. Imports nothing, as pages need it too."""

from __future__ import annotations


class Refused(ValueError):
    """An action that a world refuses: why in a few words, and in a whole sentence."""

    def __init__(self, terse: str, plain: str) -> None:
        super().__init__(terse)
        self.plain = plain
