"""The loop of a collector: every slot waits for its own answer, and for nobody else's."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from actors.collecting.endings import Endings
from actors.collecting.hosting import Hosting
from actors.collecting.hosts.mailbox import Mailbox
from actors.collecting.hosts.messages import Failed
from actors.collecting.loop.desk import Desk
from actors.collecting.loop.inbox import Inbox
from actors.collecting.loop.leases import Leases
from actors.collecting.loop.tables import Tables
from actors.collecting.loop.turns import Turns
from actors.collecting.recorder import Recorder
from actors.collecting.slot import Slot
from actors.collecting.work import Work

_QUARANTINED = Failed(
    "env_error",
    "Quarantined",
    "this task has ended the process of its world too often, and is not lived any more",
)


class SlotLoop:
    """Keeps the slots going: gives them work, records their worlds' answers, asks the agents.

    Worlds and agents put their answers into one mailbox, and the loop sleeps until one is there. In
    step, it waits for all worlds, and goes on in the order of the slots.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        leases: Leases,
        recorder: Recorder,
        endings: Endings,
        desk: Desk,
        hosting: Hosting,
        tables: Tables,
        mailbox: Mailbox,
        in_step: bool,
    ) -> None:
        self._slots = slots
        self._tables = tables
        self._leases = leases
        leases.on_lost = self.give_up
        self._recorder = recorder
        self._endings = endings
        self._desk = desk
        self._hosting = hosting
        self._in_step = in_step
        self._inbox = Inbox(slots, hosting, mailbox, in_step)
        self._turns = Turns(hosting, recorder, endings, tables, leases)
        self._free = list(slots)
        """Slots without work."""
        self._ready: dict[int, Slot] = {}
        """Slots that need a decision, by number."""

    @property
    def is_idle(self) -> bool:
        """Whether no slot has work."""
        return len(self._free) == len(self._slots)

    def round(self, patience_seconds: float) -> None:
        """Processes all answers that have come; waits for a first one if none has."""
        self._begin()
        for slot, answer in self._inbox.answers(patience_seconds):
            self._take(slot, answer)
        if self._leases.is_last_step and self._recorder.steps_left <= 0:
            # the limit of steps is reached: no further action of a training episode is taken
            self._leases.drop_training()
            self.cancel(lambda work: work.lane == "train")
        self._ask()

    def cancel(self, is_unwanted: Callable[[Work], bool]) -> None:
        """Ends the episodes of unwanted work; those that wait end when they are answered."""
        for slot in self._slots:
            if slot.work is not None and is_unwanted(slot.work):
                slot.unwanted = True
                self._settle(slot)

    def give_up(self, work_ids: Iterable[bytes]) -> None:
        """Leaves work that is not this collector's any more."""
        lost = set(work_ids)
        if lost:
            self.cancel(lambda work: work.work_id in lost)

    def _begin(self) -> None:
        """Gives free slots work, the first slots first."""
        self._leases.keep(len(self._free))
        if self._in_step:
            self._free.sort(key=lambda slot: slot.number)
        free, self._free = self._free, []
        for place, slot in enumerate(free):
            work = self._leases.next()
            if work is None:
                self._free += free[place:]
                return
            slot.work = work
            slot.turn = 0
            slot.episode += 1
            slot.t_start_ns = time.time_ns()
            is_resumed = self._hosting.resume(slot)
            if self._tables.has(work):
                self._tables.begin(slot)
            if work.is_quarantined:
                self._turns.fail(slot, _QUARANTINED)
            elif not is_resumed:
                self._hosting.reset(slot, work)
            self._settle(slot)

    def _take(self, slot: Slot, answer: Any) -> None:
        """Processes one answer of a slot's world or agent."""
        owner = slot.table.owner if slot.table is not None else slot
        if slot.work is None or not self._leases.is_held(slot.work):
            owner.unwanted = True  # another lives this episode now
            self._settle(owner)
            return
        everyone = owner.everyone
        self._turns.take(slot, answer)
        for one in everyone:  # an answer to one agent may be what another waits for
            self._settle(one)

    def _settle(self, slot: Slot) -> None:
        """Notes what the slot needs next."""
        if slot.unwanted and slot.can_end:
            self._end(slot)
        self._ready.pop(slot.number, None)
        if slot.is_ready:
            self._ready[slot.number] = slot
        elif slot.work is None and slot.has_world:
            self._free.append(slot)

    def _end(self, slot: Slot) -> None:
        """Ends an episode that is unwanted: as cancelled, or without an end if others live it."""
        work = slot.work
        assert work is not None
        is_held = self._leases.is_held(work)
        if not is_held:
            self._leases.give_back(work)
        for seat in slot.everyone:
            self._ready.pop(seat.number, None)
        if work.lane == "train" and not is_held:
            self._endings.abandon(slot)
        else:
            slot.stand()
            self._endings.cancel(slot)

    def _ask(self) -> None:
        asked = self._within_limit([self._ready[number] for number in sorted(self._ready)])
        for slot in asked:
            del self._ready[slot.number]
        self._desk.ask(asked)
        if self._in_step:  # the decisions are there
            for slot, decision in self._inbox.arrived(0.0):
                self._take(slot, decision)

    def _within_limit(self, ready: list[Slot]) -> list[Slot]:
        """The slots that may act without the steps under way passing the limit of steps."""
        if math.isinf(self._recorder.steps_left):
            return ready
        under_way = sum(one.is_acting for slot in self._slots for one in slot.everyone)
        left = max(int(self._recorder.steps_left) - under_way, 0)
        training = [slot for slot in ready if slot.is_training]
        held_back = {slot.number for slot in training[left:]}
        return [slot for slot in ready if slot.number not in held_back]
