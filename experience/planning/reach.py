"""Planning by sweeps: what can be reached in thought is laid out as a graph of states and solved by
value iteration.

These are expected updates over all that a model reaches from real situations (Sutton & Barto 2018,
4.4 and 8.5). Where actions can be listed and states come again, one prediction serves every path
through it; rollouts ask anew each time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

import numpy as np

from experience.planning.lookahead import Act, Place, Try
from experience.planning.world_models.change import Outcome
from experience.planning.world_models.world_model import Prediction
from experience.reward import RewardModel

LARGEST_DISCOUNT = 0.99
"""At 1 every way that gets there at last is as good as any other, one in circles too."""


@dataclass(frozen=True)
class Choice:
    """What is best in a state: its value there, and the actions that reach it, each with what it is
    thought to do. root: the number of the situation from which the state was first reached."""

    value: float
    best: dict[str, Prediction]
    root: int


@dataclass(frozen=True)
class Reach(Generic[Place]):
    """`actions` lists what could be done in each situation; each is tried in thought there, and
    then from wherever it led, the nearest states first, until `states` for each situation are laid
    out. What lies beyond is worth nothing. `stops` says of what is seen whether the plan ends
    there, though the world may go on.

    A thought that the model is not sure of (above `threshold`) leads nowhere and is never chosen.
    """

    actions: Callable[[Sequence[str]], Sequence[Sequence[str]]]
    tries: Try[Place]
    reward: Callable[[Outcome], float]
    states: int = 64
    discount: float = 1.0
    threshold: float = float("inf")
    stops: Callable[[str], bool] = lambda _: False

    def __call__(self, places: Sequence[Place], observations: Sequence[str]) -> dict[str, Choice]:
        """By observation, what is best there; only where the actions whose outcome is known differ
        in value. Two situations that look the same are taken for one."""
        number: dict[str, int] = {}
        roots: list[int] = []
        wave: list[tuple[Place, str]] = []

        def meet(place: Place, seen: str, root: int) -> None:
            if seen not in number and len(number) < self.states * len(observations):
                number[seen] = len(roots)
                roots.append(root)
                wave.append((place, seen))

        for root, (place, seen) in enumerate(zip(places, observations, strict=True)):
            meet(place, seen, root)
        edges: list[tuple[int, str, Prediction]] = []
        while wave:
            here, wave = wave, []
            asked = [
                (place, seen, action)
                for (place, seen), listed in zip(
                    here, self.actions([seen for _, seen in here]), strict=True
                )
                for action in dict.fromkeys(listed)
            ]
            found = self.tries([place for place, _, _ in asked], [action for _, _, action in asked])
            for (_, seen, action), (place, prediction) in zip(asked, found, strict=True):
                if prediction.answer is None or prediction.uncertainty > self.threshold:
                    continue
                edges.append((number[seen], action, prediction))
                if not self._ends(prediction.answer):
                    meet(place, prediction.answer.observation, roots[number[seen]])
        return self._choices(list(number), roots, edges, number)

    def _ends(self, answer: Outcome) -> bool:
        return answer.ended or self.stops(answer.observation)

    def _choices(
        self,
        seen: list[str],
        roots: list[int],
        edges: list[tuple[int, str, Prediction]],
        number: dict[str, int],
    ) -> dict[str, Choice]:
        if not edges:
            return {}
        answers = [p.answer for _, _, p in edges if p.answer is not None]
        source = np.array([s for s, _, _ in edges])
        reward = np.array([self.reward(answer) for answer in answers])
        beyond = len(seen)  # where an end leads, and what was not laid out: worth nothing
        target = np.array(
            [beyond if self._ends(a) else number.get(a.observation, beyond) for a in answers]
        )
        values, discount = np.zeros(beyond + 1), min(self.discount, LARGEST_DISCOUNT)
        for _ in range(beyond + 1):  # no way without a circle is longer
            q = reward + discount * values[target]
            new = np.full(beyond + 1, -np.inf)
            np.maximum.at(new, source, q)
            new[np.isinf(new)] = 0.0
            settled = np.abs(new - values).max() < 1e-9
            values = new
            if settled:
                break
        worst = np.full(beyond + 1, np.inf)
        np.minimum.at(worst, source, q)
        choices: dict[str, Choice] = {}
        for (state, action, prediction), worth in zip(edges, q.tolist(), strict=True):
            if worth > values[state] - 1e-9 and values[state] - worst[state] > 1e-6:
                known = choices.setdefault(
                    seen[state], Choice(float(values[state]), {}, roots[state])
                )
                known.best[action] = prediction
        return choices


def worth(rewards: RewardModel, env_id: str, answer: Outcome) -> float:
    """The reward of a thought; one whose signals leave it unknown adds nothing."""
    return rewards.of_values(env_id, answer.signals) or 0.0


def could_do(
    listed: Sequence[str], act: Act, n: int, observations: Sequence[str]
) -> list[Sequence[str]]:
    """What could be done in each situation: all that the world lists, or else what the policy says
    when it is asked `n` times."""
    if listed:
        return [listed] * len(observations)
    said = [d.text for d in act([o for o in observations for _ in range(n)])]
    return [said[i : i + n] for i in range(0, len(said), n)]
