"""Executes options in the collectors: what is under way in each stream, what it does next, and when it is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

from experience.errors import EngineError
from experience.options.option import Library, Pursued, Stored, Subgoal, option_id
from experience.planning.world_models.change import Outcome
from experience.policy import Decision

_REMEMBERED = 500
"""Turns of an episode that a planner knows the answers of."""

_DEEPEST = 8
"""Options within options. Deeper, one is not started: `use NAME` goes to the world as any text does."""


@dataclass
class Running:
    """An option under way; `age` is the number of actions that it has taken."""

    option: Stored
    age: int = 0


@dataclass
class OptionStack:
    """The options under way in one stream, outermost first; and of the row being lived whether it only starts one, and
    what a planner expected of it, in units of reward."""

    running: list[Running] = field(default_factory=list)
    is_choice: bool = False
    value_estimate: float | None = None
    lived: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    """What the episode's last turns were answered, by what was seen and done: a planner knows it and need not guess."""

    @property
    def mark(self) -> tuple[int | None, int | None]:
        """(option_id, option_step) of the row being lived."""
        if not self.running:
            return None, None
        return option_id(self.running[-1].option.name), 0 if self.is_choice else self.running[
            -1
        ].age

    def remember(self, observation: str, action: str, answer: Outcome) -> None:
        self.lived[observation, action] = answer
        if len(self.lived) > _REMEMBERED:
            del self.lived[next(iter(self.lived))]

    def read(self, observation: str, library: Library) -> str:
        """What the policy reads: under a subgoal its goal, under no option what may be chosen, before what is seen."""
        if not self.running:
            return library.offered(observation)
        inner = self.running[-1].option
        return inner.shown(observation) if isinstance(inner, Subgoal) else observation

    def arrived(self, observation: str, rng: np.random.Generator) -> bool:
        """A turn is over. True if with it an option is: by its β, or because it knows no way on. With an outer one, all
        within it are over."""
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
    intents: OptionStack

    @property
    def env_id(self) -> str: ...

    @property
    def observation(self) -> str: ...


S = TypeVar("S", bound=EnvSlot)


def choose(
    seats: Sequence[S],
    library: Library,
    policy: Callable[[Sequence[S]], list[Decision]],
    version: int = 0,
) -> list[Decision]:
    """The next decision of every seat: of the option under way if it acts by itself, else of the policy, which came
    with the library as `version`.

    Where it starts an option, `intents.is_choice` says so: that row is no turn of the world. Raises EngineError if the
    policy does not answer one for one.
    """
    for seat in seats:
        seat.intents.value_estimate = None
    asked = [seat for seat in seats if not _acts_by_itself(seat)]
    answers = policy(asked) if asked else []
    if len(answers) != len(asked):
        raise EngineError(
            f"{len(asked)} situations but {len(answers)} decisions", "an engine answers one for one"
        )
    left = iter(answers)
    decisions = [
        _by_option(seat, version) if _acts_by_itself(seat) else next(left) for seat in seats
    ]
    for seat, decision in zip(seats, decisions, strict=True):
        _begin_or_age(seat, decision, library.within(seat.env_id))
    return decisions


def _acts_by_itself(seat: EnvSlot) -> bool:
    running = seat.intents.running
    return bool(running) and not isinstance(running[-1].option, Pursued)


def _by_option(seat: EnvSlot, version: int) -> Decision:
    running = seat.intents.running[-1]
    action = running.option.act(seat.observation, running.age)
    return Decision(action or "", version, behaviour_id=f"option:{running.option.name}")


def _begin_or_age(seat: EnvSlot, decision: Decision, library: Library) -> None:
    """Starts the option that the decision names, if it may start here; what is pursued is by primitive actions only.
    Whoever took the decision is one action older."""
    running = seat.intents.running
    option = library.started(decision.text, seat.observation)
    pursuing = running and isinstance(running[-1].option, Pursued)
    if running:
        running[-1].age += 1
    seat.intents.is_choice = option is not None and not pursuing and len(running) < _DEEPEST
    if seat.intents.is_choice and option is not None:
        running.append(Running(option))
