"""Tables: a world model that counts, and Dyna on it (Sutton & Barto 2018, chapter 8).

A table learns from the same steps as a language model: the observation's text is the state.
"""

from __future__ import annotations

import heapq
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from experience.episode import Group
from experience.errors import DivergedError
from experience.learning.learner import Watch, to_the_end
from experience.learning.machine.finite import MOST_IN_A_ROW
from experience.models.table import Table
from experience.models.weights import PolicyBundle
from experience.planning.world_models.change import Outcome
from experience.planning.world_models.world_model import Prediction, outcome_of
from experience.reward import RewardModel
from experience.step import Step
from experience.text.strict_json import dumps

Pair = tuple[str, str]


class TabularModel:
    """Counts the outcomes of each (observation, action), and predicts the most frequent one.

    The uncertainty is 1/√n + the share of other outcomes. It is infinite, and the answer None,
    for a pair that was never tried.
    """

    threshold = float("inf")

    def __init__(self) -> None:
        self.version = 0
        self._answers: dict[Pair, dict[Outcome, int]] = {}
        self._tried: list[Pair] = []

    @property
    def pairs(self) -> Sequence[Pair]:
        """The pairs that were tried, in the order of their first time."""
        return self._tried

    def add(self, transitions: Iterable[tuple[Step, Step]]) -> None:
        """Takes (row, next row) pairs. Steps with unknown signals are left out."""
        for step, following in transitions:
            if step.decision is not None and all(s.value is not None for s in step.signals):
                self.count(step.obs_text, step.decision.text, outcome_of(step, following))

    def count(self, observation: str, action: str, answer: Outcome) -> None:
        pair = (observation, action)
        if pair not in self._answers:
            self._answers[pair] = defaultdict(int)
            self._tried.append(pair)
        self._answers[pair][answer] += 1
        self.version += 1

    def forget(self, observation: str, action: str) -> None:
        """Drops the outcomes of a pair: in a world that changes only the newest is true."""
        if (observation, action) in self._answers:
            self._answers[observation, action].clear()

    def predict(self, observations: Sequence[str], actions: Sequence[str]) -> list[Prediction]:
        predictions = []
        for pair in zip(observations, actions, strict=True):
            answers = self._answers.get(pair)
            if not answers:
                predictions.append(Prediction(None, float("inf")))
                continue
            n = sum(answers.values())
            likeliest = max(answers, key=answers.__getitem__)
            predictions.append(Prediction(likeliest, n**-0.5 + 1 - answers[likeliest] / n))
        return predictions

    def sample(self, rng: np.random.Generator) -> tuple[str, str, Outcome]:
        """A pair that was tried, uniformly, and one of its answers by their frequency."""
        pair = self._tried[int(rng.random() * len(self._tried))]
        answers = self._answers[pair]
        if len(answers) == 1:
            return *pair, next(iter(answers))
        counts = np.fromiter(answers.values(), float)
        return *pair, list(answers)[int(rng.choice(len(counts), p=counts / counts.sum()))]

    def answers(self, observation: str, action: str) -> Mapping[Outcome, float]:
        """Each answer seen, with its frequency."""
        found = self._answers.get((observation, action), {})
        n = sum(found.values())
        return {answer: count / n for answer, count in found.items()}


@dataclass(frozen=True)
class DynaSettings:
    """How Dyna learns and plans. The defaults are those of a run's configuration."""

    step_size: float = 0.1
    """α"""
    discount: float = 1.0
    """γ"""
    updates: int = 10
    """n: planning updates after each real step"""
    curiosity: float = 0.0
    """κ > 0 is Dyna-Q+: in planning, an action not tried for τ steps earns κ√τ more, and an
    action never tried is assumed to change nothing"""
    sweep: float = 0.0
    """θ > 0 is prioritised sweeping: planning in the order of |δ| > θ instead of uniformly"""
    newest_only: bool = True
    """keeps only the newest outcome of each pair: the deterministic model of Sutton & Barto"""
    seed: int = 0


class Dyna:
    """Q-learning on real steps, the same update on imagined ones.

    Q(S,A) ← Q(S,A) + α [R + γ max_a Q(S',a) − Q(S,A)]
    Sutton & Barto 2018, p. 164 (Dyna-Q), section 8.3 (Dyna-Q+), 8.4 (prioritised sweeping)
    """

    def __init__(
        self, actions: Sequence[str], rewards: RewardModel, settings: DynaSettings
    ) -> None:
        self.actions, self.settings, self.model = tuple(actions), settings, TabularModel()
        self.values: dict[str, list[float]] = {}
        self.planned = 0
        """Planning updates done."""
        self.skipped = self._in_a_row = 0
        self._index = {action: i for i, action in enumerate(self.actions)}
        self._rewards, self._known_rewards = rewards, dict[Outcome, float]()
        self._env_id = ""
        self._time, self._last_tried = 0, dict[Pair, int]()
        self._sources: dict[str, set[Pair]] = defaultdict(set)
        self._queue: list[tuple[float, Pair]] = []
        self._queued: dict[Pair, float] = {}
        self._rng = np.random.default_rng(settings.seed)

    def learn(self, step: Step, following: Step) -> None:
        """One real step: direct learning, model learning, planning.

        A step with an unknown reward, or with an action that is not listed, is left out.
        """
        action = step.decision.text if step.decision else ""
        if action not in self._index or step.reward is None:
            return
        self._env_id, self._time = step.env_id, self._time + 1
        answer, pair = outcome_of(step, following), (step.obs_text, action)
        if not self.settings.sweep:  # sweeping makes this update too, when its turn has come
            self._update(*pair, answer, step.reward)
        if pair not in self._last_tried and self.settings.curiosity:
            for other in self.actions:  # never tried: thought to lead nowhere, for nothing
                if (step.obs_text, other) not in self._last_tried:
                    self.model.count(step.obs_text, other, Outcome(step.obs_text, {}, False))
                    self._last_tried[step.obs_text, other] = 0
        if self.settings.newest_only or not self._last_tried.get(pair):
            self.model.forget(*pair)
        self._last_tried[pair] = self._time
        self.model.count(*pair, answer)
        self._plan(pair, answer)

    def _plan(self, pair: Pair, answer: Outcome) -> None:
        if self.settings.sweep:
            self._sources[answer.observation].add(pair)
            self._queue_if_surprising(pair)
            for _ in range(self.settings.updates):
                if not self._sweep():
                    break
            return
        for _ in range(self.settings.updates):
            observation, action, predicted = self.model.sample(self._rng)
            self._update(
                observation,
                action,
                predicted,
                self._imagined_reward((observation, action), predicted),
            )
            self.planned += 1

    def _sweep(self) -> bool:
        """Updates the pair of the highest priority, and queues the pairs that lead to it.

        False if nothing is queued.
        """
        while self._queue:
            priority, pair = heapq.heappop(self._queue)
            if self._queued.get(pair) != -priority:
                continue  # a stale entry: the pair was queued again with a higher priority
            del self._queued[pair]
            for answer in self.model.answers(*pair):
                self._update(*pair, answer, self._imagined_reward(pair, answer))
            self.planned += 1
            for source in self._sources[pair[0]]:
                self._queue_if_surprising(source)
            return True
        return False

    def _queue_if_surprising(self, pair: Pair) -> None:
        surprise = max(
            (
                abs(self._error(*pair, answer, self._imagined_reward(pair, answer)))
                for answer in self.model.answers(*pair)
            ),
            default=0.0,
        )
        if surprise > max(self.settings.sweep, self._queued.get(pair, 0.0)):
            self._queued[pair] = surprise
            heapq.heappush(self._queue, (-surprise, pair))

    def _imagined_reward(self, pair: Pair, answer: Outcome) -> float:
        """The reward of the predicted signals by the reward model, plus the bonus of curiosity."""
        reward = self._known_rewards.get(answer)
        if reward is None:
            reward = self._rewards.of_values(self._env_id, answer.signals) or 0.0
            self._known_rewards[answer] = reward
        if self.settings.curiosity:
            reward += self.settings.curiosity * (self._time - self._last_tried[pair]) ** 0.5
        return reward

    def _update(self, observation: str, action: str, answer: Outcome, reward: float) -> None:
        error = self._error(observation, action, answer, reward)
        if self._checked(error, observation, action):
            self._row(observation)[self._index[action]] += self.settings.step_size * error

    def _checked(self, error: float, observation: str, action: str) -> bool:
        """Whether the error is finite; else the update is skipped.

        Raises DivergedError at the third error in a row that is not finite.
        """
        if math.isfinite(error):
            self._in_a_row = 0
            return True
        self.skipped, self._in_a_row = self.skipped + 1, self._in_a_row + 1
        if self._in_a_row >= MOST_IN_A_ROW:
            raise DivergedError(
                f"{self._in_a_row} updates of the table in a row are not finite (error {error:g})",
                {"observation": np.array(observation), "action": np.array(action)},
            )
        return False

    def _error(self, observation: str, action: str, answer: Outcome, reward: float) -> float:
        ahead = 0.0 if answer.ended else self.settings.discount * max(self._row(answer.observation))
        return reward + ahead - self._row(observation)[self._index[action]]

    def _row(self, observation: str) -> list[float]:
        row = self.values.get(observation)
        if row is None:
            row = self.values[observation] = [0.0] * len(self.actions)
        return row


class TabularLearner:
    """Dyna as the learner of a run: `./xp run … policy.engine=table`."""

    value = None

    def __init__(
        self, actions: Sequence[str], rewards: RewardModel, settings: DynaSettings
    ) -> None:
        self.dyna, self.version = Dyna(actions, rewards, settings), 0
        self.options = b""
        self.planner: Mapping[str, bytes] = {}
        self._imitated = 0

    @property
    def skipped(self) -> int:
        """Updates left out because they were not finite."""
        return self.dyna.skipped

    def policy(self) -> PolicyBundle:
        return PolicyBundle(Table.weights(self.dyna.actions, self.dyna.values, self.version))

    def publish(self) -> PolicyBundle:
        self.version += 1
        return self.policy()

    def show(self, turns: object) -> None:
        """Does nothing: a table learns from steps, not from tokens."""

    def imitate(
        self, demonstrations: Iterable[Step], passes: float, watch: Watch = to_the_end
    ) -> dict[str, float]:
        """Learns once from the demonstrations, as from any experience: Q-learning is off-policy.

        Begins where `restore` left off. `watch` is called after each row; it may save, and ends
        the imitation by returning False.
        """
        rows = list(demonstrations)
        while self._imitated < len(rows):
            step, following = rows[self._imitated], rows[self._imitated + 1 : self._imitated + 2]
            if step.ending == "terminated":
                self.dyna.learn(step, step)
            elif following and (step.stream_id, step.t + 1) == (
                following[0].stream_id,
                following[0].t,
            ):
                self.dyna.learn(step, following[0])
            self._imitated += 1
            if not watch(self._imitated, len(rows)):
                break
        return {"states": float(len(self.dyna.values))}

    def improve(self, groups: Sequence[Group], rate: float = 1.0) -> dict[str, float]:
        for group in groups:
            for episode in group.episodes:
                for step, following in episode.transitions:
                    self.dyna.learn(step, following)
        return (
            {"states": float(len(self.dyna.values)), "planned": float(self.dyna.planned)}
            if groups
            else {}
        )

    def imitate_plans(self, plans: Sequence[object], rate: float = 1.0) -> dict[str, float]:
        """Does nothing: Dyna plans after each real step."""
        return {}

    def save(self) -> dict[str, bytes]:
        return {
            "policy.safetensors": self.policy().weights.data,
            "learner.json": dumps({"version": self.version, "imitated": self._imitated}).encode(),
        }

    def restore(
        self,
        saved: Mapping[str, bytes],
        demonstrations: Iterable[Step],
        learned_from: Iterable[Group],
    ) -> None:
        """Learns the table again: it is a function of the steps and their order."""
        about = json.loads(saved["learner.json"])
        shown = about.get("imitated")
        if shown != 0:
            self.imitate(demonstrations, 1.0, lambda done, _: done != shown)
        self.improve(list(learned_from))
        self.version = about["version"]
