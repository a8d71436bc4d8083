"""What an answer means for its slot: of the world, a row; of the agent, a request to the world."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from actors.collecting.endings import Endings
from actors.collecting.hosting import Hosting
from actors.collecting.hosts.messages import WORLD_ENDED, Answered, Arrived, Failed, Round, Seen
from actors.collecting.loop.leases import Leases
from actors.collecting.loop.tables import Tables
from actors.collecting.recorder import Recorder
from actors.collecting.slot import Slot
from experience.errors import EnvironmentFailure
from experience.policy import Decision
from experience.text.characters import without_lone_surrogates


class Turns:
    """Takes answers for slots whose work is still this collector's."""

    def __init__(
        self,
        hosting: Hosting,
        recorder: Recorder,
        endings: Endings,
        tables: Tables,
        leases: Leases,
    ) -> None:
        self._hosting = hosting
        self._recorder = recorder
        self._endings = endings
        self._tables = tables
        self._leases = leases

    def take(self, slot: Slot, answer: Any) -> None:
        """One answer of a slot's world or agent. What a world may not answer fails its episode."""
        try:
            self._take(slot, answer)
        except EnvironmentFailure as error:
            self.fail(slot, Failed.of(error))

    def _take(self, slot: Slot, answer: Any) -> None:
        match answer:
            case Failed():
                self.fail(slot, answer)
            case Decision():
                self._act(slot, answer)
            case Arrived():
                self._arrive(slot, answer)
            case Answered():
                reward = self._hosting.reward(slot, answer.step)
                self._recorder.late(slot, answer.step.late, answer.step.tag)
                slot.view, slot.script_failed = answer.view, answer.script_failed
                ending = self._recorder.turn(slot, answer.step, reward)
                if ending != "none":
                    self._endings.close(slot, ending)
            case Round():
                self._tables.take(slot, answer)
            case Seen():
                slot.view, slot.script_failed = answer.view, answer.script_failed

    def fail(self, slot: Slot, failed: Failed) -> None:
        """Ends the episode whose world or model failed. A world that failed is made anew."""
        slot = slot if slot.table is None else slot.table.owner
        work = slot.work
        assert work is not None
        if failed.kind == WORLD_ENDED:
            self._leases.ended_a_process(work)
        if failed.ending == "engine_error":
            slot.stand()
        else:
            self._hosting.discard(slot, work)
        self._endings.failure(slot, failed)

    def _arrive(self, slot: Slot, answer: Arrived) -> None:
        if answer.card is not None:
            slot.cards[slot.env_id] = answer.card
        slot.context.begin()
        slot.observe(answer.observation, answer.info)
        slot.view, slot.script_failed = answer.view, answer.script_failed
        slot.ledger.begin()
        self._recorder.late(slot, answer.late)

    def _act(self, slot: Slot, decision: Decision) -> None:
        if not decision.text.isascii():
            # an agent may write half of a character, which no file can hold: kept as an escape
            decision = replace(decision, text=without_lone_surrogates(decision.text))
        slot.decision = decision
        slot.t_start_ns = time.time_ns()
        is_choice = slot.option_stack.is_choice
        # the name of an option is no call, and is not refused as one
        done = replace(decision, refusal="") if is_choice and decision.refusal else decision
        slot.context.acted(slot.observation, done)
        if is_choice or slot.context.is_aside:
            self._recorder.aside(slot)
            if is_choice and slot.option_stack.experiments:
                self._hosting.look(slot)  # the campaign that begins needs its first experiment
        elif slot.table is not None:
            self._tables.choose(slot, decision.text)
        else:
            self._hosting.step(slot, decision.text)
