"""The step: one turn of a stream, what was seen, what was done, and what answered it."""

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

Ending = Literal["none", "terminated", "truncated", "env_error", "timeout", "cancelled"]
Source = Literal["real", "imagined", "demonstration", "human"]
ENDINGS: tuple[Ending, ...] = (
    "none",
    "terminated",
    "truncated",
    "env_error",
    "timeout",
    "cancelled",
)
FAILED: frozenset[Ending] = frozenset({"env_error", "timeout", "cancelled"})
"""Endings that say nothing about the agent: no reward is stored, and learning leaves them out."""
SOURCES: tuple[Source, ...] = ("real", "imagined", "demonstration", "human")


class Boundary(IntFlag):
    """Marks in an endless stream. Several may hold at once."""

    NONE = 0
    TERMINATED = 1
    TRUNCATED = 2
    RESET = 4
    OPTION_END = 8
    CONTEXT_COMPACTED = 16
    WORKER_RESTART = 32
    GAP = 64


def state_key(state: str) -> int:
    """A 64-bit name of a canonical state: equal states, and in practice only they, share it."""
    return int.from_bytes(hashlib.blake2b(state.encode(), digest_size=8).digest(), "little")


def discount_after(ending: Ending, gamma: float) -> float:
    """γ_{t+1}: 0 where the world truly ended, `gamma` elsewhere (a truncation bootstraps)."""
    return 0.0 if ending == "terminated" else gamma


@dataclass(frozen=True, slots=True)
class Blob:
    """What stands in a step for a large observation: SHA-256 of its bytes (32), media type, size in bytes, width and
    height in pixels (0: not an image, or unknown), and what it shows, e.g. "screenshot"."""

    hash: bytes
    media: str
    nbytes: int
    w: int = 0
    h: int = 0
    role: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """Row t of a stream. Without a decision it is the closing row of an episode: its last observation.

    Times are nanoseconds since the epoch. `reward` is in the unit of `reward_version`; None is unknown.
    An imagined step names the real one it branches from in `parent`, and the model in `model_version`.
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
    subject: str = ""
    """Whom the row is about, e.g. a user's pseudonym: what it is deleted by on request."""

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
    def is_training(self) -> bool:
        """Whether it is a real step of a training episode: what learning costs. Baselines and held-out ones are not."""
        return self.decision is not None and self.source == "real" and self.split == "train"

    @property
    def is_choice(self) -> bool:
        """Whether it only starts an option: the policy decided, and the world was not acted in."""
        return self.decision is not None and self.option_step == 0
