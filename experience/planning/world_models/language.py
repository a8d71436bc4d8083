"""A small language model of the world: it writes the change, the signals and the end, as text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from experience.models.tokenizer import ByteTokenizer
from experience.models.transformer import TransformerShape
from experience.planning.world_models.averaged import AveragedTransformer
from experience.planning.world_models.change import Outcome, apply, write_change
from experience.planning.world_models.gate import (
    FEWEST_GATING,
    FEWEST_MEASURED,
    first_threshold,
    gates,
    judged,
    question,
)
from experience.planning.world_models.transitions import LONGEST_CHANGE, Transitions
from experience.planning.world_models.world_model import ModelError, Prediction
from experience.step import Step
from experience.text.strict_json import dumps, exact

_HEADS = 4
_MOST_CACHED = 100_000
"""Predictions cached until the model changes."""

_EXPORTED = 1024
"""Transitions exported with a model that retrieves."""


class LanguageWorldModel:
    """Reads an observation and an action, and writes the change, one byte at a time.

    `context`: the longest question, in tokens; `retrieve`: similar real transitions that stand
    before it. Invariant: a prediction whose uncertainty is above
    `threshold` is never used for learning. The threshold is not a quantile: what matters most (a
    door that opens) is rare, the rare is less certain, and a quantile would always cut it off.
    `trusted_accuracy` 0 means no gate. Events (a signal that is not zero, or an end) have a gate
    of their own, for a planner looks for just those predictions, wrong ones included.
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
        self.version = 0
        self.threshold = first_threshold(trusted_accuracy)
        self.transitions = Transitions(context, retrieve)
        self._event_shift = 0.0
        self._retrieve = retrieve
        self._trusted_accuracy = trusted_accuracy
        longest = (context + LONGEST_CHANGE) * (retrieve + 1)
        shape = TransformerShape(ByteTokenizer.size, layers, width, _HEADS, longest)
        self._network = AveragedTransformer(shape, seed)
        self._tokenizer = ByteTokenizer()
        self._rng = np.random.default_rng(seed)
        self._cached: dict[tuple[str, str], Prediction] = {}

    @property
    def skipped(self) -> int:
        return self._network.skipped

    def add(self, transitions: Iterable[tuple[Step, Step]]) -> None:
        """Takes (row, next row) pairs of real or demonstrated experience."""
        self.transitions.add(transitions)
        if self._retrieve:
            self._cached.clear()

    def fit(self, steps: int, batch_turns: int = 16) -> float:
        """`steps` optimiser steps on the transitions so far; the last loss, in nats a token."""
        self._cached.clear()
        loss = float("nan")
        for _ in range(steps if self.transitions.fitted else 0):
            loss = self._network.update(self.transitions.draw(batch_turns, self._rng))
        self.version += 1
        return loss

    def save(self) -> dict[str, bytes]:
        """What the next fit depends on besides the transitions, by file name."""
        about = {
            "version": self.version,
            "threshold": exact(self.threshold),
            "event_shift": self._event_shift,
            "steps": self._network.updates,
            "random": self._rng.bit_generator.state,
        }
        weights = self._network.save(self.version)
        return {**weights, "world_model.json": dumps(about).encode()}

    def restore(self, saved: Mapping[str, bytes]) -> None:
        """Continues where `save` was called. The caller adds the transitions seen until then."""
        about = self._read(saved)
        self._rng.bit_generator.state = about["random"]
        self._network.restore(saved, self.version, about["steps"])

    def export_weights(self) -> dict[str, bytes]:
        """What another process needs to predict as this one does, and no more."""
        about: dict[str, Any] = {
            "version": self.version,
            "event_shift": self._event_shift,
            "threshold": exact(self.threshold),
        }
        if self._retrieve:
            about["memory"] = self.transitions.fitted[-_EXPORTED:]
        return {**self._network.export(self.version), "world_model.json": dumps(about).encode()}

    def load_weights(self, exported: Mapping[str, bytes]) -> None:
        """Predicts from now on as the model that made `exported` by `export_weights`."""
        about = self._read(exported)
        if self._retrieve:
            self.transitions.replace((str(asked), str(change)) for asked, change in about["memory"])
        self._network.load(exported, self.version)

    def _read(self, saved: Mapping[str, bytes]) -> dict[str, Any]:
        self._cached.clear()
        about: dict[str, Any] = json.loads(saved["world_model.json"])
        self.version = about["version"]
        self.threshold = float(about["threshold"])
        self._event_shift = about.get("event_shift", 0.0)
        return about

    def predict(self, observations: Sequence[str], actions: Sequence[str]) -> list[Prediction]:
        """The likeliest change for each pair. Predictions are cached until the model changes."""
        pairs = list(zip(observations, actions, strict=True))
        if len(self._cached) > _MOST_CACHED:
            self._cached.clear()
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._cached]
        found = self._predict([seen for seen, _ in new], [action for _, action in new])
        self._cached |= zip(new, found, strict=True)
        return [self._cached[pair] for pair in pairs]

    def _predict(self, observations: Sequence[str], actions: Sequence[str]) -> list[Prediction]:
        prompts = self.transitions.prompts(list(map(question, observations, actions)))
        written = self._network.write(prompts, ByteTokenizer.END, LONGEST_CHANGE)
        predictions = []
        for seen, change in zip(observations, written, strict=True):
            text = self._tokenizer.text(change.ids)
            # A change that the limit of tokens cut off may still parse: it is no prediction.
            outcome = apply(seen, text) if change.ended else None
            shift = self._event_shift if _is_event(outcome) else 0.0
            # A sum over the bytes, not a mean: every byte must be right for the change to be right.
            predictions.append(Prediction(outcome, shift - float(change.logprobs.sum())))
        return predictions

    def calibrate(self, most: int = 128) -> ModelError | None:
        """Sets the gate by held-out transitions, and measures the error on others.

        The newest `most` of each are used. None if there are too few to measure on, or to set the
        gate that `trusted_accuracy` asks for.
        """
        gating = self.transitions.held_out["gate"][-most:]
        measured = self.transitions.held_out["measured"][-most:]
        if self._trusted_accuracy > 0:
            if len(gating) < FEWEST_GATING:
                return None
            checked = self._checked(gating)
            self.threshold, self._event_shift = gates(*checked, self._trusted_accuracy)
            self._cached.clear()
        if len(measured) < FEWEST_MEASURED:
            return None
        uncertainty, right, events = self._checked(measured)
        uncertainty[events] += self._event_shift
        copied = np.array([_is_copy(step.obs_text, outcome) for step, outcome in measured])
        return judged(uncertainty, right, copied, self.threshold)

    def _checked(
        self, held_out: Sequence[tuple[Step, Outcome]]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `_compared`, with the uncertainty before any shift."""
        actions = [step.decision.text for step, _ in held_out if step.decision]
        predictions = self.predict([step.obs_text for step, _ in held_out], actions)
        uncertainty, right, events = _compared(predictions, held_out)
        # The last gate's shift is taken out, or each calibration would add to the one before.
        uncertainty[events] -= self._event_shift
        return uncertainty, right, events


def _compared(
    predictions: Sequence[Prediction], held_out: Sequence[tuple[Step, Outcome]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Uncertainty float [N]; whether each is right, whether an event is predicted, bool [N]."""
    pairs = zip(predictions, held_out, strict=True)
    right = [_is_right(p.answer, step.obs_text, truth) for p, (step, truth) in pairs]
    events = [_is_event(p.answer) for p in predictions]
    return np.array([p.uncertainty for p in predictions]), np.array(right), np.array(events)


def _is_event(outcome: Outcome | None) -> bool:
    """Whether the episode ends there, or a signal is not zero."""
    return outcome is not None and (outcome.ended or any(outcome.signals.values()))


def _is_right(predicted: Outcome | None, before: str, truth: Outcome) -> bool:
    """Whether both outcomes are the same change: signals agree when rounded as they are written."""
    return predicted is not None and write_change(before, predicted) == write_change(before, truth)


def _is_copy(before: str, truth: Outcome) -> bool:
    """Whether nothing changed, nothing ended and every signal is zero."""
    return truth.observation == before and not _is_event(truth)
