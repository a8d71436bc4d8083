"""A value function of observations: the discounted return that the present policy can expect."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from experience.episode import Episode
from experience.learning.advantages import as_sample
from experience.learning.estimators.off_policy import vtrace
from experience.learning.estimators.temporal import (
    average_reward,
    differential_advantages,
    differential_errors,
)
from experience.learning.machine.finite import FiniteSteps
from experience.learning.sequences.turn import Turn
from experience.models.decoding import fit
from experience.models.tokenizer import ByteTokenizer
from experience.models.transformer import Transformer, TransformerShape
from experience.models.weights import Weights, pack_optimizer, unpack_optimizer
from experience.returns import Floats, lambda_returns
from experience.text.strict_json import dumps

Targets = Callable[[Sequence[Episode]], tuple[list[Floats], list[Floats]]]
"""Episodes -> (values, targets) of their turns, float [T] each."""
LogRatios = Callable[[Sequence[Turn]], list[float]]
"""Turns -> log π/μ of each, under the present policy."""
_AVERAGE_STEP = 0.1
"""Share of an episode's mean differential error that r̄ moves by."""
_MOST_REMEMBERED = 256
"""Episodes. Older ones were lived by a policy that has changed since."""


class ValueFunction:
    """v(o), by a small transformer of its own that reads the observation.

    It shares no weights with the policy, so that no policy gradient moves it. Targets are
    λ-returns of real turns (Sutton & Barto 2018, eq. 12.2); the loss is Huber's.
    """

    def __init__(
        self,
        layers: int,
        width: int,
        context: int,
        seed: int,
        trace: float = 0.95,
        learning_rate: float = 1e-3,
    ) -> None:
        self.trace = trace
        # The fork leaves torch's own generator as it was: the policy's draws do not depend on it.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._model = _Regressor(
                TransformerShape(ByteTokenizer.size, layers, width, 4, context)
            )
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01
        )
        self._steps = FiniteSteps("value function")
        self._rng = np.random.default_rng(seed)
        self._tokenizer = ByteTokenizer()
        self._recent: list[Episode] = []
        self.explained = 0.0
        """Explained variance of the λ-returns of new episodes before they are learned from, as a
        running mean."""

    @property
    def skipped(self) -> int:
        """The number of updates that were left out because they were not finite."""
        return self._steps.skipped

    def __call__(self, observations: Sequence[str]) -> Floats:
        """The value of each observation, float [N], in units of reward."""
        # Texts of similar length share a batch: padding costs as much as tokens.
        order = sorted(range(len(observations)), key=lambda i: len(observations[i]))
        values = np.zeros(len(observations))
        self._model.eval()
        with torch.inference_mode():
            for start in range(0, len(order), 256):
                part = order[start : start + 256]
                values[part] = (
                    self._model(*self._tokens([observations[i] for i in part])).double().numpy()
                )
        return values

    def values(self, episodes: Sequence[Episode]) -> list[Floats]:
        """For each episode, the values of its observations and of the last one, float [T + 1]."""
        seen = [_observations(episode) for episode in episodes]
        flat = self([text for texts in seen for text in texts])
        ends = np.cumsum([len(texts) for texts in seen])
        return np.split(flat, ends[:-1]) if seen else []

    def targets(self, episodes: Sequence[Episode]) -> tuple[list[Floats], list[Floats]]:
        """For each episode, the values of its observations and their λ-returns, float [T] each.

        A truncated or unfinished episode bootstraps from its last observation; a terminated one
        ends at 0.
        """
        values: list[Floats] = []
        returns: list[Floats] = []
        for episode, v in zip(episodes, self.values(episodes), strict=True):
            rewards = np.array([s.reward for s in episode.steps], float)
            discounts = np.array([s.discount for s in episode.steps], float)
            values.append(v[:-1])
            returns.append(lambda_returns(rewards, discounts, v[1:], self.trace))
        return values, returns

    def fit(
        self,
        episodes: Sequence[Episode],
        passes: int = 2,
        batch: int = 64,
        targets: Targets | None = None,
    ) -> dict[str, float]:
        """Fits the values to `episodes` and twice as many remembered ones; returns metrics.

        targets: what the values are fitted to; None: λ-returns.
        """
        if not episodes:
            return {}
        chosen = [*episodes, *_drawn(self._recent, 2 * len(episodes), self._rng)]
        self.remember(episodes)
        values, returns = (targets or self.targets)(chosen)
        self._judge(
            np.concatenate(values[: len(episodes)]), np.concatenate(returns[: len(episodes)])
        )
        target = np.concatenate(returns)
        seen = [s.obs_text for e in chosen for s in e.steps]
        self._model.train()
        for _ in range(passes):
            order = self._rng.permutation(len(seen))
            for part in np.array_split(order, -(-len(seen) // batch)):
                loss = self._update([seen[i] for i in part], target[part])
        return {"value_loss": loss, "value_explained": self.explained}

    def _update(self, observations: Sequence[str], returns: Floats) -> float:
        """Takes one optimiser step towards `returns`, float [N]; returns the loss before it."""
        tokens, last = self._tokens(observations)
        loss = functional.huber_loss(
            self._model(tokens, last), torch.from_numpy(returns.astype(np.float32))
        )
        self._optimizer.zero_grad()
        loss.backward()
        value = float(loss.detach())
        self._steps.take(
            self._optimizer, value, lambda: {"tokens": tokens.numpy(), "returns": returns}, 1.0
        )
        return value

    def _judge(self, values: Floats, returns: Floats) -> None:
        """Takes the explained variance of new episodes into its running mean."""
        now = explained_variance(values, returns)
        if now is not None:
            # One bad batch may lie far below −1; it must not outweigh many good ones.
            self.explained += 0.2 * (max(now, -1.0) - self.explained)

    most_remembered = _MOST_REMEMBERED

    def remember(self, episodes: Sequence[Episode]) -> None:
        """Keeps the newest `_MOST_REMEMBERED` episodes for later fits."""
        self._recent = [*self._recent, *episodes][-_MOST_REMEMBERED:]

    def save(self) -> dict[str, bytes]:
        about = {"random": self._rng.bit_generator.state, "explained": self.explained}
        return {
            "value.safetensors": Weights.of(self._model, 0).data,
            "value_optimizer.safetensors": pack_optimizer(self._optimizer),
            "value.json": dumps(about).encode(),
        }

    def export_weights(self) -> dict[str, bytes]:
        """The weights with which another process computes the same values."""
        return {"value.safetensors": Weights.of(self._model, 0).data}

    def load_weights(self, exported: Mapping[str, bytes]) -> None:
        Weights.read(0, exported["value.safetensors"]).put_into(self._model)

    def restore(self, saved: Mapping[str, bytes], fitted_to: Sequence[Episode]) -> None:
        """Continues where `save` was called, given all episodes of earlier fits, in their order."""
        self.remember(fitted_to)
        about = json.loads(saved["value.json"])
        self._rng.bit_generator.state = about["random"]
        self.explained = about["explained"]
        Weights.read(0, saved["value.safetensors"]).put_into(self._model)
        unpack_optimizer(saved["value_optimizer.safetensors"], self._optimizer)

    def _tokens(self, observations: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens of the observations, int64 [B, T], padded on the right, and ends, int64 [B]."""
        return _padded(
            [fit(self._tokenizer.prompt(o), self._model.shape.context) for o in observations]
        )


class Valued:
    """Targets and advantages of turns by a value function, which is fitted to the targets.

    kind: turn (λ-returns), vtrace (corrected for the age of what is learned from), or differential
    (reward beyond the world's average, which `running` keeps; nothing is discounted).
    """

    def __init__(
        self,
        value: ValueFunction,
        kind: str,
        trace: float,
        running: MutableMapping[str, float],
        log_ratios: LogRatios | None = None,
    ) -> None:
        self._value, self._kind, self._trace = value, kind, trace
        value.trace = trace
        self._running, self._log_ratios = running, log_ratios

    def advantages(self, episodes: Sequence[Episode]) -> list[Floats]:
        """The raw advantages of the turns of each episode, float [T] each."""
        if self._kind == "turn":
            values, targets = self._targets(episodes)
            return [target - v for v, target in zip(values, targets, strict=True)]
        seen = self._value.values(episodes)
        if self._kind == "differential":
            return [self._differential(e, v)[1] for e, v in zip(episodes, seen, strict=True)]
        ratios = self._ratios(episodes)
        return [self._corrected(e, v, r)[1] for e, v, r in zip(episodes, seen, ratios, strict=True)]

    def fit(self, episodes: Sequence[Episode]) -> dict[str, float]:
        """Fits the value function to the targets of real episodes; returns metrics."""
        if self._kind == "differential":
            self._take_averages(episodes)
        metrics = self._value.fit(episodes, targets=self._targets)
        averages = [v for name, v in self._running.items() if name.startswith("average ")]
        if self._kind == "differential" and averages:
            metrics["average_reward"] = float(np.mean(averages))
        return metrics

    def _targets(self, episodes: Sequence[Episode]) -> tuple[list[Floats], list[Floats]]:
        """(values, targets) of each episode's turns, float [T] each."""
        if self._kind == "turn":
            return self._value.targets(episodes)
        seen = self._value.values(episodes)
        values = [v[:-1] for v in seen]
        if self._kind == "differential":
            found = [self._differential(e, v)[0] for e, v in zip(episodes, seen, strict=True)]
        else:
            ratios = self._ratios(episodes)
            pairs = zip(episodes, seen, ratios, strict=True)
            found = [self._corrected(e, v, r)[0] for e, v, r in pairs]
        return values, found

    def _corrected(self, episode: Episode, v: Floats, ratios: Floats) -> tuple[Floats, Floats]:
        rewards, discounts = _rewards(episode), _discounts(episode)
        return vtrace(ratios, rewards, discounts, v[:-1], v[1:], trace=self._trace)

    def _differential(self, episode: Episode, v: Floats) -> tuple[Floats, Floats]:
        """(targets, advantages). The value of what follows a true end is 0: a new life begins."""
        average = self._running.get(f"average {episode.first.env_id}", 0.0)
        after = np.where(_discounts(episode) > 0, v[1:], 0.0)
        better = differential_advantages(_rewards(episode), v[:-1], after, average, self._trace)
        return v[:-1] + better, better

    def _take_averages(self, episodes: Sequence[Episode]) -> None:
        for episode, v in zip(episodes, self._value.values(episodes), strict=True):
            name = f"average {episode.first.env_id}"
            average = self._running.get(name, 0.0)
            after = np.where(_discounts(episode) > 0, v[1:], 0.0)
            errors = differential_errors(_rewards(episode), v[:-1], after, average)
            self._running[name] = average_reward(average, errors, _AVERAGE_STEP / len(errors))

    def _ratios(self, episodes: Sequence[Episode]) -> list[Floats]:
        """log π/μ of each turn; 0 where the action was no sample, or its tokens are not known."""
        found = [np.zeros(len(e.steps)) for e in episodes]
        if self._log_ratios is None:
            return found
        turns: list[Turn] = []
        places: list[tuple[int, int]] = []
        for number, episode in enumerate(episodes):
            for t, step in enumerate(episode.steps):
                if (turn := as_sample(step, 0.0)) is not None:
                    turns.append(turn)
                    places.append((number, t))
        for (number, t), ratio in zip(places, self._log_ratios(turns), strict=True):
            found[number][t] = ratio
        return found


def _rewards(episode: Episode) -> Floats:
    return np.array([s.reward for s in episode.steps], float)


def _discounts(episode: Episode) -> Floats:
    return np.array([s.discount for s in episode.steps], float)


def _drawn(recent: Sequence[Episode], n: int, rng: np.random.Generator) -> list[Episode]:
    """`n` remembered episodes, with replacement; none if none is remembered."""
    return [recent[i] for i in rng.integers(len(recent), size=n).tolist()] if recent else []


def _padded(prompts: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """The prompts as int64 [B, T], padded on the right, and the index of each last token, [B]."""
    tokens = np.zeros((len(prompts), max(map(len, prompts))), np.int64)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
    return torch.from_numpy(tokens), torch.tensor([len(p) - 1 for p in prompts])


def explained_variance(values: Floats, returns: Floats) -> float | None:
    """1 − mean (G − v)² / var G; None where it is unknown.

    values, returns: float [N]. It is unknown if all returns are equal, or one is not finite.
    """
    spread = float(returns.var())
    if not spread > 1e-12:
        return None
    explained = 1 - float(((returns - values) ** 2).mean()) / spread
    return explained if math.isfinite(explained) else None


def _observations(episode: Episode) -> list[str]:
    """The text of each turn, and of the closing row; an empty text if a crash left none."""
    last = episode.closing.obs_text if episode.closing else ""
    return [*(step.obs_text for step in episode.steps), last]


class _Regressor(Transformer):
    """A transformer that reads one number off the last token of each text.

    tokens int64 [B, T], last int64 [B] -> float [B].
    """

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__(shape)
        self.head = nn.Linear(shape.width, 1)
        # v = 0 everywhere at first: λ-returns begin as discounted rewards, not as noise.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor, last: Tensor) -> Tensor:  # type: ignore[override]
        positions = torch.arange(tokens.shape[1])[None]
        hidden = self._read(self.begin(tokens, None), positions, None, None)
        read: Tensor = self.head(hidden[torch.arange(len(last)), last])[:, 0]
        return read
