"""The recorder: writes what happens in a slot as rows of the journal."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np

from actors.agents.options import OptionStack
from actors.collecting.slot import Slot
from experience.answers import StepAnswer
from experience.planning.world_models.change import Outcome
from experience.policy import Decision
from experience.shards.journal import Journal
from experience.shards.storage.blobs import media_and_size
from experience.step import Boundary, Ending, Source, Step, discount_after, state_key

_ENDINGS = {"terminated": Boundary.TERMINATED, "truncated": Boundary.TRUNCATED}
_MOST_ERROR_CHARACTERS = 500


class Recorder:
    """Appends the rows of many slots to one journal.

    steps_left: real training steps that may still be taken; infinite if nothing limits them.
    remembers: whether a slot keeps the outcomes of its turns, for a planner.
    """

    def __init__(
        self,
        journal: Journal,
        reward_version: str,
        discount: float,
        steps_left: float,
        remembers: bool,
        done: set[bytes],
    ) -> None:
        self.steps_left = steps_left
        self.closed = 0
        """Episodes closed so far."""
        self._journal = journal
        self._reward_version = reward_version
        self._discount = discount
        self._remembers = remembers
        self._done = done
        self._failed: set[str] = set()

    def choice(self, slot: Slot) -> None:
        """An option was started: a row of its own, in which nothing was measured and no time
        passed."""
        self._append(slot, slot.decision, reward=0.0, discount=1.0)
        slot.turn += 1
        slot.decision = None

    def turn(self, slot: Slot, answer: StepAnswer, reward: float | None) -> None:
        """The world answered the slot's decision; closes the episode if it ended."""
        ending = _ending(answer)
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
        if ending != "none":
            self._close_episode(slot, ending, {})

    def failure(self, slot: Slot, ending: Ending, error: BaseException) -> None:
        """The world broke: the turn is kept without a reward, and the episode closed."""
        what = f"{type(error).__name__}: {error}"[:_MOST_ERROR_CHARACTERS]
        why = {"error": what}
        if slot.decision is not None:
            self._append(slot, slot.decision, ending=ending, info=why)
            slot.turn += 1
        self._close_episode(slot, ending, why | self._traceback(slot, error))

    def _traceback(self, slot: Slot, error: BaseException) -> dict[str, str]:
        """The traceback of an error, the first time that it is met in a world: it is long."""
        name = f"{slot.env_id}: {type(error).__name__}"
        if name in self._failed:
            return {}
        self._failed.add(name)
        return {"traceback": "".join(traceback.format_exception(error))}

    def cancel(self, slot: Slot) -> None:
        """Ends an episode that nobody waits for; an episode without a turn leaves no row."""
        if slot.turn:
            self._close_episode(slot, "cancelled", {})
        else:
            slot.free()

    def _close_episode(self, slot: Slot, ending: Ending, info: Mapping[str, Any]) -> None:
        """Appends the closing row, which has no action, and frees the slot."""
        assert slot.work is not None
        slot.decision = None
        slot.option_stack = OptionStack()
        slot.boundary |= _ENDINGS.get(ending, Boundary.NONE)
        self._append(slot, None, ending=ending, info=info)
        self._done.add(slot.work.work_id)
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
        boundary = slot.boundary | (Boundary.RESET if slot.turn == 0 else Boundary.NONE)
        slot.boundary = Boundary.NONE
        card = slot.cards.get(work.env_id)
        seen = tuple(
            self._journal.blobs.put(data, *media_and_size(data), role=role)
            for role, data in slot.info.get("images", {}).items()
        )
        row = Step(
            stream_id=slot.stream_id,
            t=self._journal.next_t(slot.stream_id),
            env_id=work.env_id,
            obs_text=slot.observation,
            obs_blobs=seen,
            source=source,
            episode=slot.episode,
            step_in_episode=slot.turn,
            work_id=work.work_id,
            group_id=work.group_id,
            env_version="" if card is None else card.env_version,
            task_id=str(slot.info.get("task_id", work.seed)),
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
            reward_version=self._reward_version,
            boundary=boundary,
            **answer,
        )
        self.steps_left -= row.is_training
        self._journal.append(row)


def _ending(answer: StepAnswer) -> Ending:
    if answer.terminated:
        return "terminated"
    return "truncated" if answer.truncated else "none"
