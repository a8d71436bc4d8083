"""A small language model of the world: predicts changes and signals, never reward, and knows when it does not know."""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch

from experience.learning.batch import TokenBatch, Turn, as_arrays, micro_batches
from experience.learning.finite import FiniteSteps
from experience.learning.losses import negative_log_likelihood, token_logprobs
from experience.models.decoding import fit, sample
from experience.models.tokenizer import ByteTokenizer
from experience.models.transformer import Transformer, TransformerShape
from experience.models.weights import Weights, pack_optimizer, unpack_optimizer
from experience.planning.world_models.change import Outcome, apply, event, write_change
from experience.planning.world_models.retrieval import Memory
from experience.step import Step, state_key
from experience.strict_json import dumps, exact


@dataclass(frozen=True)
class Prediction:
    """What a model thinks an action does. `answer` is None where it wrote nothing that can happen.

    uncertainty: its own negative log-likelihood of the change, in nats; comparable only within one model version.
    """

    answer: Outcome | None
    uncertainty: float


class WorldModel(Protocol):
    """Any model of a text world: counts, a simulator, a language model. Above `threshold` it is not to be believed."""

    version: int
    threshold: float

    def predict(self, observations: Sequence[str], actions: Sequence[str]) -> list[Prediction]: ...


class LearnedModel(WorldModel, Protocol):
    """A model that a run fits to what it lives, keeps in checkpoints, and pushes to those who plan with it."""

    @property
    def skipped(self) -> int:
        """Updates left out because their loss or gradient was not finite."""

    def add(self, transitions: Iterable[tuple[Step, Step]]) -> None: ...

    def fit(self, steps: int) -> float: ...

    def calibrate(self) -> ModelError | None: ...

    def save(self) -> dict[str, bytes]: ...

    def restore(self, saved: Mapping[str, bytes]) -> None: ...

    def export_weights(self) -> dict[str, bytes]: ...

    def load_weights(self, exported: Mapping[str, bytes]) -> None: ...


@dataclass(frozen=True)
class ModelError:
    """How far a model can be trusted, on real transitions that it has not been fitted to.

    exact: fraction predicted exactly; copy: the same for "nothing changes"; kept: fraction that passes the gate, and
    exact_kept among those (None: none passes); auroc: P(a wrong prediction is less certain than a right one; None: only
    one of the two was seen); n: transitions measured on.
    """

    exact: float
    exact_kept: float | None
    kept: float
    copy: float
    auroc: float | None
    n: int


Use = Literal["fitted", "gate", "measured"]


def use_of(observation: str, action: str) -> Use:
    """What transitions from here serve for: one pair of observation and action in eight is never fitted; half of those
    set the gate, and on the other half it is measured. By a hash of the pair: what comes again serves the same use."""
    place = state_key(_question(observation, action)) % 16
    return "fitted" if place < 14 else "gate" if place == 14 else "measured"


FEWEST_GATING, FEWEST_MEASURED = 16, 8
"""Kept-out transitions below which there is no gate, and no measurement."""


def first_threshold(trusted_accuracy: float) -> float:
    """What a model believes before it has a gate: nothing; or everything, where `trusted_accuracy` 0 asks for none."""
    return float("-inf") if trusted_accuracy > 0 else float("inf")


LONGEST_CHANGE = 72
"""Tokens. A transition that changes more is not learned, and counted in `too_long`."""


_NEVER = 1e6
"""Nats that no prediction is sure enough to bear."""

_MOST_SAID = 100_000
"""Predictions remembered until the model changes."""

_TOGETHER = 256
"""Predictions made at once; with more, their caches no longer fit near the processor."""

_PUSHED = 1024
"""Transitions that go with a model that retrieves, to whoever predicts with it."""


class LanguageWorldModel:
    """Reads `observation ⊢ action` and writes the change, one byte at a time. `context` is the room for what it reads;
    of a longer prompt it sees the first and the last part. With `retrieve`, so many similar real transitions and what
    they changed stand before the question.

    One pair of observation and action in eight is never fitted (`use_of`). On half of those the gate is calibrated, on
    the others it is measured: `threshold` is the largest uncertainty up to which a share of at least `trusted_accuracy`
    is exactly right there. Not a quantile: what matters most (a door that opens) is rare, rarer is less certain, and a
    quantile would cut just that off for ever. `trusted_accuracy` 0 is no gate: everything is believed.
    What is predicted to be measured or to end is gated by itself, on the kept-out transitions of which that was
    predicted: a planner looks for just those predictions, false ones too. `uncertainty` is shifted there, so that one
    threshold serves. Invariant: a prediction above `threshold` is never used for learning.
    """

    def __init__(
        self,
        layers: int,
        width: int,
        context: int,
        trusted_accuracy: float,
        seed: int,
        retrieve: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.version, self.threshold, self._event_shift = 0, first_threshold(trusted_accuracy), 0.0
        self._tokenizer = ByteTokenizer()
        self._room, self._retrieve, self._memory = context, retrieve, Memory()
        longest = (context + LONGEST_CHANGE) * (retrieve + 1)
        self._model = Transformer(TransformerShape(ByteTokenizer.size, layers, width, 4, longest))
        self._believed = copy.deepcopy(self._model).requires_grad_(False)
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01
        )
        self._finite = FiniteSteps("world model")
        self._rng = np.random.default_rng(seed)
        self._trusted_accuracy = trusted_accuracy
        self._fitted: list[tuple[str, str]] = []
        """(question, change)"""
        self._by_event: dict[str, list[int]] = defaultdict(list)
        self._kept_out: dict[Use, list[tuple[Step, Outcome]]] = {"gate": [], "measured": []}
        self._said: dict[tuple[str, str], Prediction] = {}
        self.too_long = self._steps = 0
        self._generator = torch.Generator().manual_seed(seed)

    @property
    def skipped(self) -> int:
        return self._finite.skipped

    def add(self, transitions: Iterable[tuple[Step, Step]]) -> None:
        """Takes (row, next row) pairs of real or demonstrated experience."""
        new: list[tuple[str, str]] = []
        for step, following in transitions:
            if step.decision is None or any(s.value is None for s in step.signals):
                continue
            answer = answer_of(step, following)
            use = use_of(step.obs_text, step.decision.text)
            if use != "fitted":
                self._kept_out[use].append((step, answer))
            else:
                change = write_change(step.obs_text, answer)
                if len(self._tokenizer.action(change)) > LONGEST_CHANGE:
                    self.too_long += 1
                    continue
                self._by_event[event(answer)].append(len(self._fitted))
                new.append((_question(step.obs_text, step.decision.text), change))
                self._fitted.append(new[-1])
        if self._retrieve:
            self._said.clear()
            self._memory.add(len(self._fitted) - len(new), [question for question, _ in new])

    def fit(self, steps: int, batch_turns: int = 16) -> float:
        """`steps` optimiser steps on the transitions seen so far; the last loss, in nats."""
        self._said.clear()
        loss_value = float("nan")
        for _ in range(steps if self._fitted else 0):
            chosen = self._sample(batch_turns)
            loss_value = self._update(chosen)
        self.version += 1
        return loss_value

    def _update(self, chosen: Sequence[Turn]) -> float:
        """One optimiser step on these transitions, unless it is skipped; the loss before it, in nats a token."""
        self._optimizer.zero_grad()
        tokens, whole = sum(len(turn.action) for turn in chosen), 0.0
        for micro in micro_batches(chosen, 8192):
            batch = TokenBatch.of(micro)
            logp = token_logprobs(self._model(batch.tokens), batch.tokens)
            loss = negative_log_likelihood(logp, batch.mask) / tokens
            loss.backward()
            whole += float(loss.detach())
        if (
            self._finite.take(self._optimizer, whole, lambda: as_arrays(transitions=chosen), 1.0)
            is not None
        ):
            self._average()
        return whole

    def _average(self) -> None:
        """The weights that predict are the running mean of the last hundred steps': a single step's are too noisy for
        predictions that must be exact to the byte (Polyak & Juditsky 1992)."""
        self._steps += 1
        new = max(0.01, 1 / self._steps)
        with torch.no_grad():
            for mean, weight in zip(
                self._believed.parameters(), self._model.parameters(), strict=True
            ):
                mean.lerp_(weight, new)

    def _sample(self, n: int) -> list[Turn]:
        """Three of four uniform, one by event (the signals and whether it ended): what is rewarded is rare. More of
        them, and the model sees keys where none are."""
        events = list(self._by_event.values())
        uniform = self._rng.integers(len(self._fitted), size=n - n // 4)
        kinds = self._rng.integers(len(events), size=n // 4)
        rare = [events[k][int(self._rng.integers(len(events[k])))] for k in kinds]
        chosen = [int(i) for i in (*uniform, *rare)]
        prompts = self._prompts([self._fitted[i][0] for i in chosen], without=chosen)
        changes = [self._tokenizer.action(self._fitted[i][1]) for i in chosen]
        return [
            Turn(p, c, np.zeros(len(c), np.float32)) for p, c in zip(prompts, changes, strict=True)
        ]

    def save(self) -> dict[str, bytes]:
        """What the next fit depends on besides the transitions, by file name."""
        about = {
            "version": self.version,
            "threshold": exact(self.threshold),
            "event_shift": self._event_shift,
            "steps": self._steps,
            "random": self._rng.bit_generator.state,
        }
        return {
            "world_model.safetensors": Weights.of(self._model, self.version).data,
            "world_model_mean.safetensors": Weights.of(self._believed, self.version).data,
            "world_model_optimizer.safetensors": pack_optimizer(self._optimizer),
            "world_model.json": dumps(about).encode(),
        }

    def restore(self, saved: Mapping[str, bytes]) -> None:
        """Continues where `save` was called; the transitions seen until then are added by the caller."""
        self._said.clear()
        about = json.loads(saved["world_model.json"])
        self.version, self.threshold, self._steps = (
            about["version"],
            float(about["threshold"]),
            about["steps"],
        )
        self._event_shift = about.get("event_shift", 0.0)
        self._rng.bit_generator.state = about["random"]
        Weights.read(self.version, saved["world_model.safetensors"]).put_into(self._model)
        Weights.read(self.version, saved["world_model_mean.safetensors"]).put_into(self._believed)
        unpack_optimizer(saved["world_model_optimizer.safetensors"], self._optimizer)

    def export_weights(self) -> dict[str, bytes]:
        """What another process needs to predict as this one does, and no more."""
        about: dict[str, Any] = {
            "version": self.version,
            "event_shift": self._event_shift,
            "threshold": exact(self.threshold),
        }
        if self._retrieve:
            about["memory"] = self._fitted[-_PUSHED:]
        return {
            "world_model_mean.safetensors": Weights.of(self._believed, self.version).data,
            "world_model.json": dumps(about).encode(),
        }

    def load_weights(self, exported: Mapping[str, bytes]) -> None:
        """Predicts from now on as the model whose `exported` these are."""
        self._said.clear()
        about = json.loads(exported["world_model.json"])
        self.version, self.threshold = about["version"], float(about["threshold"])
        self._event_shift = about.get("event_shift", 0.0)
        if self._retrieve:
            self._fitted, self._memory = [(str(q), str(c)) for q, c in about["memory"]], Memory()
            self._memory.add(0, [question for question, _ in self._fitted])
        Weights.read(self.version, exported["world_model_mean.safetensors"]).put_into(
            self._believed
        )

    def predict(self, observations: Sequence[str], actions: Sequence[str]) -> list[Prediction]:
        """The likeliest change for each pair. What is asked again before the model changes is answered from memory."""
        pairs = list(zip(observations, actions, strict=True))
        if len(self._said) > _MOST_SAID:
            self._said.clear()
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._said]
        self._said |= zip(new, self._predict([o for o, _ in new], [a for _, a in new]), strict=True)
        return [self._said[pair] for pair in pairs]

    def _predict(self, observations: Sequence[str], actions: Sequence[str]) -> list[Prediction]:
        prompts = self._prompts(
            [_question(o, a) for o, a in zip(observations, actions, strict=True)]
        )
        written = [
            answer
            for start in range(0, len(prompts), _TOGETHER)
            for answer in sample(
                self._believed,
                prompts[start : start + _TOGETHER],
                end=ByteTokenizer.END,
                most_tokens=LONGEST_CHANGE,
                temperature=0,
                generator=self._generator,
            )
        ]
        predictions = []
        for observation, change in zip(observations, written, strict=True):
            answer = apply(observation, self._tokenizer.text(change.ids)) if change.ended else None
            shift = self._event_shift if answer is not None and _is_event(answer) else 0.0
            predictions.append(Prediction(answer, -float(change.logprobs.sum()) + shift))
        return predictions

    def calibrate(self, most: int = 128) -> ModelError | None:
        """Sets the gate by the newest kept-out transitions of one half and measures the model, and the gate, on those
        of the other; None while there are too few to measure on, or for a gate that `trusted_accuracy` asks for."""
        gating, measured = self._kept_out["gate"][-most:], self._kept_out["measured"][-most:]
        has_gate = self._trusted_accuracy > 0
        if has_gate and len(gating) >= FEWEST_GATING:
            uncertainty, right, events = self._checked(gating)
            plain, believed = (
                gate(uncertainty[kind], right[kind], self._trusted_accuracy)
                for kind in (~events, events)
            )
            # Where all that happens is an event, as in worlds of one turn, there is nothing else to measure it by.
            self.threshold = plain if np.isfinite(plain) else believed
            self._event_shift = (
                0.0
                if not np.isfinite(plain)
                else plain - believed
                if np.isfinite(believed)
                else _NEVER
            )
            self._said.clear()
        if (has_gate and len(gating) < FEWEST_GATING) or len(measured) < FEWEST_MEASURED:
            return None
        uncertainty, right, events = self._checked(measured)
        uncertainty[events] += self._event_shift
        copied = np.array(
            [
                not a.ended and a.observation == s.obs_text and not any(a.signals.values())
                for s, a in measured
            ]
        )
        return judged(uncertainty, right, copied, self.threshold)

    def _checked(
        self, kept_out: Sequence[tuple[Step, Outcome]]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the predictions for these: the uncertainty before any shift, float [N]; whether they are right, and
        whether an event is predicted, bool [N]."""
        actions = [s.decision.text for s, _ in kept_out if s.decision]
        predictions = self.predict([s.obs_text for s, _ in kept_out], actions)
        uncertainty = np.array([p.uncertainty for p in predictions])
        events = np.array([p.answer is not None and _is_event(p.answer) for p in predictions])
        uncertainty[events] -= self._event_shift
        right = np.array(
            [
                p.answer is not None
                and write_change(s.obs_text, p.answer) == write_change(s.obs_text, a)
                for p, (s, a) in zip(predictions, kept_out, strict=True)
            ]
        )
        return uncertainty, right, events

    def _prompts(self, questions: Sequence[str], without: Sequence[int] = ()) -> list[np.ndarray]:
        """What the model reads for each question: similar transitions, the most similar last, then the question."""
        if not self._retrieve:
            return [fit(self._tokenizer.prompt(q), self._room) for q in questions]
        found = []
        for question, alike in zip(
            questions, self._memory.nearest(questions, self._retrieve, without), strict=True
        ):
            before = "".join(f"{self._fitted[i][0]}\n= {self._fitted[i][1]}\n\n" for i in alike)
            found.append(
                fit(
                    self._tokenizer.prompt(before + question),
                    self._room + len(alike) * (self._room + LONGEST_CHANGE),
                )
            )
        return found


def _is_event(answer: Outcome) -> bool:
    """Whether it ends there, or anything is measured that is not zero."""
    return answer.ended or any(answer.signals.values())


def _question(observation: str, action: str) -> str:
    return f"{observation}\n> {action}"


def gate(uncertainty: np.ndarray, right: np.ndarray, accuracy: float) -> float:
    """The largest uncertainty u such that of the predictions up to u, at least eight, a share of `accuracy` is right;
    −∞ if there is none. uncertainty float [N], right bool [N]."""
    order = np.argsort(uncertainty, kind="stable")
    share = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    # Equal uncertainties pass or fail together.
    last_of_equals = np.append(np.diff(uncertainty[order]) > 0, True)
    passing = np.flatnonzero((share >= accuracy) & last_of_equals & (np.arange(len(order)) >= 7))
    return float(uncertainty[order][passing[-1]]) if len(passing) else float("-inf")


def answer_of(step: Step, following: Step) -> Outcome:
    """What the world answered to a row, read off it and the next one. Unknown signals are left out."""
    return Outcome(
        following.obs_text,
        {s.name: s.value for s in step.signals if s.value is not None},
        step.ending == "terminated",
    )


def judged(
    uncertainty: np.ndarray, right: np.ndarray, copied: np.ndarray, threshold: float
) -> ModelError:
    """How far predictions are right, and what a gate at `threshold` makes of them. uncertainty float [N]; right, and
    whether "nothing changes" was, bool [N], N ≥ 1. No gate lets through what is unsure without bound."""
    kept = (uncertainty <= threshold) & np.isfinite(uncertainty)
    return ModelError(
        float(right.mean()),
        float(right[kept].mean()) if kept.any() else None,
        float(kept.mean()),
        float(copied.mean()),
        auroc(uncertainty, ~right),
        len(right),
    )


def auroc(score: np.ndarray, positive: np.ndarray) -> float | None:
    """P(score of a positive > score of a negative), ties half; None where one class is missing.

    score float [N], +∞ allowed; positive bool [N].    Mann & Whitney 1947
    """
    if positive.all() or not positive.any():
        return None
    above, below = score[positive][:, None], score[~positive][None]
    return float((above > below).mean() + 0.5 * (above == below).mean())
