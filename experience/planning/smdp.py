"""Planning and learning with options where states can be listed: option models, option values.

An option's model has the shape of an action's: r_o(s), the reward until it stops, and p_o(s, s'),
the state where it stops, with γ^k inside (Sutton, Precup & Singh 1999, eq. 3 and 4). So one value
iteration serves actions and options alike.
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
    """The model of an action or an option.

    reward: float [S], expected until it stops. arrival: float [S, S], the probability of the state
    where it stops, times γ^k. starts: bool [S], where it may start.
    """

    reward: Floats
    arrival: Floats
    starts: Bools


@dataclass(frozen=True)
class FiniteWorld:
    """A world whose states are listed, with one model for each action.

    An action that ends the world arrives nowhere: its row of `arrival` sums to less than γ.
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
        """The world as a counting model knows it, with outcomes by their frequency.

        reward: of an outcome. An action that was never tried in a state may not start there.
        """
        pairs = list(model.pairs)
        outcomes = [outcome for pair in pairs for outcome in model.answers(*pair)]
        # In the order of their first time, so that the same experience gives the same numbers.
        states = tuple(
            dict.fromkeys([*(seen for seen, _ in pairs), *(o.observation for o in outcomes)])
        )
        index = {state: i for i, state in enumerate(states)}
        models = []
        for action in actions:
            r = np.zeros(len(states))
            p = np.zeros((len(states), len(states)))
            starts = np.zeros(len(states), bool)
            for state, i in index.items():
                for outcome, share in model.answers(state, action).items():
                    starts[i] = True
                    r[i] += share * reward(outcome)
                    if not outcome.ended:
                        p[i, index[outcome.observation]] += share * discount
            models.append(Model(r, p, starts))
        return cls(states, tuple(actions), tuple(models))

    def model_of(self, option: Option) -> Model:
        """The multi-time model of an option.

        r_o = r_π + γP_π (1−β) r_o,   p_o = γP_π (β I + (1−β) p_o)

        Where π and β depend on the state alone, these linear systems are solved exactly. A program
        has one model for each age; they are computed from its last action back. An option stops
        where it has no action that may start.
        """
        last = stages(option) - 1
        stop, r, p = self._stage(option, last)
        system = np.eye(len(self.states)) - p * (1 - stop)
        r = np.asarray(np.linalg.solve(system, r), np.float64)
        p = np.asarray(np.linalg.solve(system, p * stop), np.float64)
        for age in range(last - 1, -1, -1):
            stop, earned, arrival = self._stage(option, age)
            r = earned + arrival @ ((1 - stop) * r)
            p = arrival * stop + arrival @ ((1 - stop)[:, None] * p)
        starts = np.array([option.starts(state) for state in self.states]) & self._known(option, 0)
        return Model(r, p, starts)

    def _known(self, option: Option, age: int) -> Bools:
        """Where the option's action at `age` is one of the world's that may start, bool [S]."""
        known = np.zeros(len(self.states), bool)
        for i, state in enumerate(self.states):
            action = option.act(state, age)
            if action in self.actions:
                known[i] = self.models[self.actions.index(action)].starts[i]
        return known

    def _stage(self, option: Option, age: int) -> tuple[Floats, Floats, Floats]:
        """β on arrival, float [S], and the reward and arrival of the action at `age`."""
        named = [option.act(state, age) for state in self.states]
        # The first action stands in where there is none; `known` makes its row 0.
        chosen = [self.actions.index(a) if a in self.actions else 0 for a in named]
        known = self._known(option, age)
        stop = np.array([stops_at(option, state, age + 1) for state in self.states])
        stop[~self._known(option, age + 1)] = 1.0
        reward = np.array([self.models[a].reward[i] for i, a in enumerate(chosen)]) * known
        arrival = np.array([self.models[a].arrival[i] for i, a in enumerate(chosen)])
        return stop, reward, arrival * known[:, None]


def backup(models: Sequence[Model], values: Floats) -> Floats:
    """The value of each option in each state, float [O, S]; −∞ where it may not start.

    q(s, o) = r_o(s) + Σ_s' p_o(s, s') v(s')
    """
    return np.array([np.where(m.starts, m.reward + m.arrival @ values, -np.inf) for m in models])


def value_iteration(
    models: Sequence[Model], sweeps: int, start: Floats | None = None
) -> list[Floats]:
    """v after 0, 1, … `sweeps` synchronous sweeps, each float [S].

    v_{k+1}(s) = max_o q_k(s, o); 0 in a state where nothing may start.
    """
    history = [np.zeros(len(models[0].reward)) if start is None else start]
    for _ in range(sweeps):
        best = backup(models, history[-1]).max(0)
        history.append(np.where(np.isfinite(best), best, 0.0))
    return history


def interrupted(models: Sequence[Model], values: Floats, option: int) -> Bools:
    """Where going on with `option` is worth less than choosing anew, bool [S].

    q(s, o) < v(s)    ibid., theorem 2
    """
    # The tolerance keeps rounding from interrupting an option that is itself the best choice.
    return np.asarray(backup([models[option]], values)[0] < values - 1e-12)


@dataclass(frozen=True)
class OptionSettings:
    """step_size: α. discount: γ.

    intra: also learn about every option that would have taken the same action, not only about the
    one that was followed.
    """

    step_size: float = 0.1
    discount: float = 0.9
    intra: bool = True


@dataclass
class _Started:
    """An option under way: where it was chosen, `use NAME`, Σ γ^i R so far, and its turns."""

    observation: str
    name: str
    earned: float = 0.0
    turns: int = 0


class OptionLearner:
    """Values of actions and options, learned from rows as collectors write them.

    Takes one stream at a time, in order.

    SMDP:  Q(S,O) ← Q(S,O) + α [R^{(k)} + γ^k max_O' Q(S',O') − Q(S,O)]
    intra: Q(S,o) ← Q(S,o) + α [R + γ U(S',o) − Q(S,o)] for every o with π_o(S) = A,
           U(S',o) = (1−β_o) Q(S',o) + β_o max Q(S',·)
    Sutton, Precup & Singh 1999, eq. 12 and 20

    A program is a policy over (S, age): it has such a Q for each of its ages, and each looks ahead
    to the next. Choices that options make of other options are not learned from.
    """

    def __init__(self, actions: Sequence[str], library: Library, settings: OptionSettings) -> None:
        self.library = library
        self.settings = settings
        self.actions = (*actions, *(USE + o.name for o in library))
        self.values: dict[str, list[float]] = {}
        """Q(S, ·) by observation, in the order of `actions`."""
        self.durations: dict[str, list[int]] = defaultdict(list)
        """The turns that each use of an option took, by `use NAME`."""
        self._index = {action: i for i, action in enumerate(self.actions)}
        self._by_id = {option_id(o.name): USE + o.name for o in library}
        self._within: dict[tuple[str, str, int], float] = {}
        """Q(S, o) of a program after 1, 2, … of its actions, by (observation, name, age)."""
        self._admissible: dict[str, list[int]] = {}
        self._started: _Started | None = None

    def learn(self, step: Step, following: Step) -> None:
        """Takes one row and the next of its stream.

        A choice of an option is remembered until the option is over. A row with an unknown reward
        is left out.
        """
        if step.decision is None or step.reward is None:
            return
        if step.is_choice and step.option_id is not None:
            self._started = _Started(step.obs_text, self._by_id.get(step.option_id, ""))
            return
        action = step.decision.text
        ahead = following.obs_text
        ended = step.ending == "terminated"
        if self.settings.intra:
            self._learn_of_options(step, step.reward, action, ahead, ended)
        # Last: the options' targets read the same values, and must not see this update.
        if action in self._index:
            worth = 0.0 if ended else self.best(ahead)
            self._move(step.obs_text, action, step.reward + self.settings.discount * worth)
        if step.option_id is not None and self._started is not None:
            self._follow(self._started, step, step.reward, ahead, ended)

    def _learn_of_options(
        self, step: Step, reward: float, action: str, ahead: str, ended: bool
    ) -> None:
        """The intra-option update of every option, at every age that would act so."""
        for option in self.library:
            for age in range(stages(option)):
                if option.act(step.obs_text, age) != action:
                    continue
                # A program under way may be where it could not start; a new one may not.
                if not age and not option.starts(step.obs_text):
                    continue
                worth = 0.0 if ended else self._arriving(option, ahead, age + 1)
                target = reward + self.settings.discount * worth
                self._move(step.obs_text, USE + option.name, target, age)

    def _arriving(self, option: Stored, observation: str, age: int) -> float:
        """U(S', o) after `age` actions."""
        stop = stops_at(option, observation, age)
        # An option over states alone has one stage: its value at age 1 is its value at age 0.
        going_on = 0.0 if stop == 1 else self._value(observation, option, age % stages(option))
        return (1 - stop) * going_on + (stop * self.best(observation) if stop else 0.0)

    def _value(self, observation: str, option: Stored, age: int) -> float:
        if age:
            return self._within.get((observation, option.name, age), 0.0)
        return self._row(observation)[self._index[USE + option.name]]

    def _follow(
        self, started: _Started, step: Step, reward: float, ahead: str, ended: bool
    ) -> None:
        """Adds a turn to the option under way; when it is over, makes the SMDP update."""
        discount = self.settings.discount
        started.earned += discount**started.turns * reward
        started.turns += 1
        if not (step.boundary & Boundary.OPTION_END or ended):
            return
        name, k = started.name, started.turns
        self.durations[name].append(k)
        # With intra-option updates this one would count the same turns twice.
        if not self.settings.intra and name in self._index:
            worth = 0.0 if ended else self.best(ahead)
            self._move(started.observation, name, started.earned + discount**k * worth)
        self._started = None

    def best(self, observation: str) -> float:
        """max_a Q(S, a) over the actions, and the options that may start there."""
        row = self._row(observation)
        return max(row[i] for i in self._admissible[observation])

    def _move(self, observation: str, action: str, target: float, age: int = 0) -> None:
        """Q += α (target − Q), of the option's value at `age`."""
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
    """An option's model from real steps of any behaviour, by the intra-option TD rule.

    r_o(S)   += α [R + γ (1−β(S')) r_o(S') − r_o(S)]
    p_o(S,·) += α [γ ((1−β(S')) p_o(S',·) + β(S') 1_{S'}) − p_o(S,·)]
    Sutton, Precup & Singh 1999, eq. 21 and 22

    index: the number of each state, by its observation. Choices of options and rows with an unknown
    reward are left out.
    """
    n = len(index)
    ages = stages(option)
    # A program has a model for each of its ages; the first is that of the whole option.
    r = np.zeros((ages, n))
    p = np.zeros((ages, n, n))
    for step, following in steps:
        if step.decision is None or step.reward is None or step.is_aside:
            continue
        s = index[step.obs_text]
        ended = step.ending == "terminated"
        for age in range(ages):
            if option.act(step.obs_text, age) != step.decision.text:
                continue
            target_r = step.reward
            target_p = np.zeros(n)
            if not ended:
                ahead = index[following.obs_text]
                later = (age + 1) % ages
                stop = stops_at(option, following.obs_text, age + 1)
                target_r = step.reward + discount * (1 - stop) * r[later, ahead]
                target_p = discount * (1 - stop) * p[later, ahead]
                target_p[ahead] += discount * stop
            r[age, s] += step_size * (target_r - r[age, s])
            p[age, s] += step_size * (target_p - p[age, s])
    return Model(r[0], p[0], np.array([option.starts(state) for state in index]))
