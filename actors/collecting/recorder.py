"""The recorder: writes what happens in a slot as rows of the journal."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from actors.agents.options import OptionStack
from actors.collecting.hosts.messages import Failed
from actors.collecting.rows import Marks, row, tool_results
from actors.collecting.slot import Slot, Table
from experience.answers import StepAnswer
from experience.planning.world_models.change import Outcome
from experience.policy import Decision
from experience.shards.journal import Journal
from experience.signal import LateSignals
from experience.step import Boundary, Ending, discount_after

_ENDINGS = {"terminated": Boundary.TERMINATED, "truncated": Boundary.TRUNCATED}
_MOST_ERROR_CHARACTERS = 500


class Recorder:
    """Appends the rows of many slots to one journal.

    steps_allowed: real training steps that may be taken in all; infinite if nothing limits them.
    remembers: whether a slot keeps the outcomes of its turns, for a planner.
    """

    def __init__(
        self,
        journal: Journal,
        reward_version: str,
        discount: float,
        remembers: bool,
    ) -> None:
        self.steps_allowed = 0.0
        self.steps_taken = 0
        self.closed = 0
        """Episodes closed so far."""
        self._closed: deque[tuple[bytes, Ending, bytes, int]] = deque()
        """Work that was closed, its ending, and the stream and t of its last row (-1: no row)."""
        self.failures: Counter[str] = Counter()
        """Of the machinery around the worlds; what a world failed in stands in its rows."""
        self._journal = journal
        self.reward_version = reward_version
        self._discount = discount
        self._remembers = remembers
        self._failed: set[str] = set()

    @property
    def steps_left(self) -> float:
        return self.steps_allowed - self.steps_taken

    def take_kept(self) -> list[tuple[bytes, Ending]]:
        """The work that was closed, with its ending, as far as its rows are acknowledged. Each is
        given once."""
        kept = []
        acknowledged = self._journal.acknowledged
        while self._closed and self._closed[0][3] <= acknowledged.get(self._closed[0][2], -1):
            work_id, ending, _, _ = self._closed.popleft()
            kept.append((work_id, ending))
        return kept

    @property
    def is_paused(self) -> bool:
        """Whether the journal waits for room on its disk."""
        return self._journal.paused

    def aside(self, slot: Slot, info: Mapping[str, Any] | None = None) -> None:
        """An option was started, the agent wrote a summary or a note, or a program asked the model:
        a row of its own, in which nothing was measured and no time passed."""
        marks: Marks | None = None
        if slot.context.is_aside:
            slot.boundary |= Boundary.CONTEXT_COMPACTED
            slot.context.is_aside = False
            marks = (None, None)  # an option under way has nothing to do with it
        self._append(slot, slot.decision, marks=marks, reward=0.0, discount=1.0, info=info or {})
        slot.turn += 1
        slot.decision = None

    def late(self, slot: Slot, late: Sequence[LateSignals], tag: str | None = None) -> None:
        """Notes signals of earlier steps for the next row, which keeps them until they are amended.

        tag: of the step that answered them; None: a reset did. Raises EnvironmentFailure for a
        step that the world has not taken in this stream.
        """
        if tag is not None:
            slot.ledger.note(self._journal.next_t(slot.stream_id), tag)
        for one in late:
            t = slot.ledger.row(slot.env_id, one.of)
            slot.late += [
                {"t": t, "name": s.name, "value": s.value, "evidence": s.evidence}
                for s in one.signals
            ]

    def turn(self, slot: Slot, answer: StepAnswer, reward: float | None) -> Ending:
        """The world answered the slot's decision. Returns how the episode ended with it."""
        ending = slot.ending_of(answer)
        marks = slot.option_stack.mark  # of the option that acted: it may end below
        if slot.option_stack.running and (  # a generator costs as much as the row
            slot.option_stack.arrived(answer.observation, np.random.default_rng([slot.draw, 1]))
            or ending != "none"
        ):
            slot.boundary |= Boundary.OPTION_END
        self._append(
            slot,
            slot.decision,
            signals=answer.signals,
            reward=reward,
            ending=ending,
            discount=discount_after(ending, self._discount),
            marks=marks,
            tool_results=tool_results(slot.decision, answer),
        )
        if slot.decision is not None and self._remembers:
            known = {s.name: s.value for s in answer.signals if s.value is not None}
            outcome = Outcome(answer.observation, known, answer.terminated)
            slot.option_stack.remember(slot.observation, slot.decision.text, outcome)
        slot.turn += 1
        slot.decision = None
        slot.observation = answer.observation
        slot.info = answer.info
        slot.state = answer.info.get("state", answer.observation)
        if ending == "truncated" and not answer.truncated:
            slot.stand()
        return ending

    def failure(self, slot: Slot, failed: Failed) -> None:
        """The world or the model broke: a turn under way is kept without a reward, the episode
        closed. At a table all its agents' episodes are."""
        what = f"{failed.kind}: {failed.what}"[:_MOST_ERROR_CHARACTERS]
        why = {"error": what}
        about = why | self._traceback(slot, failed)
        for seat in slot.everyone:
            if seat.decision is not None:
                self._append(seat, seat.decision, ending=failed.ending, info=why)
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
        last = self._journal.next_t(slot.stream_id) - 1
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
        last = self._journal.next_t(stream) - 1
        self._closed.append((work.work_id, ending or "terminated", stream, last))
        table.owner.free()

    def _end(self, slot: Slot, ending: Ending, *, with_next: bool, info: dict[str, Any]) -> None:
        slot.decision = None
        slot.option_stack = OptionStack()
        slot.boundary |= _ENDINGS.get(ending, Boundary.NONE)
        self._append(slot, None, with_next=with_next, ending=ending, info=info)
        self.closed += 1
        slot.free()

    def _append(
        self,
        slot: Slot,
        decision: Decision | None,
        *,
        marks: Marks | None = None,
        with_next: bool = False,
        **answer: Any,
    ) -> None:
        marks = marks or slot.option_stack.mark
        answer["reward_version"] = self.reward_version
        step = row(slot, decision, self._journal, marks, **answer)
        if decision is not None:
            slot.last_t = step.t
        self.steps_taken += step.is_training
        self._journal.append(step, with_next=with_next)
