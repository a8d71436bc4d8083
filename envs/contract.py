"""The contract of bundled worlds, beyond Gymnasium's own.

A stranger's environment needs none of it. The framework uses these names where a world has them:

    signal_catalogue  {name: SignalKind}, unit and source of each entry of info["signals"]
    reward_weights    {name: weight}, the default reward is the weighted sum of a step's signals
    reward_function(signals, weights, context)
                      a static method that is the reward instead, a pure function: see the docs
    env_version, sandbox_tier
                      recorded with every step
    instructions      recorded with every step; tells an agent what to type
    tool_schemas      its tools, as language models are told of them; see docs/tools.md
    actions           all actions, if they can be listed: for tables and for search
    expert_action()   what a scripted expert would do now: for demonstrations
    oracle_action()   the best action, given the hidden state: the upper end of the scale
    random_action(rng)
                      a well-formed action at random: the baseline to beat
    spells_out        True if the first observation says what to write, as an instruction does
    step_seconds      the median duration of a step, if longer than one second
    deadline_seconds  how long a reset or a step may take before it counts as hung
    episode_seconds   (World) after this time an episode is truncated
    info["late"], info["tag"]
                      signals of earlier steps that are measured only now; see docs
    max_turns, segment_turns
                      an endless world has max_turns None, and is lived in segments
    observation_characters, action_characters
                      the longest observation (cut off there) and action (refused beyond)
    wording, describe(), example()
                      plain words for language models beside the terse ones (envs/wording.py)
    cheats            what a dishonest agent would try; `./xp env check` expects no reward for it
    laboratory()      possible experiments and known results: for campaigns of experiments
    snapshot(), restore(bytes)
                      go back to an earlier state: the same actions then give the same steps
    agents            the names of its agents, where a world has several (envs/several/)
    seat(agent)       the rules, actions and scripts of one of them
    others, others_heldout
                      who plays the agents that the policy does not

`reset(seed=…, options={"split": "train" | "heldout"})` draws a task of that split. The content of a
task decides its split, not its seed: no training seed ever draws a held-out task.
"""

from __future__ import annotations

import hashlib
import pickle
import time
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

import gymnasium
import numpy as np

from envs.unicode_text import UnicodeText
from envs.wording import OF_WORDING, Worded, plain_observation
from experience.reward import RewardFunction, computed, context_of, weighted_sum
from experience.signal import LATE, SignalKind
from experience.text.characters import readable, without_lone_surrogates

Task = TypeVar("Task")
__all__ = ["INVALID", "LATE", "Outcome", "Split", "Task", "World", "WorldDefinition", "is_held_out"]

Split = str
"""train, heldout, or a split of the world's own."""
Outcome = tuple[dict[str, Any], bool]
INVALID = "invalid_action"
_MOST_DRAWS = 10_000


def is_held_out(signature: str) -> bool:
    """Whether the task with this signature is held out: one task in five, decided by its content.

    The rule never changes: with another one, a trained agent would meet its training tasks.
    """
    # 51 of 256 first bytes: a fifth. Python's own `hash` differs from process to process.
    return hashlib.sha256(f"heldout/{signature}".encode()).digest()[0] < 51


class WorldDefinition(Worded, gymnasium.Env[str, str], Generic[Task]):
    """The part of a world that its class defines: its tasks, what it shows, what actions do.

    A class of worlds defines `draw` (a task), `begin` (its start state), `observe` and `act`. What
    it may say to language models stands in envs/wording.py.
    """

    env_version: ClassVar[str] = "1"
    sandbox_tier: str = "none-needed"
    max_turns: int | None = 4
    """After so many turns an episode is truncated. None: the world is endless, a stream."""
    segment_turns: int = 0
    """An endless world is lived in segments of so many turns; 0 means 100. A segment ends as
    truncated, and the next one goes on in the same state, without a reset."""
    instructions: ClassVar[str] = ""
    actions: tuple[str, ...] = ()
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {}
    reward_weights: ClassVar[dict[str, float]] = {}
    cheats: ClassVar[Sequence[str | Sequence[str]]] = ()
    """Each entry is one action, or several in order; its last action is repeated to the end."""
    oracle_target: ClassVar[float] = 0.95
    """The mean return that the oracle reaches over held-out tasks."""
    splits: ClassVar[Sequence[Split]] = ("train", "heldout")
    """The splits that `reset` takes; the first is the default.

    A world for evaluation alone has only held-out tasks. A split of its own needs `tasks`.
    """
    spells_out: ClassVar[bool] = False
    """Whether the first observation says what to write, as an instruction does.

    `./xp env check` then does not count the answer in the observation as a leak.
    """
    goes_back: ClassVar[bool] = False
    """Whether `snapshot` and `restore` are offered."""
    repeats: ClassVar[bool] = False
    """Whether `restore` repeats the actions since the reset instead of copying the state.

    For a page, a process or a stranger's environment: its state cannot be copied, but the same
    actions lead to it again.
    """
    deadline_seconds: float | None = None
    """How long a reset or a step may take before it counts as hung: the episode then ends as
    `timeout`. None: `collecting.step_timeout_seconds` of the configuration."""
    episode_seconds: float | None = None
    """A budget: the first step that ends later than this after the reset truncates the episode."""
    observation_characters: int = 4000
    """An observation is cut off after this number of characters."""
    action_characters: int = 20_000
    """An action with more characters is refused, as one that cannot be read."""
    late: dict[int | str, dict[str, Any]]
    """`act` sets this to signals of earlier steps that it measures only now: {tag or number of the
    step since the reset, from 0: signals}. The step itself reports them as `LATE`."""
    tag: str = ""
    """`act` sets this to name its step, so that a later step can report late signals of it."""
    cut_off: bool = False
    """`act` sets this if something other than `max_turns` truncates the episode."""

    task: Task

    def __init__(
        self, *, observation_characters: int | None = None, action_characters: int | None = None
    ) -> None:
        """Both limits are the class's own unless they are given."""
        if observation_characters is not None:
            self.observation_characters = observation_characters
        if action_characters is not None:
            self.action_characters = action_characters
        self.observation_space = UnicodeText(self.observation_characters)
        self.action_space = UnicodeText(self.action_characters)

    def draw(self, rng: np.random.Generator) -> Task:
        """A random task of either split."""
        raise NotImplementedError

    def signature(self, task: Task) -> str:
        """A text that identifies the task by its content: equal tasks have equal signatures."""
        return repr(task)

    def tasks(self, split: Split, rng: np.random.Generator) -> Task:
        """A task of `split`. Raises RuntimeError if `draw` never gives one.

        Rejection sampling: draws tasks until one belongs to the split by its content.
        """
        if split not in ("train", "heldout"):
            raise NotImplementedError(
                f"{type(self).__name__}: which tasks are {split!r}? give tasks(split, rng), and "
                "none of them may be a training task"
            )
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
        """The text that the agent sees now."""
        raise NotImplementedError

    def images(self) -> dict[str, bytes]:
        """Images of the present state by name (e.g. "screenshot"): PNG, JPEG or WebP bytes."""
        return {}

    @property
    def gives_images(self) -> bool:
        """Whether `images` gives any: a run refuses a model that could not see them."""
        return type(self).images is not WorldDefinition.images

    def act(self, action: str) -> Outcome:
        """Does `action`; returns the measured signals and whether the task has ended.

        Raises ValueError for an action that cannot be read, and then has changed nothing.
        """
        raise NotImplementedError

    def expert_action(self) -> str:
        return self.oracle_action()

    def oracle_action(self) -> str:
        if type(self).expert_action is WorldDefinition.expert_action:
            raise NotImplementedError(
                f"{type(self).__name__} needs an oracle_action: the best action, "
                "chosen with knowledge of the hidden state"
            )
        return self.expert_action()

    def random_action(self, rng: np.random.Generator) -> str:
        raise NotImplementedError


class World(WorldDefinition[Task], Generic[Task]):
    """A text world with tasks in two splits: the turns of its episodes, and going back.

    Observations and actions are text in any script; a control character or a lone surrogate in an
    observation is shown as an escape, such as `\\x1b`. An action that cannot be read costs a turn,
    is reported as the signal `invalid_action`, and changes nothing else. After `max_turns` the
    episode is truncated. Subclasses define what `WorldDefinition` names.
    """

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
        self._turn = 0
        self._note = ""
        self._ended = False
        self.late, self.tag = {}, ""
        if self.episode_seconds is not None:
            self._began = time.monotonic()
        # A snapshot of a world that repeats needs the random state and the actions since here.
        self._drawn_with = self.np_random.bit_generator.state
        self._acted = list[str]()
        self.begin()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if self._ended:
            raise RuntimeError("step() after the episode ended; call reset() first")
        self._turn += 1
        # A refused action is kept too: it costs a turn, and a repetition must spend that turn.
        if self.repeats:  # an endless world that never repeats must not keep them
            self._acted.append(action)
        self._note = ""
        self.cut_off = False
        self.late, self.tag = {}, ""
        try:
            check_length(self, action)
            signals, terminated = self.act(action.strip() or "(nothing)")
        except ValueError as unreadable:
            self._note = self.refusal(action, unreadable)
            signals = {INVALID: (1.0, without_lone_surrogates(action[:80]))}
            terminated = False
        is_last = self.max_turns is not None and self._turn >= self.max_turns
        truncated = not terminated and (self.cut_off or is_last or self._is_out_of_time())
        self._ended = terminated or truncated
        # A signal is its value alone, or a pair (value, evidence).
        values = {n: v[0] if isinstance(v, tuple) else v for n, v in signals.items()}
        known = rewarded(self, values, self._turn - 1, ending_of(terminated, truncated))
        # Gymnasium has no word for an unknown reward: NaN stands for it, never zero.
        reward = float("nan") if known is None else known
        return self._seen(), reward, terminated, truncated, self._info(signals)

    def _is_out_of_time(self) -> bool:
        if self.episode_seconds is None:
            return False
        return time.monotonic() - self._began > self.episode_seconds

    def snapshot(self) -> bytes:
        """The whole state of the world as bytes, for `restore`.

        A world of plain Python only sets `goes_back`. A world with a process behind it sets
        `repeats` too, or overrides `snapshot` and `restore`.
        """
        if not self.goes_back:
            raise NotImplementedError(f"{type(self).__name__} offers no snapshots")
        if self.repeats:
            return pickle.dumps((self.split, self.task, self._drawn_with, self._acted))
        # A space holds random numbers of its own, and `restore` must not bring old ones back.
        state = {
            name: v
            for name, v in vars(self).items()
            if not name.endswith("_space") and name not in OF_WORDING
        }
        return pickle.dumps(state)

    def restore(self, snapshot: bytes) -> tuple[str, dict[str, Any]]:
        """Returns to the state of `snapshot`; gives its observation and info, as `reset` does.

        The snapshot must come from a world of the same class, made by the same user: it is a
        pickle, which can run code, so never restore a stranger's.
        """
        if not self.goes_back:
            raise NotImplementedError(f"{type(self).__name__} offers no snapshots")
        if self.repeats:
            self.split, self.task, drawn_with, acted = pickle.loads(snapshot)
            # `begin` may draw random numbers: the generator must be where the reset left it.
            self.np_random.bit_generator.state = drawn_with
            self._from_the_start()
            for action in acted:
                self.step(action)
        else:
            vars(self).update(pickle.loads(snapshot))
        return self._seen(), self._info({})

    def _seen(self) -> str:
        if self.wording == "plain":
            seen = plain_observation(self, self._note, self._turn, self._ended)
        else:
            seen = self.observe() + self._note
        return readable(seen)[: self.observation_characters]

    def _info(self, signals: dict[str, Any]) -> dict[str, Any]:
        named = {"late": self.late, "tag": self.tag} if self.late or self.tag else {}
        return named | {
            "signals": signals,
            "task_id": self.signature(self.task),
            "split": self.split,
            "state": readable(self.observe()),
            "images": self.images(),
        }


def check_length(world: WorldDefinition[Any], action: str) -> None:
    """Raises ValueError for an action that is too long to be read."""
    if len(action) > world.action_characters:
        raise ValueError(
            f"{len(action)} characters; an action has at most {world.action_characters}"
        )


def rewarded(
    world: WorldDefinition[Any], values: dict[str, float | None], turn: int, ending: str
) -> float | None:
    """The reward of a step's signals by the world's own function or weights; None is unknown."""
    function = RewardFunction.of(type(world))
    if function is None:
        return weighted_sum(values, world.reward_weights)
    context = context_of(turn, ending, world.signature(world.task))
    return computed(type(world).__name__, function, values, world.reward_weights, context)


def ending_of(terminated: bool, truncated: bool) -> str:
    """How an episode ended with a step; `none` where it goes on."""
    if terminated:
        return "terminated"
    return "truncated" if truncated else "none"
