"""The step: one turn of a stream, with its observation, its action and their consequences."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Any, Literal

import numpy as np

from experience.errors import RecordError
from experience.policy import Decision
from experience.signal import Signal
from experience.text.tools import ToolResult

Ending = Literal[
    "none", "terminated", "truncated", "env_error", "engine_error", "timeout", "cancelled"
]
Source = Literal["real", "imagined", "demonstration", "human"]
ENDINGS: tuple[Ending, ...] = (
    "none",
    "terminated",
    "truncated",
    "env_error",
    "engine_error",
    "timeout",
    "cancelled",
)
FAILED: frozenset[Ending] = frozenset({"env_error", "engine_error", "timeout", "cancelled"})
"""Endings by a failure of the machinery. They carry no reward, and learning leaves them out."""
SOURCES: tuple[Source, ...] = ("real", "imagined", "demonstration", "human")


OTHERS = "others"
"""The split of rows that somebody other than the policy acted in, in a world with several agents:
they are kept, and neither learned from nor measured."""
WORLD_STEP = "world_step"
"""The key of a row's `info`, in a world with several agents: the number of the world's step, from
0 at each reset, that the row's action was part of. Rows of one `work_id` that share it were acted
at the same time; its order is the order of turns."""

LATE_INFO = "late"
"""The key of a row's `info` under which signals of earlier rows of its stream stand, as a list of
{t, name, value, evidence}. The learner's process makes amendments of them."""


class Boundary(IntFlag):
    """Marks of a row in an endless stream. A row may have several."""

    NONE = 0
    TERMINATED = 1
    TRUNCATED = 2
    RESET = 4
    OPTION_END = 8
    CONTEXT_COMPACTED = 16
    WORKER_RESTART = 32
    GAP = 64
    CONTINUES = 128
    """On the first row of an episode in place of RESET: it goes on from the state in which the
    world's last training episode in this stream stopped, without a reset."""


def state_key(state: str) -> int:
    """A 64-bit hash of a canonical state. Equal states share it; others do in practice never."""
    return int.from_bytes(hashlib.blake2b(state.encode(), digest_size=8).digest(), "little")


def discount_after(ending: Ending, gamma: float) -> float:
    """γ_{t+1}: 0 if the world terminated, else `gamma` (a truncation bootstraps)."""
    return 0.0 if ending == "terminated" else gamma


@dataclass(frozen=True, slots=True)
class Blob:
    """A reference to a large observation that is stored once, beside the rows.

    hash: SHA-256 of the bytes, 32 bytes. media: the media type. nbytes: the size. w, h: pixels, 0
    if it is no image or the size is unknown. role: what it shows, e.g. "screenshot".
    """

    hash: bytes
    media: str
    nbytes: int
    w: int = 0
    h: int = 0
    role: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """Row t of a stream.

    A step without a decision is the closing row of an episode: it holds the last observation.
    Times are nanoseconds since the epoch. `reward` is in the unit of `reward_version`; None is
    unknown. An imagined step names the real step that it branches from in `parent`, and the world
    model's version in `model_version`.
    """

    stream_id: bytes
    t: int
    env_id: str
    obs_text: str
    source: Source = "real"
    episode: int = 0
    step_in_episode: int = 0
    work_id: bytes = b"\0" * 16
    group_id: str = ""
    env_version: str = ""
    task_id: str = ""
    split: str = "train"
    seed: int = 0
    sandbox_tier: str = ""
    t_start_ns: int = 0
    t_end_ns: int = 0
    parent: tuple[bytes, int] | None = None
    model_version: int | None = None
    uncertainty: float | None = None
    state_key: int = 0
    obs_blobs: tuple[Blob, ...] = ()
    decision: Decision | None = None
    action_struct: bytes = b""
    option_id: int | None = None
    option_step: int | None = None
    plan_id: int | None = None
    value_estimate: float | None = None
    signals: tuple[Signal, ...] = ()
    reward: float | None = None
    reward_version: str = ""
    discount: float = 1.0
    ending: Ending = "none"
    boundary: Boundary = Boundary.NONE
    info: Mapping[str, Any] = field(default_factory=dict)
    tool_results: tuple[ToolResult, ...] = ()
    agent_id: str = ""
    subject: str = ""
    """The person that the row is about, e.g. a user's pseudonym. On request, their rows are deleted
    by it."""

    def __post_init__(self) -> None:
        if len(self.stream_id) != 16 or len(self.work_id) != 16:
            raise RecordError("stream_id and work_id are 16 bytes", "use uuid.UUID(...).bytes")
        if self.ending in FAILED and self.reward is not None:
            raise RecordError(
                f"ending {self.ending!r} carries a reward of {self.reward}",
                "a failure of the machinery is unknown (None), never a reward",
            )
        if self.reward is not None and not np.isfinite(self.reward):
            raise RecordError(
                f"reward {self.reward} is not finite", "use None for an unknown reward"
            )
        if self.source == "imagined" and (self.parent is None or self.model_version is None):
            raise RecordError(
                "an imagined step names its parent and its model", "set parent and model_version"
            )

    @property
    def is_closing(self) -> bool:
        return self.decision is None

    @property
    def is_awaited(self) -> bool:
        """Whether the world will measure a signal of this step later."""
        return any(signal.is_awaited for signal in self.signals)

    @property
    def is_training(self) -> bool:
        """Whether this is a real step of a training episode. Such steps are what learning costs:
        baselines and held-out episodes are not counted."""
        return self.decision is not None and self.source == "real" and self.split == "train"

    @property
    def is_choice(self) -> bool:
        """Whether this row only starts an option: a decision without an action in the world."""
        return self.decision is not None and self.option_step == 0

    @property
    def is_aside(self) -> bool:
        """Whether this row is no turn of the world: it starts an option, or the agent wrote a
        summary of its context or a note to itself."""
        is_own = bool(self.boundary & Boundary.CONTEXT_COMPACTED)
        return self.decision is not None and (self.option_step == 0 or is_own)
