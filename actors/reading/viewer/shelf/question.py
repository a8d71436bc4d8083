"""What a page asks, read strictly: a number is a number in its bounds, or the answer is an error."""

from __future__ import annotations

import math
from collections.abc import Mapping

from experience.errors import ConfigError

_MOST_CHARACTERS = 8000


class Question:
    """The words of a query string, by name."""

    def __init__(self, words: Mapping[str, str] | None = None) -> None:
        self._words = dict(words or {})
        for name, value in self._words.items():
            if len(value) > _MOST_CHARACTERS:
                raise ConfigError(f"{name[:40]} has more than {_MOST_CHARACTERS} characters")

    def without(self, *names: str) -> Question:
        return Question({k: v for k, v in self._words.items() if k not in names})

    def text(self, name: str) -> str:
        """Empty where nothing was asked."""
        return self._words.get(name, "")

    def maybe_number(self, name: str) -> float | None:
        if not self.text(name):
            return None
        try:
            value = float(self.text(name))
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ConfigError(f"{name}={self.text(name)!r} is no number", "give one, such as 0.5")
        return value

    def maybe_whole(self, name: str) -> int | None:
        return self.whole(name, 0, 0, 1 << 62) if self.text(name) else None

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        text = self.text(name)
        if not text:
            return default
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
            raise ConfigError(f"{name}={text!r} is no whole number", "give one, such as 3")
        value = int(text)
        if not low <= value <= high:
            raise ConfigError(f"{name} = {value} is not from {low} to {high}")
        return value
