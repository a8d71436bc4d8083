"""The streams of a collector: its slots, the seats beside them, and what each goes on with."""

from __future__ import annotations

import uuid
from collections import defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path

from actors.agents.context import Context, History, note_in
from actors.collecting.slot import Slot
from actors.config.schema import Config
from actors.config.sense import history_of
from experience.shards.catalog import Catalog
from experience.step import Boundary

_MOST_UNHEARD = 10_000
"""So much work at most was done between two reports to the dispatcher."""


@dataclass
class Left:
    """What a writer left in the store, by stream.

    next_episode: the number of the next episode. notes: what its agents noted for later, in order.
    finished: the work that was lived to an end last, of which the dispatcher may not have heard.
    """

    next_episode: dict[bytes, int] = field(default_factory=dict)
    notes: dict[bytes, list[str]] = field(default_factory=lambda: defaultdict(list))
    finished: deque[bytes] = field(default_factory=lambda: deque(maxlen=_MOST_UNHEARD))


def left_behind(shards: Path, writer: str, notes: bool) -> Left:
    """Reads what a writer left; notes only if they are wanted."""
    left = Left()
    for step in (step for steps in Catalog(shards, writer=writer).follow() for step in steps):
        left.next_episode[step.stream_id] = step.episode + 1
        if step.is_closing and step.ending != "cancelled":
            left.finished.append(step.work_id)
        is_own = step.boundary & Boundary.CONTEXT_COMPACTED
        if notes and is_own and step.decision is not None:
            note = note_in(step.decision.text)
            if note and not step.decision.refusal:
                left.notes[step.stream_id].append(note)
    return left


class Streams:
    """Makes slots and seats whose streams go on where an earlier incarnation left them.

    name: of the collector in its run; it decides the ids of the streams.
    """

    def __init__(self, config: Config, name: str, left: Left, is_restarted: bool) -> None:
        self._config = config
        self._name = name
        self._left = left
        self._restart = Boundary.WORKER_RESTART if is_restarted else Boundary.NONE
        policy = config.policy
        self._history = History.of(
            history_of(config),
            policy.context - policy.max_tokens,
            config.agent.notes,
            pictures=config.agent.sight != "ignore",
        )
        self._seats: dict[tuple[int, str], Slot] = {}
        self.slots = [self._slot(n, str(n)) for n in range(config.collecting.slots)]

    def seat(self, slot: Slot, agent: str) -> Slot:
        """The slot of an agent beside the slot that has its world; made when it is first asked
        for."""
        key = slot.number, agent
        if key not in self._seats:
            beside = sum(number == slot.number for number, _ in self._seats)
            number = slot.number + (beside + 1) * len(self.slots)
            self._seats[key] = self._slot(number, f"{slot.number}/{agent}", agent)
        return self._seats[key]

    def _slot(self, number: int, name: str, agent: str = "") -> Slot:
        stream = uuid.uuid5(uuid.NAMESPACE_OID, f"{self._name}/{name}").bytes
        context = Context(self._history)
        context.recall(self._left.notes.get(stream, ()))
        return Slot(
            stream,
            number=number,
            boundary=self._restart,
            episode=self._left.next_episode.get(stream, 0) - 1,
            seed=self._config.seed,
            context=context,
            agent=agent,
        )
