"""Episodes and groups: the one way in which a stream of steps is cut."""

from __future__ import annotations

from dataclasses import dataclass

from experience.step import FAILED, Boundary, Ending, Step

BEGINS = Boundary.RESET | Boundary.WORKER_RESTART
"""Marks of a row that begins an episode. A row after a closing row begins one, too."""


def ending_of(last: Step | None, closing: Step | None) -> Ending | None:
    """How an episode ended, by its last acted row and its closing row; None if a crash cut it off.

    The closing row says it, since a cancelled run or a failed engine stops an episode between two
    turns, where no acted row can be marked. Experience from elsewhere may have a closing row that
    says `none`: then the last acted row says it. Without a closing row the episode was cut off.
    `EPISODES` in experience/shards/sql.py is the same rule in SQL, and tests/test_episodes.py
    compares the two.
    """
    if closing is None:
        return None
    if closing.ending != "none" or last is None:
        return closing.ending
    return last.ending


@dataclass(frozen=True)
class Episode:
    """The answered turns of one episode, and its closing row.

    There are no turns where the world could not start, and no closing row after a crash.
    """

    steps: tuple[Step, ...]
    closing: Step | None

    @property
    def first(self) -> Step:
        """Any row of it, for what all share: the world, the task, the source."""
        first = self.steps[0] if self.steps else self.closing
        assert first is not None
        return first

    @property
    def rows(self) -> tuple[Step, ...]:
        """All of it, the closing row too where there is one."""
        return self.steps if self.closing is None else (*self.steps, self.closing)

    @property
    def transitions(self) -> list[tuple[Step, Step]]:
        """(row, next row), the last with the closing row; none where that is missing."""
        return [] if self.closing is None else list(zip(self.steps, self.rows[1:], strict=True))

    @property
    def acted(self) -> list[tuple[str, str]]:
        """What was seen and done in the world, turn by turn, without asides."""
        return [(s.obs_text, s.decision.text) for s in self.steps if s.decision and not s.is_aside]

    @property
    def total_reward(self) -> float | None:
        """Sum of the rewards, None if any is unknown."""
        rewards = [s.reward for s in self.steps]
        return (
            None
            if any(r is None for r in rewards)
            else float(sum(r for r in rewards if r is not None))
        )

    @property
    def ending(self) -> Ending | None:
        """How it ended; None where a crash cut it off."""
        return ending_of(self.steps[-1] if self.steps else None, self.closing)

    @property
    def is_awaited(self) -> bool:
        """Whether a reward is unknown now, and the world said that it will measure it later."""
        return self.total_reward is None and any(step.is_awaited for step in self.steps)

    @property
    def failed(self) -> bool:
        """Whether the episode says nothing about the agent: a crash or the world ended it."""
        return not self.steps or self.ending is None or self.ending in FAILED


class EpisodeReader:
    """Puts the rows of streams together to episodes, as they come.

    A row marked as reset or restart begins a new episode, and so does the row after a closing row.
    """

    def __init__(self) -> None:
        self._open: dict[bytes, list[Step]] = {}

    def take(self, step: Step) -> list[Episode]:
        """The episodes that end with this row: one that a crash cut off, one that it closes."""
        over, rows = [], self._open.setdefault(step.stream_id, [])
        # A reset on the first row is the ordinary case: only with rows before it was one cut off.
        if rows and step.boundary & BEGINS:
            over.append(Episode(tuple(rows), None))
            rows.clear()
        if step.is_closing:
            over.append(Episode(tuple(self._open.pop(step.stream_id)), step))
        else:
            rows.append(step)
        return over

    def find(self, stream: bytes, t: int) -> Step | None:
        """The row of an open episode; None if no open episode holds it."""
        rows = self._open.get(stream, [])
        place = t - rows[0].t if rows else -1
        return rows[place] if 0 <= place < len(rows) and rows[place].t == t else None

    def amend(self, step: Step) -> None:
        """Takes `step` in place of the row of the same t, which an open episode holds."""
        rows = self._open[step.stream_id]
        rows[step.t - rows[0].t] = step

    def rest(self) -> list[Episode]:
        """What was not closed: under way, or cut off by a crash."""
        return [Episode(tuple(rows), None) for rows in self._open.values() if rows]


@dataclass(frozen=True)
class Group:
    """Episodes of the same task from the same start: what a group baseline is taken over."""

    group_id: str
    episodes: tuple[Episode, ...]

    @property
    def oldest_version(self) -> int:
        return min(
            (s.decision.policy_version for e in self.episodes for s in e.steps if s.decision),
            default=0,
        )
