"""Planning at decision time: several actions are tried in thought, and the best one is taken.

Where an action is tried is one function (`Try`), so that a learned model, a cheap simulator and
forks of the world itself serve alike. The world is acted in once a turn, whatever was tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from experience.planning.world_models.change import Outcome
from experience.planning.world_models.world_model import Prediction, WorldModel
from experience.policy import Decision

Place = TypeVar("Place")
"""The state that a thought has reached: an observation for a model, a snapshot for a fork."""
Try = Callable[[Sequence[Place], Sequence[str]], list[tuple[Place, Prediction]]]
"""Takes each action at its place; returns the place it leads to, and the predicted outcome."""
Act = Callable[[Sequence[str]], list[Decision]]
"""Observations -> the policy's decisions."""
ValueOf = Callable[[Sequence[str]], "np.ndarray"]
"""Observations -> their values, float [N], in units of reward."""
Reward = Callable[[int, Outcome], float]
"""(number of the situation, outcome) -> its reward."""


@dataclass(frozen=True)
class Search(Generic[Place]):
    """Rollouts of `candidates` m actions that are sampled from the policy.

    Each candidate is followed `rollouts` n times for `horizon` h turns by the policy. Its score is
    the mean of Σ_k γ^k R_{k+1} + γ^h v (WebDreamer, arXiv 2411.06559, with a value function instead
    of a judge; with several rollouts to the end: Tesauro & Galperin 1996).

    A rollout is cut where the model is uncertain (above `threshold`); what follows is worth the
    value of its last observation. `name` is recorded in the decoder of the chosen decision.
    """

    act: Act
    tries: Try[Place]
    value: ValueOf
    reward: Reward
    name: str
    candidates: int = 4
    horizon: int = 3
    rollouts: int = 1
    discount: float = 1.0
    threshold: float = float("inf")

    def __call__(
        self, places: Sequence[Place], observations: Sequence[str]
    ) -> list[tuple[Decision, float | None]]:
        """The best decision in each situation, and its score.

        The score is None if all samples of the policy were the same: then nothing is tried.

        No decision is marked as a sample of the policy, for neither the best of m samples nor an
        action on which all m agree is a plain one. It can be imitated, but no ratio of policies is
        taken.
        """
        distinct = self._distinct(observations)
        thoughts = [
            _Thought(i, decision, places[i], observations[i])
            for i, found in enumerate(distinct)
            if len(found) > 1
            for decision in found
            for _ in range(self.rollouts)
        ]
        self._think(thoughts)
        return [
            self._best(found, [t for t in thoughts if t.situation == i])
            for i, found in enumerate(distinct)
        ]

    def _distinct(self, observations: Sequence[str]) -> list[list[Decision]]:
        """The different decisions among m samples of each situation.

        Of equal texts the last sample is kept, at the place of the first.
        """
        m = self.candidates
        sampled = self.act([o for o in observations for _ in range(m)])
        found = []
        for i in range(len(observations)):
            by_text = {d.text: d for d in sampled[i * m : (i + 1) * m]}
            found.append(list(by_text.values()))
        return found

    def _best(
        self, found: Sequence[Decision], thoughts: Sequence[_Thought[Place]]
    ) -> tuple[Decision, float | None]:
        """The decision of the greatest mean score over its rollouts; the first of equal ones."""
        if len(found) == 1:
            return replace(found[0], sampled=False), None

        def mean_score(decision: Decision) -> float:
            # By identity: equal decisions of two situations are different candidates.
            return float(np.mean([t.score for t in thoughts if t.first is decision]))

        scored = [(mean_score(decision), decision) for decision in found]
        score, best = max(scored, key=lambda pair: pair[0])
        settings = f"{self.name} m={self.candidates} h={self.horizon} n={self.rollouts}"
        return replace(best, sampled=False, decoder=f"{best.decoder} {settings}"), score

    def _think(self, thoughts: list[_Thought[Place]]) -> None:
        """Follows each rollout for up to h turns, and adds the value of where it stops."""
        for turn in range(self.horizon):
            going = [t for t in thoughts if not t.over]
            if not going:
                break
            # The first action is the candidate itself; the policy chooses the later ones.
            decided = [t.first for t in going] if turn == 0 else self.act([t.seen for t in going])
            tried = self.tries([t.place for t in going], [d.text for d in decided])
            for thought, (place, prediction) in zip(going, tried, strict=True):
                if prediction.answer is None or prediction.uncertainty > self.threshold:
                    thought.over = True
                    continue
                reward = self.reward(thought.situation, prediction.answer)
                thought.score += self.discount**turn * reward
                thought.place = place
                thought.seen = prediction.answer.observation
                thought.depth = turn + 1
                thought.over = thought.ended = prediction.answer.ended
        # The world's end is worth 0; a cut and the horizon are not ends, and are bootstrapped.
        open_ended = [t for t in thoughts if not t.ended]
        values = self.value([t.seen for t in open_ended])
        for thought, value in zip(open_ended, values, strict=True):
            thought.score += self.discount**thought.depth * float(value)


@dataclass
class _Thought(Generic[Place]):
    """One rollout: its first action, where it has come to after `depth` turns, and its return.

    It is `over` where it cannot go on: at the world's end (`ended`), or where the model is
    uncertain.
    """

    situation: int
    first: Decision
    place: Place
    seen: str
    score: float = 0.0
    depth: int = 0
    over: bool = False
    ended: bool = False


def in_model(model: WorldModel, lived: Mapping[tuple[str, str], Outcome] | None = None) -> Try[str]:
    """Tries actions in a world model; a place is the observation there.

    `lived` holds outcomes of this episode by (observation, action). They are taken instead of the
    model's: a policy that acts on a wrong prediction would else repeat the action for ever.
    """
    known = lived or {}

    def tries(places: Sequence[str], actions: Sequence[str]) -> list[tuple[str, Prediction]]:
        pairs = list(zip(places, actions, strict=True))
        asked = [pair for pair in pairs if pair not in known]
        answers = iter(model.predict([o for o, _ in asked], [a for _, a in asked]))
        found = [Prediction(known[pair], 0.0) if pair in known else next(answers) for pair in pairs]
        return [
            (p.answer.observation if p.answer else place, p)
            for place, p in zip(places, found, strict=True)
        ]

    return tries
