"""Planning by value iteration over the states that a model reaches from real situations.

These are expected updates over all reached states (Sutton & Barto 2018, sections 4.4 and 8.5).
Where actions can be listed and states repeat, one prediction serves every path through a state;
rollouts ask again each time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic

import numpy as np

from experience.planning.lookahead import Act, Place, Try
from experience.planning.world_models.change import Outcome
from experience.planning.world_models.world_model import Prediction
from experience.returns import Floats
from experience.reward import RewardModel

LARGEST_DISCOUNT = 0.99
"""At 1, every path that arrives at last is equally good, even one with circles."""


@dataclass(frozen=True)
class Choice:
    """The best actions in a state.

    value: of the state, in units of reward. best: the actions that reach it, each with its
    prediction. root: the number of the situation from which the state was first reached.
    """

    value: float
    best: dict[str, Prediction]
    root: int


@dataclass
class _Graph(Generic[Place]):
    """The states laid out so far, at most `most`, and the predicted actions between them."""

    most: int
    number: dict[str, int] = field(default_factory=dict)
    """The number of each state, by its observation."""
    roots: list[int] = field(default_factory=list)
    edges: list[tuple[int, str, Prediction]] = field(default_factory=list)
    """(state, action, prediction)"""
    wave: list[tuple[Place, str]] = field(default_factory=list)
    """The states whose actions were not tried yet."""

    def meet(self, place: Place, seen: str, root: int) -> None:
        """Adds a state unless it is known or the graph is full."""
        if seen not in self.number and len(self.number) < self.most:
            self.number[seen] = len(self.roots)
            self.roots.append(root)
            self.wave.append((place, seen))


@dataclass(frozen=True)
class Reach(Generic[Place]):
    """Lays out the states that actions lead to, and solves them by value iteration.

    `actions` lists the possible actions of each observation. Each is tried there, and then wherever
    it led to, the nearest states first, until `states` states for each situation are laid out. What
    lies beyond is worth 0. `stops` tells whether the plan ends at an observation, even if the
    world goes on.

    An action whose prediction is uncertain (above `threshold`) leads nowhere and is never chosen.
    """

    actions: Callable[[Sequence[str]], Sequence[Sequence[str]]]
    tries: Try[Place]
    reward: Callable[[Outcome], float]
    states: int = 64
    discount: float = 1.0
    threshold: float = float("inf")
    stops: Callable[[str], bool] = lambda _: False

    def __call__(self, places: Sequence[Place], observations: Sequence[str]) -> dict[str, Choice]:
        """The choice in each laid-out state, by its observation.

        States whose actions all have the same value are left out. Two situations with the same
        observation are one state.
        """
        graph = _Graph[Place](self.states * len(observations))
        for root, (place, seen) in enumerate(zip(places, observations, strict=True)):
            graph.meet(place, seen, root)
        while graph.wave:
            self._expand(graph)
        return self._choices(graph) if graph.edges else {}

    def _expand(self, graph: _Graph[Place]) -> None:
        """Tries all actions of the states in the wave, in one call; new states form the next."""
        here = graph.wave
        graph.wave = []
        listed = self.actions([seen for _, seen in here])
        asked = [
            (place, seen, action)
            for (place, seen), actions in zip(here, listed, strict=True)
            for action in dict.fromkeys(actions)
        ]
        found = self.tries([place for place, _, _ in asked], [action for _, _, action in asked])
        for (_, seen, action), (place, prediction) in zip(asked, found, strict=True):
            if prediction.answer is None or prediction.uncertainty > self.threshold:
                continue
            state = graph.number[seen]
            graph.edges.append((state, action, prediction))
            if not self._ends(prediction.answer):
                graph.meet(place, prediction.answer.observation, graph.roots[state])

    def _ends(self, answer: Outcome) -> bool:
        return answer.ended or self.stops(answer.observation)

    def _choices(self, graph: _Graph[Place]) -> dict[str, Choice]:
        """The actions of the greatest value, where the values of a state's actions differ."""
        source = np.array([state for state, _, _ in graph.edges])
        values, q = self._solved(graph, source)
        worst = np.full(len(values), np.inf)
        np.minimum.at(worst, source, q)
        seen = list(graph.number)
        choices: dict[str, Choice] = {}
        for (state, action, prediction), of_action in zip(graph.edges, q.tolist(), strict=True):
            value = float(values[state])
            if of_action > value - 1e-9 and value - worst[state] > 1e-6:
                root = graph.roots[state]
                choice = choices.setdefault(seen[state], Choice(value, {}, root))
                choice.best[action] = prediction
        return choices

    def _solved(self, graph: _Graph[Place], source: np.ndarray) -> tuple[Floats, Floats]:
        """v of each state, float [S + 1], and q of each edge, float [E].

        q = r + γ v(target), v = max q    Sutton & Barto 2018, eq. 4.10, for one outcome an action

        The state after the last stands for ends and for what was not laid out; its value is 0.
        """
        answers = [p.answer for _, _, p in graph.edges if p.answer is not None]
        reward = np.array([self.reward(answer) for answer in answers])
        beyond = len(graph.number)
        target = np.array(
            [beyond if self._ends(a) else graph.number.get(a.observation, beyond) for a in answers]
        )
        # From 0, the value of not going on at all; it stays that of what was not laid out.
        values = np.zeros(beyond + 1)
        discount = min(self.discount, LARGEST_DISCOUNT)
        for _ in range(beyond + 1):  # no path without a circle is longer
            q = reward + discount * values[target]
            new = np.full(beyond + 1, -np.inf)
            np.maximum.at(new, source, q)
            # States without a certain action are worth 0, as is what lies beyond.
            new[np.isinf(new)] = 0.0
            settled = np.abs(new - values).max() < 1e-9
            values = new
            if settled:
                break
        return values, q


def worth(rewards: RewardModel, env_id: str, answer: Outcome) -> float:
    """The reward of a predicted outcome; 0 if its signals leave the reward unknown."""
    return rewards.of_values(env_id, answer.signals) or 0.0


def could_do(
    listed: Sequence[str], act: Act, n: int, observations: Sequence[str]
) -> list[Sequence[str]]:
    """The possible actions of each observation.

    They are those that the world lists; if it lists none, `n` samples of the policy.
    """
    if listed:
        return [listed] * len(observations)
    said = [d.text for d in act([o for o in observations for _ in range(n)])]
    return [said[i : i + n] for i in range(0, len(said), n)]
