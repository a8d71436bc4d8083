"""Executes options in the collectors: which are under way, what they do next, when they end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

from actors.agents.context import Context
from experience.errors import EngineError
from experience.options.option import Experiments, Library, Pursued, Stored, Subgoal, option_id
from experience.planning.world_models.change import Outcome
from experience.policy import Decision
from experience.text.tools import Schema
from experience.world import WorldView

_REMEMBERED = 500
"""Most turns of an episode whose outcomes a planner is given."""

_DEEPEST = 8
"""Most options within options. Deeper, `use NAME` is an action like any text."""


@dataclass
class Running:
    """An option under way; `age` is the number of actions that it has taken."""

    option: Stored
    age: int = 0


@dataclass
class OptionStack:
    """The options under way in one stream, the outermost first.

    is_choice: the present row only starts an option; it is no turn of the world.
    value_estimate: what a planner expects of the present row, in units of reward.
    """

    running: list[Running] = field(default_factory=list)
    is_choice: bool = False
    value_estimate: float | None = None
    lived: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    """(observation, action) -> outcome, of the episode's last turns: a planner need not guess."""

    @property
    def mark(self) -> tuple[int | None, int | None]:
        """(option_id, option_step) of the present row."""
        if not self.running:
            return None, None
        innermost = self.running[-1]
        return option_id(innermost.option.name), 0 if self.is_choice else innermost.age

    @property
    def experiments(self) -> bool:
        """Whether a campaign of experiments is under way."""
        return any(isinstance(running.option, Experiments) for running in self.running)

    def remember(self, observation: str, action: str, answer: Outcome) -> None:
        self.lived[observation, action] = answer
        if len(self.lived) > _REMEMBERED:
            del self.lived[next(iter(self.lived))]

    def read(self, observation: str, library: Library) -> str:
        """What the policy reads: the observation, after the goal of the subgoal under way or, if no
        option is under way, after the options that may be chosen."""
        if not self.running:
            return library.offered(observation)
        inner = self.running[-1].option
        return inner.shown(observation) if isinstance(inner, Subgoal) else observation

    def arrived(self, observation: str, rng: np.random.Generator) -> bool:
        """Ends the options that stop after this turn, by β or for want of a next action. If an
        outer option ends, its inner options end too. Returns whether any ended."""
        before = len(self.running)
        for depth, running in enumerate(self.running):
            if rng.random() < running.option.stops(observation, running.age):
                del self.running[depth:]
                break
        while self.running and not self._goes_on(self.running[-1], observation):
            self.running.pop()
        return len(self.running) < before

    @staticmethod
    def _goes_on(running: Running, observation: str) -> bool:
        return (
            isinstance(running.option, Pursued)
            or running.option.act(observation, running.age) is not None
        )


class EnvSlot(Protocol):
    """An environment of a collector, as an agent sees it."""

    option_stack: OptionStack
    context: Context

    @property
    def env_id(self) -> str: ...

    @property
    def view(self) -> WorldView: ...

    @property
    def tools(self) -> Sequence[Schema]: ...

    @property
    def observation(self) -> str: ...

    @property
    def images(self) -> Mapping[str, bytes]:
        """The pictures of this turn, by name."""

    @property
    def draw(self) -> int:
        """The seed of this turn's random numbers."""


S = TypeVar("S", bound=EnvSlot)


def choose(
    slots: Sequence[S],
    library: Library,
    policy: Callable[[Sequence[S]], list[Decision]],
    version: int = 0,
) -> list[Decision]:
    """The next decision of every slot: of the option under way if it acts by itself, else of the
    policy. `version`: of the policy that `library` came with.

    If the decision starts an option, `option_stack.is_choice` is set: that row is no turn of the
    world. Raises EngineError if the policy does not answer one for one.
    """
    for slot in slots:
        slot.option_stack.value_estimate = None
    asked = [slot for slot in slots if not _acts_by_itself(slot)]
    answers = policy(asked) if asked else []
    if len(answers) != len(asked):
        raise EngineError(
            f"{len(asked)} situations but {len(answers)} decisions", "an engine answers one for one"
        )
    left = iter(answers)
    decisions = [
        _by_option(slot, version) if _acts_by_itself(slot) else next(left) for slot in slots
    ]
    for slot, decision in zip(slots, decisions, strict=True):
        _begin_or_age(slot, decision, library.within(slot.env_id))
    return decisions


def _acts_by_itself(slot: EnvSlot) -> bool:
    running = slot.option_stack.running
    return bool(running) and not isinstance(running[-1].option, Pursued)


def _by_option(slot: EnvSlot, version: int) -> Decision:
    running = slot.option_stack.running[-1]
    action = running.option.act(slot.observation, running.age)
    return Decision(action or "", version, behaviour_id=f"option:{running.option.name}")


def _begin_or_age(slot: EnvSlot, decision: Decision, library: Library) -> None:
    """Starts the option that the decision names, if it may start here; a subgoal is pursued by
    primitive actions only. The option that took the decision is one action older."""
    running = slot.option_stack.running
    option = library.started(decision.text, slot.observation)
    pursuing = running and isinstance(running[-1].option, Pursued)
    if running:
        running[-1].age += 1
    slot.option_stack.is_choice = option is not None and not pursuing and len(running) < _DEEPEST
    if slot.option_stack.is_choice and option is not None:
        running.append(Running(option))
