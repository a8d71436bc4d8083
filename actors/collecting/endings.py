"""Endings: how the episodes of slots and tables end, and which work is over by it."""

from __future__ import annotations

from collections import deque
from typing import Any

from actors.agents.options import OptionStack
from actors.collecting.hosts.messages import Failed
from actors.collecting.recorder import Recorder
from actors.collecting.slot import Slot, Table
from experience.step import Boundary, Ending

_MARKS = {"terminated": Boundary.TERMINATED, "truncated": Boundary.TRUNCATED}
_MOST_ERROR_CHARACTERS = 500


class Endings:
    """Appends the closing rows of episodes, and frees their slots."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.closed = 0
        """Episodes closed so far, of each agent."""
        self._closed: deque[tuple[bytes, Ending, bytes, int]] = deque()
        """Work that was closed, its ending, and the stream and t of its last row (-1: no row)."""
        self._failed: set[str] = set()

    def take_kept(self) -> list[tuple[bytes, Ending]]:
        """The work that was closed, with its ending, as far as its rows are acknowledged. Each is
        given once."""
        kept = []
        acknowledged = self._recorder.journal.acknowledged
        while self._closed and self._closed[0][3] <= acknowledged.get(self._closed[0][2], -1):
            work_id, ending, _, _ = self._closed.popleft()
            kept.append((work_id, ending))
        return kept

    def failure(self, slot: Slot, failed: Failed) -> None:
        """The world or the model broke: a turn under way is kept without a reward, the episode
        closed. At a table all its agents' episodes are."""
        what = f"{failed.kind}: {failed.what}"[:_MOST_ERROR_CHARACTERS]
        why = {"error": what}
        about = why | self._traceback(slot, failed)
        for seat in slot.everyone:
            if seat.decision is not None:
                self._recorder.append(seat, seat.decision, ending=failed.ending, info=why)
                seat.turn += 1
        if slot.table is None:
            self.close(slot, failed.ending, **about)
        else:
            self.close_table(slot.table, failed.ending, **about)

    def _traceback(self, slot: Slot, failed: Failed) -> dict[str, str]:
        """The traceback of an error, the first time that it is met in a world: it is long."""
        name = f"{slot.env_id}: {failed.kind}"
        if name in self._failed or not failed.traceback:
            return {}
        self._failed.add(name)
        return {"traceback": failed.traceback}

    def abandon(self, slot: Slot) -> None:
        """Leaves an episode that another collector lives again: its rows here have no end."""
        for one in slot.everyone:
            if one.table is None or one.has_begun:
                one.boundary |= Boundary.GAP
            one.decision = None
            one.option_stack = OptionStack()
            one.free()

    def cancel(self, slot: Slot) -> None:
        """Ends an episode that nobody waits for; an episode without a turn leaves no row."""
        if not any(one.turn for one in slot.everyone):
            self._leave(slot)
        elif slot.table is None:
            self.close(slot, "cancelled")
        else:
            self.close_table(slot.table, "cancelled")

    def _leave(self, slot: Slot) -> None:
        """Frees a slot whose work has no row."""
        assert slot.work is not None
        self._closed.append((slot.work.work_id, "cancelled", slot.stream_id, -1))
        for one in slot.everyone:
            one.decision = None
            one.free()

    def close(self, slot: Slot, ending: Ending, **info: Any) -> None:
        """Appends the closing row, which has no action, and frees the slot."""
        assert slot.work is not None
        work_id = slot.work.work_id
        self._end(slot, ending, with_next=False, info=info)
        last = self._recorder.journal.next_t(slot.stream_id) - 1
        self._closed.append((work_id, ending, slot.stream_id, last))

    def close_table(self, table: Table, ending: Ending | None = None, **info: Any) -> None:
        """Closes the episodes of all agents, and frees their seats and the slot of the world.

        All closing rows are committed together: after a crash an episode has ended for all its
        agents, or for none. ending: None is each agent's own.
        """
        work = table.owner.work
        assert work is not None
        # those that have seen nothing, too: their group waits for this episode
        seats = list(table.seats.values())
        for seat in seats:
            own = ending or table.endings[seat.agent]
            self._end(seat, own, with_next=seat is not seats[-1], info=info)
        stream = seats[-1].stream_id
        last = self._recorder.journal.next_t(stream) - 1
        self._closed.append((work.work_id, ending or "terminated", stream, last))
        table.owner.free()

    def _end(self, slot: Slot, ending: Ending, *, with_next: bool, info: dict[str, Any]) -> None:
        slot.decision = None
        slot.option_stack = OptionStack()
        slot.boundary |= _MARKS.get(ending, Boundary.NONE)
        self._recorder.append(slot, None, with_next=with_next, ending=ending, info=info)
        self.closed += 1
        slot.free()
