"""Planning and learning with options where states can be listed: multi-time models, and values over
options.

An option's model has the shape of an action's: r_o(s), what it earns until it stops, and p_o(s,
s'), where it stops, with γ^k inside (Sutton, Precup & Singh 1999, eq. 3 and 4). So one value
iteration serves both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experience.options.option import USE, Library, Option, Stored, option_id, stages, stops_at
from experience.planning.tabular import TabularModel
from experience.planning.world_models.change import Outcome
from experience.returns import Floats
from experience.step import Boundary, Step

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Model:
    """One way to behave: reward float [S]; arrival float [S, S], discounted; starts bool [S], where
    it may begin."""

    reward: Floats
    arrival: Floats
    starts: Bools


@dataclass(frozen=True)
class FiniteWorld:
    """A world whose states are listed, with the models of its actions.

    Where a world ends it arrives nowhere.
    """

    states: tuple[str, ...]
    actions: tuple[str, ...]
    models: tuple[Model, ...]

    @classmethod
    def counted(
        cls,
        model: TabularModel,
        actions: Sequence[str],
        reward: Callable[[Outcome], float],
        discount: float,
    ) -> FiniteWorld:
        """What a counting model knows.

        An action never tried in a state may not be started there.
        """
        states = tuple(
            dict.fromkeys(
                [o for o, _ in model.pairs]
                + [a.observation for o, act in model.pairs for a in model.answers(o, act)]
            )
        )
        index = {state: i for i, state in enumerate(states)}
        models = []
        for action in actions:
            r, p, starts = (
                np.zeros(len(states)),
                np.zeros((len(states), len(states))),
                np.zeros(len(states), bool),
            )
            for state, i in index.items():
                for answer, share in model.answers(state, action).items():
                    starts[i] = True
                    r[i] += share * reward(answer)
                    if not answer.ended:
                        p[i, index[answer.observation]] += share * discount
            models.append(Model(r, p, starts))
        return cls(states, tuple(actions), tuple(models))

    def model_of(self, option: Option) -> Model:
        """The multi-time model of an option.

        r_o = r_π + γP_π (1−β) r_o,   p_o = γP_π (β I + (1−β) p_o): linear systems, solved exactly
        where π and β depend on what is seen alone; for a program from its last action back, each
        age upon the model of the next. An option that knows no way on where it has not stopped,
        stops there.
        """
        last = stages(option) - 1
        stop, r, p = self._stage(option, last)
        system = np.eye(len(self.states)) - p * (1 - stop)
        r = np.asarray(np.linalg.solve(system, r), np.float64)
        p = np.asarray(np.linalg.solve(system, p * stop), np.float64)
        for age in range(last - 1, -1, -1):
            stop, earned, arrival = self._stage(option, age)
            r, p = (
                earned + arrival @ ((1 - stop) * r),
                arrival * stop + arrival @ ((1 - stop)[:, None] * p),
            )
        starts = np.array([option.starts(state) for state in self.states]) & self._known(option, 0)
        return Model(r, p, starts)

    def _known(self, option: Option, age: int) -> Bools:
        """bool [S]: where the option's action at that age is one of the world's that may be started
        there."""
        named = [option.act(state, age) for state in self.states]
        return np.array(
            [
                a in self.actions and bool(self.models[self.actions.index(a)].starts[i])
                for i, a in enumerate(named)
            ]
        )

    def _stage(self, option: Option, age: int) -> tuple[Floats, Floats, Floats]:
        """Of the option's action at `age`: β on arrival [S], its reward [S], its discounted arrival
        [S, S]."""
        named = [option.act(state, age) for state in self.states]
        chosen = [self.actions.index(a) if a in self.actions else 0 for a in named]
        known = self._known(option, age)
        stop = np.array([stops_at(option, state, age + 1) for state in self.states])
        stop[~self._known(option, age + 1)] = 1.0
        return (
            stop,
            np.array([self.models[a].reward[i] for i, a in enumerate(chosen)]) * known,
            np.array([self.models[a].arrival[i] for i, a in enumerate(chosen)]) * known[:, None],
        )


def backup(models: Sequence[Model], values: Floats) -> Floats:
    """q(s, o) = r_o(s) + Σ p_o(s, s') v(s'), float [O, S]; −∞ where an option may not start."""
    return np.array([np.where(m.starts, m.reward + m.arrival @ values, -np.inf) for m in models])


def value_iteration(
    models: Sequence[Model], sweeps: int, start: Floats | None = None
) -> list[Floats]:
    """v after 0, 1, … `sweeps` synchronous sweeps, each float [S].

    A state where nothing may start is worth 0.
    """
    history = [np.zeros(len(models[0].reward)) if start is None else start]
    for _ in range(sweeps):
        best = backup(models, history[-1]).max(0)
        history.append(np.where(np.isfinite(best), best, 0.0))
    return history


def interrupted(models: Sequence[Model], values: Floats, option: int) -> Bools:
    """Where going on with `option` is worth less than choosing anew: q(s, o) < v(s), bool [S]
    (ibid., theorem 2)."""
    return np.asarray(backup([models[option]], values)[0] < values - 1e-12)


@dataclass(frozen=True)
class OptionSettings:
    """step_size α, discount γ; `intra` learns of every option that would have done the same, not
    only of the one that was followed."""

    step_size: float = 0.1
    discount: float = 0.9
    intra: bool = True


class OptionLearner:
    """Values of actions and options, learned from rows as collectors write them. One stream at a
    time, in order.

    SMDP:  Q(S,O) ← Q(S,O) + α [R^{(k)} + γ^k max_O' Q(S',O') − Q(S,O)]
    intra: Q(S,o) ← Q(S,o) + α [R + γ U(S',o) − Q(S,o)] for every o with π_o(S) = A,
           U(S',o) = (1−β_o) Q(S',o) + β_o max Q(S',·)        Sutton, Precup & Singh 1999, eq. 12
           and 20
    A program is a policy over (S, age): it has such a Q for each of its ages, and each looks ahead
    to the next. Choices that options make of other options are not learned from.
    """

    def __init__(self, actions: Sequence[str], library: Library, settings: OptionSettings) -> None:
        self.library, self.settings = library, settings
        self.actions = (*actions, *(USE + o.name for o in library))
        self._index = {action: i for i, action in enumerate(self.actions)}
        self._by_id = {option_id(o.name): USE + o.name for o in library}
        self.values: dict[str, list[float]] = {}
        self._within: dict[tuple[str, str, int], float] = {}
        """Q(S, o) of a program that has taken 1, 2, … of its actions, by (observation, name, age).
        """
        self._admissible: dict[str, list[int]] = {}
        self._started: tuple[str, str, float, int] | None = None
        self.durations: dict[str, list[int]] = defaultdict(list)

    def learn(self, step: Step, following: Step) -> None:
        """One row and the next of its stream.

        A choice of an option is remembered until the option is over.
        """
        if step.decision is None or step.reward is None:
            return
        action, ahead = step.decision.text, following.obs_text
        if step.is_choice and step.option_id is not None:
            self._started = (step.obs_text, self._by_id.get(step.option_id, ""), 0.0, 0)
            return
        ended = step.ending == "terminated"
        if self.settings.intra:
            for option in self.library:
                for age in range(stages(option)):
                    if option.act(step.obs_text, age) == action and (
                        age or option.starts(step.obs_text)
                    ):
                        worth = 0.0 if ended else self._arriving(option, ahead, age + 1)
                        self._move(
                            step.obs_text,
                            USE + option.name,
                            step.reward + self.settings.discount * worth,
                            age,
                        )
        if action in self._index:
            worth = 0.0 if ended else self.best(ahead)
            self._move(step.obs_text, action, step.reward + self.settings.discount * worth)
        if step.option_id is not None and self._started is not None:
            self._follow(step, ahead, ended)

    def _arriving(self, option: Stored, observation: str, age: int) -> float:
        """U(S', o) after `age` actions."""
        stop = stops_at(option, observation, age)
        going_on = 0.0 if stop == 1 else self._value(observation, option, age % stages(option))
        return (1 - stop) * going_on + (stop * self.best(observation) if stop else 0.0)

    def _value(self, observation: str, option: Stored, age: int) -> float:
        if age:
            return self._within.get((observation, option.name, age), 0.0)
        return self._row(observation)[self._index[USE + option.name]]

    def _follow(self, step: Step, ahead: str, ended: bool) -> None:
        """Adds a turn to the option under way; when it is over, the whole of it is one step of the
        SMDP."""
        assert self._started is not None and step.reward is not None
        state, name, earned, k = self._started
        earned, k = earned + self.settings.discount**k * step.reward, k + 1
        self._started = (state, name, earned, k)
        if step.boundary & Boundary.OPTION_END or ended:
            self.durations[name].append(k)
            if not self.settings.intra and name in self._index:
                worth = 0.0 if ended else self.best(ahead)
                self._move(state, name, earned + self.settings.discount**k * worth)
            self._started = None

    def best(self, observation: str) -> float:
        """max over what may be started there."""
        row = self._row(observation)
        return max(row[i] for i in self._admissible[observation])

    def _move(self, observation: str, action: str, target: float, age: int = 0) -> None:
        if age:
            place = observation, action.removeprefix(USE), age
            before = self._within.get(place, 0.0)
            self._within[place] = before + self.settings.step_size * (target - before)
            return
        row, i = self._row(observation), self._index[action]
        row[i] += self.settings.step_size * (target - row[i])

    def _row(self, observation: str) -> list[float]:
        row = self.values.get(observation)
        if row is None:
            row = self.values[observation] = [0.0] * len(self.actions)
            startable = set(self.library.admissible(observation))
            self._admissible[observation] = [
                i for i, a in enumerate(self.actions) if not a.startswith(USE) or a in startable
            ]
        return row


def learned_models(
    steps: Sequence[tuple[Step, Step]],
    option: Option,
    index: Mapping[str, int],
    step_size: float,
    discount: float,
) -> Model:
    """An option's model from real steps of any behaviour, by the intra-option TD rule (ibid., eq.
    21 and 22):

    r_o(S) += α [R + γ (1−β(S')) r_o(S') − r_o(S)],   p_o(S,·) += α [γ ((1−β) p_o(S',·) + β 1_{S'})
    − p_o(S,·)]
    """
    n, ages = len(index), stages(option)
    r, p = np.zeros((ages, n)), np.zeros((ages, n, n))  # a program has a model for each of its ages
    for step, following in steps:
        if step.decision is None or step.reward is None or step.is_choice:
            continue
        s, ended = index[step.obs_text], step.ending == "terminated"
        for age in (
            age for age in range(ages) if option.act(step.obs_text, age) == step.decision.text
        ):
            target_r, target_p = step.reward, np.zeros(n)
            if not ended:
                ahead, later = index[following.obs_text], (age + 1) % ages
                stop = stops_at(option, following.obs_text, age + 1)
                target_r = step.reward + discount * (1 - stop) * r[later, ahead]
                target_p = discount * (1 - stop) * p[later, ahead]
                target_p[ahead] += discount * stop
            r[age, s] += step_size * (target_r - r[age, s])
            p[age, s] += step_size * (target_p - p[age, s])
    return Model(r[0], p[0], np.array([option.starts(state) for state in index]))
