"""What every bundled world keeps, beyond Gymnasium's own contract.

A stranger's environment needs none of this; where it offers these names, the framework uses them:
    signal_catalogue  {name: SignalKind}     unit and source of each entry of info["signals"]
    reward_weights    {name: weight}         the default reward is the weighted sum of the step's signals
    env_version, sandbox_tier, instructions  recorded with every step; the last tells a stranger what to type
    actions                                  every action there is, where they can be listed: for tables and for search
    expert_action()                          what a scripted expert would do now: for demonstrations
    oracle_action()                          what one who knows the hidden state would do: the top of the scale
    random_action(rng)                       a well-formed action at random: the baseline to beat
    spells_out                               True where the first observation says what to write: instructions to follow
    step_seconds                             how long a step may take at the median, where that is more than one second
    cheats                                   what a dishonest agent would try; `./xp env check` wants it to earn nothing
    laboratory()                             what could be tried and what is known of it: for campaigns of experiments
    snapshot(), restore(bytes)               where the world can go back: the same actions then give the same steps
`reset(seed=…, options={"split": "train" | "heldout"})` draws a task of that split. Splits are disjoint by the
task's content, not by its seed: no training seed ever draws a held-out task.
"""

from __future__ import annotations

import hashlib
import pickle
import string
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Literal, TypeVar

import gymnasium
import numpy as np
from gymnasium.spaces import Text

from experience.reward import weighted_sum
from experience.signal import SignalKind

Task = TypeVar("Task")
Split = Literal["train", "heldout"]
Outcome = tuple[dict[str, Any], bool]
INVALID = "invalid_action"
_MOST_DRAWS = 10_000


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
    max_turns: int = 4
    instructions: ClassVar[str] = ""
    actions: tuple[str, ...] = ()
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {}
    reward_weights: ClassVar[dict[str, float]] = {}
    cheats: ClassVar[Sequence[str | Sequence[str]]] = ()
    """One action again and again, or several, the last again and again."""
    oracle_target: ClassVar[float] = 0.95
    """The return that the oracle reaches on average over held-out tasks."""
    splits: ClassVar[Sequence[Split]] = ("train", "heldout")
    """What may be asked for; the first is the default. A world for evaluation alone has only held-out tasks."""
    spells_out: ClassVar[bool] = False
    """Whether the first observation says what to write, as an instruction does: then it is no leak."""
    goes_back: ClassVar[bool] = False
    """Whether `snapshot` and `restore` are offered."""
    repeats: ClassVar[bool] = False
    """Whether it goes back by doing again what was done since the reset: for a page, a process or a stranger's state
    that cannot be copied, but does the same for the same actions."""
    observation_characters: ClassVar[int] = 4000
    cut_off: bool = False
    """Set by `act` where something else than `max_turns` cuts the episode off."""

    task: Task

    def __init__(self) -> None:
        self.observation_space = Text(
            max_length=self.observation_characters, charset=string.printable, min_length=0
        )
        self.action_space = Text(max_length=2000, charset=string.printable, min_length=0)

    def draw(self, rng: np.random.Generator) -> Task:
        """A task of either split."""
        raise NotImplementedError

    def signature(self, task: Task) -> str:
        """The content that names a task: equal tasks, equal signatures."""
        return repr(task)

    def tasks(self, split: Split, rng: np.random.Generator) -> Task:
        """A task of `split`: drawn until one falls there by its content."""
        for _ in range(_MOST_DRAWS):
            task = self.draw(rng)
            if is_held_out(self.signature(task)) == (split == "heldout"):
                return task
        raise RuntimeError(
            f"{type(self).__name__}: none of {_MOST_DRAWS} drawn tasks is {split}; "
            "draw from more tasks, or give tasks(split, rng)"
        )

    def begin(self) -> None:
        """Puts the world into the start state of `self.task`."""
        raise NotImplementedError

    def observe(self) -> str:
        """What the agent sees now."""
        raise NotImplementedError

    def images(self) -> dict[str, bytes]:
        """What it looks like now, by what it shows (e.g. "screenshot"): bytes as PNG, JPEG or WebP."""
        return {}

    def act(self, action: str) -> Outcome:
        """Does `action`; returns the measured signals and whether the task has ended. Raises ValueError, having
        changed nothing, for an action that cannot be read."""
        raise NotImplementedError

    def expert_action(self) -> str:
        return self.oracle_action()

    def oracle_action(self) -> str:
        if type(self).expert_action is World.expert_action:
            raise NotImplementedError(
                f"{type(self).__name__} needs an oracle_action: who knows all, scores what?"
            )
        return self.expert_action()

    def random_action(self, rng: np.random.Generator) -> str:
        raise NotImplementedError

    def snapshot(self) -> bytes:
        """The whole state of the world, so that `restore` goes on from here. A world of plain Python needs only to set
        `goes_back`; one with a process behind it sets `repeats` too, or overrides both."""
        if not self.goes_back:
            raise NotImplementedError(f"{type(self).__name__} offers no snapshots")
        if self.repeats:
            return pickle.dumps((self.split, self.task, self._drawn_with, self._acted))
        return pickle.dumps(
            {name: value for name, value in vars(self).items() if not name.endswith("_space")}
        )

    def restore(self, snapshot: bytes) -> tuple[str, dict[str, Any]]:
        """Back to `snapshot`, which came from this class in this process or one of the same user: pickle, so never from
        a stranger. Returns what `reset` would: the observation and its info."""
        if not self.goes_back:
            raise NotImplementedError(f"{type(self).__name__} offers no snapshots")
        if self.repeats:
            self.split, self.task, self.np_random.bit_generator.state, acted = pickle.loads(
                snapshot
            )
            self._from_the_start()
            for action in acted:
                self.step(action)
        else:
            vars(self).update(pickle.loads(snapshot))
        return self._seen(), self._info({})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        split = (options or {}).get("split", self.splits[0])
        if split not in self.splits:
            raise ValueError(
                f"split {split!r}: {type(self).__name__} has {' and '.join(self.splits)}"
            )
        self.split = split
        self.task = self.tasks(split, self.np_random)
        self._from_the_start()
        return self._seen(), self._info({})

    def _from_the_start(self) -> None:
        self._turn, self._note, self._ended = 0, "", False
        self._drawn_with, self._acted = self.np_random.bit_generator.state, list[str]()
        self.begin()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if self._ended:
            raise RuntimeError("step() after the episode ended; call reset() first")
        self._turn += 1
        self._acted.append(action)
        self._note, self.cut_off = "", False
        try:
            signals, terminated = self.act(action.strip() or "(nothing)")
        except ValueError as unreadable:
            self._note = f"\n! {unreadable}"
            signals, terminated = {INVALID: (1.0, action[:80])}, False
        truncated = not terminated and (self.cut_off or self._turn >= self.max_turns)
        self._ended = terminated or truncated
        values = {n: v[0] if isinstance(v, tuple) else v for n, v in signals.items()}
        reward = weighted_sum(values, self.reward_weights)
        return (
            self._seen(),
            float("nan") if reward is None else reward,
            terminated,
            truncated,
            self._info(signals),
        )

    def _seen(self) -> str:
        return _printable(self.observe() + self._note, self.observation_characters)

    def _info(self, signals: dict[str, Any]) -> dict[str, Any]:
        return {
            "signals": signals,
            "task_id": self.signature(self.task),
            "split": self.split,
            "state": self.observe(),
            "images": self.images(),
        }


def _printable(text: str, most: int) -> str:
    """`text` with anything outside printable ASCII shown as '?', as the observation space promises."""
    return "".join(c if c in string.printable else "?" for c in text)[:most]
