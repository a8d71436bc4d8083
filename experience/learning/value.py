"""A value function of observations: the discounted return that the present policy can expect."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from experience.episode import Episode
from experience.learning.finite import FiniteSteps
from experience.models.decoding import fit
from experience.models.tokenizer import ByteTokenizer
from experience.models.transformer import Transformer, TransformerShape
from experience.models.weights import Weights, pack_optimizer, unpack_optimizer
from experience.returns import Floats, lambda_returns
from experience.text.strict_json import dumps

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

    def targets(self, episodes: Sequence[Episode]) -> tuple[list[Floats], list[Floats]]:
        """For each episode, the values of its observations and their λ-returns, float [T] each.

        A truncated or unfinished episode bootstraps from its last observation; a terminated one
        ends at 0.
        """
        seen = [_observations(episode) for episode in episodes]
        flat = self([text for texts in seen for text in texts])
        values: list[Floats] = []
        returns: list[Floats] = []
        start = 0
        for episode, texts in zip(episodes, seen, strict=True):
            v = flat[start : start + len(texts)]
            start += len(texts)
            rewards = np.array([s.reward for s in episode.steps], float)
            discounts = np.array([s.discount for s in episode.steps], float)
            values.append(v[:-1])
            returns.append(lambda_returns(rewards, discounts, v[1:], self.trace))
        return values, returns

    def fit(
        self, episodes: Sequence[Episode], passes: int = 2, batch: int = 64
    ) -> dict[str, float]:
        """Fits the values to `episodes` and twice as many remembered ones; returns metrics."""
        if not episodes:
            return {}
        chosen = [*episodes, *_drawn(self._recent, 2 * len(episodes), self._rng)]
        self.remember(episodes)
        values, returns = self.targets(chosen)
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
