"""A slot of a collector: a stream, the hosts of its worlds, and the episode that is under way."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Literal

from actors.agents.context import Context
from actors.agents.options import OptionStack
from actors.collecting.hosts.housing import Host
from actors.collecting.hosts.ledger import Ledger
from actors.collecting.hosts.messages import Failed, Program
from actors.collecting.work import Work
from experience.answers import StepAnswer
from experience.policy import Decision
from experience.step import Boundary, Ending
from experience.text.tools import Schema
from experience.world import WorldCard, WorldView

Waits = Literal["", "world", "model"]
"""For whom a slot waits: for nobody, so that it may go on; or for an answer."""


@dataclass(frozen=True)
class Standing:
    """What an endless world showed last, between two segments, and what its agent remembers."""

    observation: str
    info: Mapping[str, Any]
    view: WorldView
    context: Context
    last_t: int


@dataclass
class Table:
    """An episode of several agents.

    owner: the slot that has the world. seats: of the agents, in the world's order. asked: the
    agents that are to act in the next step of the world; chosen: what they do in it, as far as
    they have decided. step: number of that step since the reset. endings: of the agents that have
    ended.
    """

    owner: Slot
    seats: dict[str, Slot]
    asked: set[str] = field(default_factory=set)
    chosen: dict[str, str] = field(default_factory=dict)
    step: int = 0
    endings: dict[str, Ending] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return len(self.endings) == len(self.seats)


@dataclass
class Slot:
    """One episode at a time, in a stream without an end."""

    stream_id: bytes
    number: int = 0
    """Its place among the collector's slots."""
    hosts: dict[str, Host] = field(default_factory=dict)
    """The worlds that it has made, by the name that hosting gives them."""
    work: Work | None = None
    waits_for: Waits = ""
    ticket: int = 0
    """Of the last request: an answer to an earlier one is too late, and ignored."""
    view: WorldView = field(default_factory=WorldView)
    script_failed: Failed | None = None
    """Why the world's own script has no action for the present turn."""
    observation: str = ""
    state: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)
    subject: str = ""
    decision: Decision | None = None
    episode: int = -1
    turn: int = 0
    has_begun: bool = False
    """Whether its agent has seen anything of the episode."""
    t_start_ns: int = 0
    boundary: Boundary = Boundary.NONE
    option_stack: OptionStack = field(default_factory=OptionStack)
    context: Context = field(default_factory=Context)
    last_t: int = -1
    """Of the last row with a decision; a row whose prompt does not continue it names it."""
    unwanted: bool = False
    """Its episode ends as cancelled as soon as the world has answered."""
    seed: int = 0
    """The run's."""
    cards: dict[str, WorldCard] = field(default_factory=dict)
    """What each of the environments offers, by environment id."""

    segment_turns: int = 0
    """Of the work's world where it is endless, else 0."""
    continues: bool = False
    """Whether the present segment goes on in the state in which the last one stopped."""
    host_name: str = ""
    """Of the present work, among `hosts`."""
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    """Which rows the steps of each world became, by the name of its host."""
    late: list[dict[str, Any]] = field(default_factory=list)
    """Late signals that the next row holds."""
    program: Program | None = None
    """What acts in the present world, where it is no policy that is asked turn by turn."""
    standing: dict[str, Standing] = field(default_factory=dict)
    """Endless worlds whose training goes on without a reset, by environment id."""
    agent: str = ""
    """Whose stream this is, in a world with several agents: then the slot is a seat at a table,
    and another slot has the world."""
    table: Table | None = None
    """In a world with several agents: the episode's. Its owner has the world and no agent; each of
    its seats has an agent, and no world."""
    acted_at: int = 0
    """At a table: the number of the world's step that the present decision is part of."""

    def observe(self, observation: str, info: Mapping[str, Any]) -> None:
        """The world was reset, and shows its first observation."""
        self.has_begun = True
        self.observation = observation
        self.info = info
        self.state = info.get("state", observation)
        self.subject = info.get("subject", "")

    @property
    def task_id(self) -> str:
        assert self.work is not None
        return str(self.info.get("task_id", self.work.seed))

    def ending_of(self, answer: StepAnswer) -> Ending:
        """How the episode ends with the answered turn; a segment is truncated at its last one."""
        if answer.terminated:
            return "terminated"
        is_over = answer.truncated or self.is_segment_over
        return "truncated" if is_over else "none"

    @property
    def is_segment_over(self) -> bool:
        """Whether the turn that was just answered is the last of a segment."""
        return 0 < self.segment_turns <= self.turn + 1

    def stand(self) -> None:
        """Keeps what the endless world shows now for the next training segment. A world whose
        episodes end, and one that is evaluated, is reset instead."""
        if self.segment_turns and self.is_training:
            # a copy: what is lived in between begins the slot's own context anew
            self.standing[self.env_id] = Standing(
                self.observation, self.info, self.view, copy(self.context), self.last_t
            )

    def resume(self) -> bool:
        """Begins a segment where the last one stopped; False if none did."""
        standing = self.standing.pop(self.env_id, None) if self.is_training else None
        if standing is None:
            return False
        self.observe(standing.observation, standing.info)
        self.view, self.script_failed = standing.view, None
        self.context, self.last_t = standing.context, standing.last_t
        self.continues = True
        return True

    @property
    def ledger(self) -> Ledger:
        """Of the world of the present work."""
        return self.ledgers.setdefault(self.host_name, Ledger())

    def wait_for(self, whom: Waits) -> int:
        """Begins to wait. Returns the ticket that the answer must carry."""
        self.waits_for = whom
        self.ticket += 1
        return self.ticket

    def free(self) -> None:
        """The episode is over: the slot is ready for other work."""
        if self.waits_for:
            self.wait_for("")  # an answer that is on its way comes too late
        self.work = None
        self.table = None
        self.has_begun = False
        self.observation = ""
        self.info = {}
        self.subject = ""
        self.unwanted = False
        self.continues = False

    @property
    def env_id(self) -> str:
        assert self.work is not None
        return self.work.env_id

    @property
    def images(self) -> Mapping[str, bytes]:
        """The pictures of the present turn, by name."""
        found: Mapping[str, bytes] = self.info.get("images", {})
        return found

    @property
    def tools(self) -> tuple[Schema, ...]:
        """What a model may call in the present world."""
        card = self.cards.get(self.env_id)
        return () if card is None else card.tools

    @property
    def draw(self) -> int:
        """The seed of the present turn's random numbers."""
        return self.draw_of(self.turn)

    def draw_of(self, turn: int) -> int:
        """The seed of a turn's random numbers, from the run's seed, work and turn. 63 bits."""
        assert self.work is not None
        whose = f"/{self.agent}" if self.agent else ""
        name = f"{self.seed}/{self.work.work_id.hex()}{whose}/{turn}"
        return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") >> 1

    @property
    def is_ready(self) -> bool:
        """Whether its agent can decide."""
        if self.work is None or self.waits_for:
            return False
        if self.table is None:
            return True
        is_asked = self.agent in self.table.asked and self.agent not in self.table.chosen
        return is_asked and self.table.owner is not self

    @property
    def has_world(self) -> bool:
        """Whether it has the world of its work: every slot but a seat."""
        return not self.agent

    @property
    def can_end(self) -> bool:
        """Whether its episode can be ended now: nothing is under way in its world."""
        if self.table is not None:
            return self.has_world and self.waits_for != "world"
        return self.is_ready

    @property
    def everyone(self) -> tuple[Slot, ...]:
        """Itself, and the agents at its table."""
        return (self,) if self.table is None else (self, *self.table.seats.values())

    @property
    def is_training(self) -> bool:
        return self.work is not None and self.work.lane == "train"

    @property
    def is_acting(self) -> bool:
        """Whether a training step is under way: its decision is asked for, or taken."""
        return self.is_training and (self.waits_for == "model" or self.decision is not None)
