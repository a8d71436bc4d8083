"""Planning at decision time: several actions are tried in thought, and the one that promises most
is done.

Where the thought happens is one function, so that a learned model, a cheap simulator and true forks
of the world serve alike. The world itself is acted in once a turn, whatever was thought.
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
"""Where a thought has come to: an observation for a model, a snapshot for a fork."""
Try = Callable[[Sequence[Place], Sequence[str]], list[tuple[Place, Prediction]]]
"""Takes each action at its place; where it leads, and what it was answered."""
Act = Callable[[Sequence[str]], list[Decision]]
ValueOf = Callable[[Sequence[str]], "np.ndarray"]
Reward = Callable[[int, Outcome], float]
"""(which situation, what was answered) -> its reward."""


@dataclass(frozen=True)
class Search(Generic[Place]):
    """`candidates` m actions are sampled from the policy, each is followed `rollouts` n times for
    `horizon` h turns by the policy, and scored by the mean of Σ γ^k r + γ^h v (WebDreamer, arXiv
    2411.06559, with a value function instead of a judge; with several rollouts to the end, Tesauro
    & Galperin 1996).

    A thought that the model is not sure of (above `threshold`) is cut there and worth the value of
    where it stands. `name` is recorded in the decoder of what was chosen.
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
        """For each situation what is done and the score that spoke for it; None where the policy
        left no choice: all that it sampled was the same.

        Neither what was chosen nor what all samples agreed on is a plain sample of the policy, and
        neither is marked as one: it can be imitated, and no policy gradient is taken on it.
        """
        sampled = self.act([o for o in observations for _ in range(self.candidates)])
        distinct = [
            list(
                {
                    d.text: d for d in sampled[i * self.candidates : (i + 1) * self.candidates]
                }.values()
            )
            for i in range(len(observations))
        ]
        thoughts = [
            _Thought(i, d, places[i], observations[i])
            for i, found in enumerate(distinct)
            if len(found) > 1
            for d in found
            for _ in range(self.rollouts)
        ]
        self._think(thoughts)
        chosen: list[tuple[Decision, float | None]] = []
        for i, found in enumerate(distinct):
            if len(found) == 1:
                chosen.append((replace(found[0], sampled=False), None))
                continue
            scores = [
                [t.score for t in thoughts if t.first is d and t.situation == i] for d in found
            ]
            score, best = max(
                ((float(np.mean(s)), d) for s, d in zip(scores, found, strict=True)),
                key=lambda x: x[0],
            )
            chosen.append(
                (
                    replace(
                        best,
                        sampled=False,
                        decoder=f"{best.decoder} {self.name} m={self.candidates} "
                        f"h={self.horizon} n={self.rollouts}",
                    ),
                    score,
                )
            )
        return chosen

    def _think(self, thoughts: list[_Thought[Place]]) -> None:
        for turn in range(self.horizon):
            going = [t for t in thoughts if not t.over]
            if not going:
                break
            decided = [t.first for t in going] if turn == 0 else self.act([t.seen for t in going])
            actions = [d.text for d in decided]
            for thought, (place, prediction) in zip(
                going, self.tries([t.place for t in going], actions), strict=True
            ):
                if prediction.answer is None or prediction.uncertainty > self.threshold:
                    thought.over = True
                    continue
                thought.score += self.discount**turn * self.reward(
                    thought.situation, prediction.answer
                )
                thought.place, thought.seen, thought.depth = (
                    place,
                    prediction.answer.observation,
                    turn + 1,
                )
                thought.over = thought.ended = prediction.answer.ended
        open_ended = [t for t in thoughts if not t.ended]
        for thought, value in zip(
            open_ended, self.value([t.seen for t in open_ended]), strict=True
        ):
            thought.score += self.discount**thought.depth * float(value)


@dataclass
class _Thought(Generic[Place]):
    situation: int
    first: Decision
    place: Place
    seen: str
    score: float = 0.0
    depth: int = 0
    over: bool = False
    ended: bool = False


def in_model(model: WorldModel, lived: Mapping[tuple[str, str], Outcome] | None = None) -> Try[str]:
    """Thought in a world model: a place is what is seen there. What was `lived`, by observation and
    action, is not asked of the model: who acts on its mistake would else make it again in the same
    place for ever."""
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
