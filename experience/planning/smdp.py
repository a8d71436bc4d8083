"""Planning and learning with options where states can be listed: multi-time models, and values over options.

An option's model has the shape of an action's: r_o(s), what it earns until it stops, and p_o(s, s'), where it stops,
with γ^k inside (Sutton, Precup & Singh 1999, eq. 3 and 4). So one value iteration serves both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experience.learning.returns import Floats
from experience.planning.change import Answer
from experience.planning.option import USE, Library, Option, option_id
from experience.planning.tabular import TabularModel
from experience.step import Boundary, Step

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Model:
    """One way to behave: reward float [S]; arrival float [S, S], discounted; starts bool [S], where it may begin."""

    reward: Floats
    arrival: Floats
    starts: Bools


@dataclass(frozen=True)
class FiniteWorld:
    """A world whose states are listed, with the models of its actions. Where a world ends it arrives nowhere."""

    states: tuple[str, ...]
    actions: tuple[str, ...]
    models: tuple[Model, ...]

    @classmethod
    def counted(cls, model: TabularModel, actions: Sequence[str], reward: Callable[[Answer], float],
                discount: float) -> FiniteWorld:
        """What a counting model knows. An action never tried in a state may not be started there."""
        states = tuple(dict.fromkeys([o for o, _ in model.pairs]
                                     + [a.observation for o, act in model.pairs for a in model.answers(o, act)]))
        index = {state: i for i, state in enumerate(states)}
        models = []
        for action in actions:
            r, p, starts = np.zeros(len(states)), np.zeros((len(states), len(states))), np.zeros(len(states), bool)
            for state, i in index.items():
                for answer, share in model.answers(state, action).items():
                    starts[i] = True
                    r[i] += share * reward(answer)
                    if not answer.ended:
                        p[i, index[answer.observation]] += share * discount
            models.append(Model(r, p, starts))
        return cls(states, tuple(actions), tuple(models))

    def model_of(self, option: Option) -> Model:
        """The multi-time model of an option whose π and β depend on what is seen alone.

        r_o = r_π + γP_π (1−β) r_o,   p_o = γP_π (β I + (1−β) p_o): linear systems, solved exactly.
        An option that knows no way on where it has not stopped, stops there.
        """
        n = len(self.states)
        named = [option.act(state, 0) for state in self.states]
        chosen = [self.actions.index(a) if a is not None and a in self.actions else 0 for a in named]
        known = np.array([a in self.actions and bool(self.models[chosen[i]].starts[i]) for i, a in enumerate(named)])
        r = np.array([self.models[a].reward[i] for i, a in enumerate(chosen)]) * known
        p = np.array([self.models[a].arrival[i] for i, a in enumerate(chosen)]) * known[:, None]
        stop = np.array([option.stops(state, 1) for state in self.states])
        stop[~known] = 1.0
        system = np.eye(n) - p * (1 - stop)
        starts = np.array([option.starts(state) for state in self.states]) & known
        return Model(np.linalg.solve(system, r), np.linalg.solve(system, p * stop), starts)


def backup(models: Sequence[Model], values: Floats) -> Floats:
    """q(s, o) = r_o(s) + Σ p_o(s, s') v(s'), float [O, S]; −∞ where an option may not start."""
    return np.array([np.where(m.starts, m.reward + m.arrival @ values, -np.inf) for m in models])


def value_iteration(models: Sequence[Model], sweeps: int, start: Floats | None = None) -> list[Floats]:
    """v after 0, 1, … `sweeps` synchronous sweeps, each float [S]. A state where nothing may start is worth 0."""
    history = [np.zeros(len(models[0].reward)) if start is None else start]
    for _ in range(sweeps):
        best = backup(models, history[-1]).max(0)
        history.append(np.where(np.isfinite(best), best, 0.0))
    return history


def interrupted(models: Sequence[Model], values: Floats, option: int) -> Bools:
    """Where going on with `option` is worth less than choosing anew: q(s, o) < v(s), bool [S] (ibid., theorem 2)."""
    return np.asarray(backup([models[option]], values)[0] < values - 1e-12)


@dataclass(frozen=True)
class OptionSettings:
    """step_size α, discount γ; `intra` learns of every option that would have done the same, not only of the one that
    was followed."""

    step_size: float = 0.1
    discount: float = 0.9
    intra: bool = True


class OptionLearner:
    """Values of actions and options, learned from rows as collectors write them. One stream at a time, in order.

    SMDP:  Q(S,O) ← Q(S,O) + α [R^{(k)} + γ^k max_O' Q(S',O') − Q(S,O)]
    intra: Q(S,o) ← Q(S,o) + α [R + γ U(S',o) − Q(S,o)] for every o with π_o(S) = A,
           U(S',o) = (1−β_o) Q(S',o) + β_o max Q(S',·)        Sutton, Precup & Singh 1999, eq. 12 and 20
    """

    def __init__(self, actions: Sequence[str], library: Library, settings: OptionSettings) -> None:
        self.library, self.settings = library, settings
        self.actions = (*actions, *(USE + o.name for o in library))
        self._index = {action: i for i, action in enumerate(self.actions)}
        self._by_id = {option_id(o.name): USE + o.name for o in library}
        self.values: dict[str, list[float]] = {}
        self._admissible: dict[str, list[int]] = {}
        self._started: tuple[str, str, float, int] | None = None
        self.durations: dict[str, list[int]] = defaultdict(list)

    def learn(self, step: Step, following: Step) -> None:
        """One row and the next of its stream. A choice of an option is remembered until the option is over."""
        if step.decision is None or step.reward is None:
            return
        action, ahead = step.decision.text, following.obs_text
        if step.is_choice and step.option_id is not None:
            self._started = (step.obs_text, self._by_id.get(step.option_id, ""), 0.0, 0)
            return
        ended = step.ending == "terminated"
        if self.settings.intra:
            for option in self.library:
                if option.starts(step.obs_text) and option.act(step.obs_text, 0) == action:
                    stop = 1.0 if ended else option.stops(ahead, 1)
                    going_on = self._row(ahead)[self._index[USE + option.name]] if stop < 1 else 0.0
                    worth = 0.0 if ended else (1 - stop) * going_on + stop * self.best(ahead)
                    self._move(step.obs_text, USE + option.name, step.reward + self.settings.discount * worth)
        if action in self._index:
            worth = 0.0 if ended else self.best(ahead)
            self._move(step.obs_text, action, step.reward + self.settings.discount * worth)
        if step.option_id is not None and self._started is not None:
            self._follow(step, ahead, ended)

    def _follow(self, step: Step, ahead: str, ended: bool) -> None:
        """Adds a turn to the option under way; when it is over, the whole of it is one step of the SMDP."""
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

    def _move(self, observation: str, action: str, target: float) -> None:
        row, i = self._row(observation), self._index[action]
        row[i] += self.settings.step_size * (target - row[i])

    def _row(self, observation: str) -> list[float]:
        row = self.values.get(observation)
        if row is None:
            row = self.values[observation] = [0.0] * len(self.actions)
            startable = set(self.library.admissible(observation))
            self._admissible[observation] = [i for i, a in enumerate(self.actions)
                                             if not a.startswith(USE) or a in startable]
        return row


def learned_models(steps: Sequence[tuple[Step, Step]], option: Option, index: Mapping[str, int], step_size: float,
                   discount: float) -> Model:
    """An option's model from real steps of any behaviour, by the intra-option TD rule (ibid., eq. 21 and 22):

    r_o(S) += α [R + γ (1−β(S')) r_o(S') − r_o(S)],   p_o(S,·) += α [γ ((1−β) p_o(S',·) + β 1_{S'}) − p_o(S,·)]
    """
    n = len(index)
    r, p = np.zeros(n), np.zeros((n, n))
    for step, following in steps:
        if step.decision is None or step.reward is None or option.act(step.obs_text, 0) != step.decision.text:
            continue
        s, ended = index[step.obs_text], step.ending == "terminated"
        if ended:
            target_r, target_p = step.reward, np.zeros(n)
        else:
            ahead = index[following.obs_text]
            stop = option.stops(following.obs_text, 1)
            target_r = step.reward + discount * (1 - stop) * r[ahead]
            target_p = discount * (1 - stop) * p[ahead]
            target_p[ahead] += discount * stop
        r[s] += step_size * (target_r - r[s])
        p[s] += step_size * (target_p - p[s])
    return Model(r, p, np.array([option.starts(state) for state in index]))
