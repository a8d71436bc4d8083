"""Tables: episodes of several agents. Each agent is a slot of its own, with a stream of its own.

An agent that is asked decides alone; the world steps when all that it asked have decided, and no
agent waits for another that the world does not ask. An episode ends for all its agents together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from actors.collecting.endings import Endings
from actors.collecting.hosting import Hosting
from actors.collecting.hosts.messages import Round, Told
from actors.collecting.recorder import Recorder
from actors.collecting.seats import works
from actors.collecting.slot import Slot, Table
from actors.collecting.work import Work
from experience.world import WorldCard


class Tables:
    """Gives the agents of a world their seats, the world their actions, and them its answers.

    shared: the cards of the worlds with several agents, by id. seat: the seat of an agent beside a
    slot, whose stream goes on from episode to episode.
    """

    def __init__(
        self,
        shared: Mapping[str, WorldCard],
        hosting: Hosting,
        recorder: Recorder,
        endings: Endings,
        seat: Callable[[Slot, str], Slot],
    ) -> None:
        self._shared = shared
        self._hosting = hosting
        self._recorder = recorder
        self._endings = endings
        self._seat = seat

    def has(self, work: Work) -> bool:
        """Whether the work's world has several agents."""
        return work.env_id in self._shared

    def begin(self, slot: Slot) -> None:
        """Gives each agent its seat; the slot's work has just begun."""
        assert slot.work is not None
        found = works(self._shared[slot.work.env_id], slot.work)
        table = Table(slot, {agent: self._seat(slot, agent) for agent in found})
        slot.table = table
        for agent, seat in table.seats.items():
            seat.work, seat.table = found[agent], table
            seat.cards, seat.host_name = slot.cards, slot.host_name
            seat.turn, seat.episode = 0, seat.episode + 1
            seat.waits_for, seat.unwanted = "", False
            seat.t_start_ns = slot.t_start_ns

    def choose(self, seat: Slot, action: str) -> None:
        """An agent acts. The world steps when the last of those that it asked has."""
        table = seat.table
        assert table is not None
        seat.acted_at = table.step
        table.chosen[seat.agent] = action
        if set(table.chosen) == table.asked:
            chosen = {a: table.chosen[a] for a in table.seats if a in table.chosen}
            self._hosting.move(table.owner, chosen)

    def take(self, slot: Slot, answer: Round) -> None:
        """The world answered: those whom it asks are ready, and the episode may be over.

        Raises EnvironmentFailure if a reward is no number, or a late signal belongs nowhere.
        """
        table = slot.table
        assert table is not None
        if answer.card is not None:
            slot.cards[slot.env_id] = answer.card
        table.step, table.chosen = answer.number, {}
        table.asked = {told.agent for told in answer.told if told.is_asked}
        for told in answer.told:
            self._tell(table.seats[told.agent], told)
        if table.is_over:
            self._endings.close_table(table)

    def _tell(self, seat: Slot, told: Told) -> None:
        assert seat.table is not None
        seat.view, seat.script_failed = told.view, told.script_failed
        if seat.decision is None:
            self._arrive(seat, told)
        else:
            reward = self._hosting.reward(seat, told.step)
            self._recorder.late(seat, told.step.late, told.step.tag)
            self._recorder.turn(seat, told.step, reward)
        if not told.is_asked:
            seat.table.endings[told.agent] = seat.ending_of(told.step)

    def _arrive(self, seat: Slot, told: Told) -> None:
        """The agent sees the episode for the first time."""
        seat.context.begin()
        seat.observe(told.step.observation, told.step.info)
        seat.ledger.begin()
        self._recorder.late(seat, told.step.late)
