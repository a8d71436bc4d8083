"""The ledger of a world: which row of its stream each of its steps became."""

from __future__ import annotations

from array import array

from experience.errors import EnvironmentFailure

_MOST_STEPS = 1 << 20
_MOST_TAGS = 100_000


class Ledger:
    """Finds the row of an earlier step, to which late signals belong.

    A number counts the steps since the world's last reset. A tag stays valid after a reset, and
    names the newest step that carries it. The ledger keeps the newest million steps and 100,000
    tags.
    """

    def __init__(self) -> None:
        self._rows = array("q")
        self._forgotten = 0
        """Steps since the reset that are not known any more."""
        self._tags: dict[str, int] = {}

    def begin(self) -> None:
        """The world was reset: steps are counted from 0 again."""
        self._rows, self._forgotten = array("q"), 0

    def note(self, t: int, tag: str) -> None:
        """The world's next step is row `t`."""
        self._rows.append(t)
        if len(self._rows) > 2 * _MOST_STEPS:
            del self._rows[:_MOST_STEPS]
            self._forgotten += _MOST_STEPS
        if tag:
            self._tags.pop(tag, None)  # the newest at the end
            self._tags[tag] = t
            if len(self._tags) > _MOST_TAGS:
                del self._tags[next(iter(self._tags))]

    def row(self, world: str, of: int | str) -> int:
        """The t of the step that `of` names. Raises EnvironmentFailure if no step is known so."""
        if isinstance(of, str):
            if of in self._tags:
                return self._tags[of]
            known = ", ".join(list(self._tags)[-5:]) or "none"
            raise EnvironmentFailure(
                f"{world}: info['late'] names the step {of[:80]!r}, and no step had that tag; the "
                f"newest tags are: {known}",
                "name a step by info['tag'] in its answer, and pay it by that tag later",
            )
        place = of - self._forgotten
        if not 0 <= place < len(self._rows):
            raise EnvironmentFailure(
                f"{world}: info['late'] names step {of}; since its reset the world took "
                f"{self._forgotten + len(self._rows)} steps, counted from 0",
                "pay a step of an earlier episode by its tag",
            )
        return self._rows[place]
