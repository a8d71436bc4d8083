"""What every bundled world keeps, beyond Gymnasium's own contract.

A stranger's environment needs none of this; where it offers these names, the framework uses them:
    signal_catalogue  {name: SignalKind}     unit and source of each entry of info["signals"]
    reward_weights    {name: weight}         the default reward is the weighted sum of the step's signals
    env_version, sandbox_tier, instructions  recorded with every step; the last tells a stranger what to type
    expert_action()                          what a scripted expert would do now: for demonstrations
    random_action(rng)                       a well-formed action at random: the baseline to beat
`reset(seed=…, options={"split": "train" | "heldout"})` draws a task of that split. Splits are disjoint by the
task's content, not by its seed: no training seed ever draws a held-out task.
"""

from __future__ import annotations

import hashlib
import string
from typing import Any, ClassVar, Generic, TypeVar

import gymnasium
import numpy as np
from gymnasium.spaces import Text

from experience.reward import weighted_sum
from experience.signal import SignalKind

Task = TypeVar("Task")
Answer = tuple[dict[str, Any], bool]
INVALID = "invalid_action"


def is_held_out(signature: str) -> bool:
    """One task in five, chosen by its content for ever."""
    return hashlib.sha256(f"heldout/{signature}".encode()).digest()[0] < 51


class World(gymnasium.Env[str, str], Generic[Task]):
    """A text world with tasks in two splits. Subclasses say how to draw, show, do and measure.

    Observations and actions are printable text. An action that cannot be read costs a turn, is reported as
    signal `invalid_action`, and changes nothing. After `max_turns` the episode is truncated.
    """

    env_version: ClassVar[str] = "1"
    sandbox_tier: str = "none-needed"
    max_turns: ClassVar[int] = 4
    instructions: ClassVar[str] = ""
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {}
    reward_weights: ClassVar[dict[str, float]] = {}

    task: Task

    def __init__(self) -> None:
        self.observation_space = Text(max_length=4000, charset=string.printable, min_length=0)
        self.action_space = Text(max_length=2000, charset=string.printable, min_length=0)

    def draw(self, rng: np.random.Generator) -> Task:
        """A task of either split."""
        raise NotImplementedError

    def signature(self, task: Task) -> str:
        """The content that names a task: equal tasks, equal signatures."""
        raise NotImplementedError

    def begin(self) -> None:
        """Puts the world into the start state of `self.task`."""
        raise NotImplementedError

    def observe(self) -> str:
        """What the agent sees now."""
        raise NotImplementedError

    def images(self) -> dict[str, bytes]:
        """What it looks like now, by what it shows (e.g. "screenshot"): bytes as PNG, JPEG or WebP."""
        return {}

    def act(self, action: str) -> Answer:
        """Does `action`; returns the measured signals and whether the task has ended. Raises ValueError, having
        changed nothing, for an action that cannot be read."""
        raise NotImplementedError

    def expert_action(self) -> str:
        raise NotImplementedError

    def random_action(self, rng: np.random.Generator) -> str:
        raise NotImplementedError

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        split = (options or {}).get("split", "train")
        if split not in ("train", "heldout"):
            raise ValueError(f"split {split!r}: choose train or heldout")
        self.split, self._turn, self._note, self._ended = split, 0, "", False
        while True:
            self.task = self.draw(self.np_random)
            if is_held_out(self.signature(self.task)) == (split == "heldout"):
                break
        self.begin()
        return self._seen(), self._info({})

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if self._ended:
            raise RuntimeError("step() after the episode ended; call reset() first")
        self._turn += 1
        self._note = ""
        try:
            signals, terminated = self.act(action.strip() or "(nothing)")
        except ValueError as unreadable:
            self._note = f"\n! {unreadable}"
            signals, terminated = {INVALID: (1.0, action[:80])}, False
        truncated = not terminated and self._turn >= self.max_turns
        self._ended = terminated or truncated
        values = {n: v[0] if isinstance(v, tuple) else v for n, v in signals.items()}
        reward = weighted_sum(values, self.reward_weights)
        return self._seen(), float("nan") if reward is None else reward, terminated, truncated, self._info(signals)

    def _seen(self) -> str:
        return _printable(self.observe() + self._note)

    def _info(self, signals: dict[str, Any]) -> dict[str, Any]:
        return {"signals": signals, "task_id": self.signature(self.task), "split": self.split,
                "state": self.observe(), "images": self.images()}


def _printable(text: str) -> str:
    """`text` with anything outside printable ASCII shown as '?', as the observation space promises."""
    return "".join(c if c in string.printable else "?" for c in text)[:4000]
