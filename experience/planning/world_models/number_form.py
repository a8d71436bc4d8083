"""Observations of one form as numbers, and numbers as an observation of that form."""

from __future__ import annotations

import math
import re

import numpy as np

from experience.errors import RecordError

_NUMBER = re.compile(r"-?\d+(?:\.(\d+))?(?:e[+-]?\d+)?")


class NumberForm:
    """The one form of a world's observations: the text with each number as #.

    It is set by the first observation that is read, and never changes.
    """

    def __init__(self, form: str | None = None) -> None:
        self.form = form

    @property
    def size(self) -> int:
        """How many numbers an observation has."""
        return str(self.form).count("#")

    def fits(self, observation: str) -> bool:
        return form_of(observation) == self.form

    def read(self, observation: str) -> np.ndarray:
        """The numbers of the observation, float [N]. Raises RecordError if its form is another."""
        form = form_of(observation)
        if self.form is None:
            self.form = form
        if form != self.form:
            raise RecordError(
                f"observation of the form {form[:60]!r}, those before were {self.form[:60]!r}",
                "use planning.model.kind=language for worlds whose screens differ",
            )
        return np.array([float(n[0]) for n in _NUMBER.finditer(observation)])


def form_of(observation: str) -> str:
    """The observation with every number as #; a # in the text itself stands as No."""
    return _NUMBER.sub("#", observation.replace("#", "No."))


def written(observation: str, numbers: np.ndarray) -> str:
    """The observation with its numbers replaced by `numbers`."""
    values = iter(numbers.tolist())
    return _NUMBER.sub(lambda seen: _as_written(next(values), len(seen[1] or "")), observation)


def _as_written(number: float, decimals: int) -> str:
    """The number with four digits, or with the world's number of decimals if that is finer."""
    size = abs(number)
    if size >= 1e15:
        return f"{number:.15g}"
    of_four = 3 - math.floor(math.log10(size)) if size else 0
    # More digits than the model can know would be noise that a reader takes for knowledge.
    text = f"{number:.{max(of_four, decimals)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
