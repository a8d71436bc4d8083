"""A slot of a collector: an environment, and the episode that is under way in it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from actors.agents.options import OptionStack
from actors.collecting.work import Work
from experience.policy import Decision
from experience.step import Boundary
from experience.world import WorldCard


@dataclass
class Slot:
    """One environment at a time, and one stream without an end."""

    stream_id: bytes
    envs: dict[str, Any] = field(default_factory=dict)
    work: Work | None = None
    future: Future[Any] | None = None
    deadline: float = 0.0
    observation: str = ""
    state: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)
    subject: str = ""
    decision: Decision | None = None
    episode: int = -1
    turn: int = 0
    t_start_ns: int = 0
    boundary: Boundary = Boundary.NONE
    option_stack: OptionStack = field(default_factory=OptionStack)
    unwanted: bool = False
    """Its episode ends as cancelled as soon as the world has answered."""
    seed: int = 0
    """The run's."""
    cards: dict[str, WorldCard] = field(default_factory=dict)
    """What each of the environments offers, by environment id."""

    def observe(self, observation: str, info: Mapping[str, Any]) -> None:
        """The world was reset, and shows its first observation."""
        self.observation = observation
        self.info = info
        self.state = info.get("state", observation)
        self.subject = info.get("subject", "")

    def free(self) -> None:
        """The episode is over: the slot is ready for other work."""
        self.work = None
        self.observation = ""
        self.info = {}
        self.subject = ""
        self.unwanted = False

    @property
    def env_id(self) -> str:
        assert self.work is not None
        return self.work.env_id

    @property
    def env(self) -> Any:
        assert self.work is not None
        return self.envs[self.work.env_id]

    @property
    def draw(self) -> int:
        """The seed of this turn's random numbers, from the run's seed, work and turn. 63 bits."""
        assert self.work is not None
        name = f"{self.seed}/{self.work.work_id.hex()}/{self.turn}"
        return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") >> 1

    @property
    def is_ready(self) -> bool:
        return self.work is not None and self.future is None
