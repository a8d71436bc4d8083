"""The recorder: writes what happens in a slot as rows of the journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from actors.collecting.rows import Marks, row, tool_results
from actors.collecting.slot import Slot
from experience.answers import StepAnswer
from experience.planning.world_models.change import Outcome
from experience.policy import Decision
from experience.shards.journal import Journal
from experience.signal import LateSignals
from experience.step import Boundary, Ending, discount_after


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
        self.failures: Counter[str] = Counter()
        """Of the machinery around the worlds; what a world failed in stands in its rows."""
        self.journal = journal
        self.reward_version = reward_version
        self._discount = discount
        self._remembers = remembers

    @property
    def steps_left(self) -> float:
        return self.steps_allowed - self.steps_taken

    @property
    def is_paused(self) -> bool:
        """Whether the journal waits for room on its disk."""
        return self.journal.paused

    def aside(self, slot: Slot, info: Mapping[str, Any] | None = None) -> None:
        """An option was started, the agent wrote a summary or a note, or a program asked the model:
        a row of its own, in which nothing was measured and no time passed."""
        marks: Marks | None = None
        if slot.context.is_aside:
            slot.boundary |= Boundary.CONTEXT_COMPACTED
            slot.context.is_aside = False
            marks = (None, None)  # an option under way has nothing to do with it
        self.append(slot, slot.decision, marks=marks, reward=0.0, discount=1.0, info=info or {})
        slot.turn += 1
        slot.decision = None

    def late(self, slot: Slot, late: Sequence[LateSignals], tag: str | None = None) -> None:
        """Notes signals of earlier steps for the next row, which keeps them until they are amended.

        tag: of the step that answered them; None: a reset did. Raises EnvironmentFailure for a
        step that the world has not taken in this stream.
        """
        if tag is not None:
            slot.ledger.note(self.journal.next_t(slot.stream_id), tag)
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
        self.append(
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

    def append(
        self,
        slot: Slot,
        decision: Decision | None,
        *,
        marks: Marks | None = None,
        with_next: bool = False,
        **answer: Any,
    ) -> None:
        """Appends the next row of a slot's stream; see `row` and `Journal.append`."""
        marks = marks or slot.option_stack.mark
        answer["reward_version"] = self.reward_version
        step = row(slot, decision, self.journal, marks, **answer)
        if decision is not None:
            slot.last_t = step.t
        self.steps_taken += step.is_training
        self.journal.append(step, with_next=with_next)
