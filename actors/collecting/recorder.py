"""The recorder: writes what happens in a slot as rows of the journal."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from actors.agents.options import OptionStack
from actors.collecting.hosts.messages import Failed
from actors.collecting.slot import Slot
from experience.answers import StepAnswer
from experience.planning.world_models.change import Outcome
from experience.policy import Decision
from experience.shards.journal import Journal
from experience.shards.storage.blobs import media_and_size
from experience.signal import LateSignals
from experience.step import LATE_INFO, Boundary, Ending, Source, Step, discount_after, state_key
from experience.text.tools import ToolResult

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
        self._reward_version = reward_version
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

    def aside(self, slot: Slot) -> None:
        """An option was started, or the agent wrote a summary or a note: a row of its own, in which
        nothing was measured and no time passed."""
        marks: tuple[int | None, int | None] | None = None
        if slot.context.is_aside:
            slot.boundary |= Boundary.CONTEXT_COMPACTED
            slot.context.is_aside = False
            marks = (None, None)  # an option under way has nothing to do with it
        self._append(slot, slot.decision, marks=marks, reward=0.0, discount=1.0)
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

    def turn(self, slot: Slot, answer: StepAnswer, reward: float | None) -> None:
        """The world answered the slot's decision; closes the episode if it ended."""
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
            tool_results=_results(slot.decision, answer),
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
        if ending != "none":
            self._close_episode(slot, ending, {})

    def failure(self, slot: Slot, failed: Failed) -> None:
        """The world or the model broke: the turn is kept without a reward, the episode closed."""
        what = f"{failed.kind}: {failed.what}"[:_MOST_ERROR_CHARACTERS]
        why = {"error": what}
        if slot.decision is not None:
            self._append(slot, slot.decision, ending=failed.ending, info=why)
            slot.turn += 1
        self._close_episode(slot, failed.ending, why | self._traceback(slot, failed))

    def _traceback(self, slot: Slot, failed: Failed) -> dict[str, str]:
        """The traceback of an error, the first time that it is met in a world: it is long."""
        name = f"{slot.env_id}: {failed.kind}"
        if name in self._failed or not failed.traceback:
            return {}
        self._failed.add(name)
        return {"traceback": failed.traceback}

    def abandon(self, slot: Slot) -> None:
        """Leaves an episode that another collector lives again: its rows here have no end."""
        slot.boundary |= Boundary.GAP
        slot.decision = None
        slot.option_stack = OptionStack()
        slot.free()

    def cancel(self, slot: Slot) -> None:
        """Ends an episode that nobody waits for; an episode without a turn leaves no row."""
        if slot.turn:
            self._close_episode(slot, "cancelled", {})
            return
        assert slot.work is not None
        self._closed.append((slot.work.work_id, "cancelled", slot.stream_id, -1))
        slot.free()

    def _close_episode(self, slot: Slot, ending: Ending, info: Mapping[str, Any]) -> None:
        """Appends the closing row, which has no action, and frees the slot."""
        assert slot.work is not None
        slot.decision = None
        slot.option_stack = OptionStack()
        slot.boundary |= _ENDINGS.get(ending, Boundary.NONE)
        self._append(slot, None, ending=ending, info=info)
        last = self._journal.next_t(slot.stream_id) - 1
        self._closed.append((slot.work.work_id, ending, slot.stream_id, last))
        self.closed += 1
        slot.free()

    def _append(
        self,
        slot: Slot,
        decision: Decision | None,
        *,
        marks: tuple[int | None, int | None] | None = None,
        **answer: Any,
    ) -> None:
        work = slot.work
        assert work is not None
        option_id, option_step = marks or slot.option_stack.mark
        source: Source = "demonstration" if work.lane == "demonstration" else "real"
        boundary = slot.boundary
        if slot.turn == 0:
            boundary |= Boundary.CONTINUES if slot.continues else Boundary.RESET
        slot.boundary = Boundary.NONE
        if slot.late:
            answer["info"] = {**answer.get("info", {}), LATE_INFO: slot.late}
            slot.late = []
        card = slot.cards.get(work.env_id)
        seen = tuple(
            self._journal.blobs.put(data, *media_and_size(data), role=role)
            for role, data in slot.images.items()
        )
        t = self._journal.next_t(slot.stream_id)
        forks = decision is not None and slot.context.forks
        row = Step(
            stream_id=slot.stream_id,
            t=t,
            parent=(slot.stream_id, slot.last_t) if forks else None,
            env_id=work.env_id,
            obs_text=slot.observation,
            obs_blobs=seen,
            source=source,
            episode=slot.episode,
            step_in_episode=slot.turn,
            work_id=work.work_id,
            group_id=work.group_id,
            env_version="" if card is None else card.env_version,
            task_id=slot.task_id,
            split=slot.info.get("split", work.split),
            seed=work.seed,
            sandbox_tier="" if card is None else card.sandbox_tier,
            t_start_ns=slot.t_start_ns,
            t_end_ns=time.time_ns(),
            state_key=state_key(slot.state),
            decision=decision,
            option_id=option_id,
            option_step=option_step,
            value_estimate=slot.option_stack.value_estimate,
            subject=slot.subject,
            agent_id=str(slot.info.get("agent_id", "")),
            reward_version=self._reward_version,
            boundary=boundary,
            **answer,
        )
        if decision is not None:
            slot.last_t = t
        self.steps_taken += row.is_training
        self._journal.append(row)


def _results(decision: Decision | None, answer: StepAnswer) -> tuple[ToolResult, ...]:
    """What the world says that each call gave, by the id of the call."""
    results = answer.info.get("tool_results", ())
    calls = () if decision is None else decision.tool_calls
    return tuple(ToolResult(c.id, result) for c, result in zip(calls, results, strict=False))
