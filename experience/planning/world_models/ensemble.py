"""A world model of numbers: an ensemble of small networks that agree where they have seen enough.

For worlds whose observations are a fixed form with numbers in it. What is predicted is the change of each number, the
signals and whether it ends; the uncertainty is how far the members are apart, in units of what is usual there
(Chua et al. 2018, PETS; Janner et al. 2019, MBPO).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from experience.errors import RecordError
from experience.learning.finite import FiniteSteps
from experience.models.weights import Weights, pack_optimizer, unpack_optimizer
from experience.planning.world_models.change import Outcome
from experience.planning.world_models.language import (
    FEWEST_GATING,
    FEWEST_MEASURED,
    ModelError,
    Prediction,
    Use,
    answer_of,
    first_threshold,
    gate,
    judged,
    use_of,
)
from experience.step import Step
from experience.strict_json import dumps, exact

_NUMBER = re.compile(r"-?\d+(?:\.(\d+))?(?:e[+-]?\d+)?")


_SINGLE = 1e-6
"""Relative to its size, what single precision may get wrong of a number."""


@dataclass(frozen=True)
class _Row:
    """A transition as numbers: input (numbers seen, action), change of the numbers, signals, 1 where it ended."""

    given: np.ndarray
    change: np.ndarray
    signals: np.ndarray
    ended: float


class EnsembleModel:
    """`members` networks, each fitted to its own bootstrap of the transitions; their mean predicts.

    `actions` lists the actions that there are; `signals` the names of what is measured. A prediction is right if every
    number is within `tolerance` of the usual change of that number, and the end is as it was. One that only believes
    another's `exported` needs neither list: they come with them.
    """

    def __init__(
        self,
        actions: Sequence[str] = (),
        signals: Sequence[str] = (),
        members: int = 5,
        width: int = 64,
        tolerance: float = 0.2,
        trusted_accuracy: float = 0.9,
        seed: int = 0,
    ) -> None:
        self.version, self.threshold = 0, first_threshold(trusted_accuracy)
        self._actions, self._signals, self._members, self._width = (
            tuple(actions),
            tuple(signals),
            members,
            width,
        )
        self._tolerance, self._trusted_accuracy, self._seed = tolerance, trusted_accuracy, seed
        self._rows: list[_Row] = []
        self._kept_out: dict[Use, list[tuple[str, str, Outcome]]] = {"gate": [], "measured": []}
        self.too_large = 0
        """Transitions with numbers that single precision cannot hold: not learned."""
        self._form: str | None = None
        self._rng = np.random.default_rng(seed)
        self._nets: _Ensemble | None = None
        self._finite = FiniteSteps("ensemble")

    @property
    def skipped(self) -> int:
        return self._finite.skipped

    def add(self, transitions: Iterable[tuple[Step, Step]]) -> None:
        """Takes (row, next row) pairs, less those with an unknown signal. Raises RecordError where an observation is of
        another form than those before."""
        for step, following in transitions:
            if step.decision is None or step.decision.text not in self._actions:
                continue
            if any(s.value is None for s in step.signals):
                continue
            answer = answer_of(step, following)
            before, after = self._numbers(step.obs_text), self._numbers(following.obs_text)
            with np.errstate(over="ignore", invalid="ignore"):
                finite = np.isfinite((after - before).astype(np.float32)).all()
            use = use_of(step.obs_text, step.decision.text)
            if not finite:
                self.too_large += 1
            elif use != "fitted":
                self._kept_out[use].append((step.obs_text, step.decision.text, answer))
            else:
                signals = np.array([answer.signals.get(n, 0.0) for n in self._signals])
                self._rows.append(
                    _Row(
                        self._given(before, step.decision.text),
                        after - before,
                        signals,
                        float(answer.ended),
                    )
                )

    def fit(self, steps: int, batch: int = 128) -> float:
        """`steps` optimiser steps of all members together; the last loss."""
        if not self._rows:
            return float("nan")
        given, target = (
            torch.from_numpy(np.array(part, np.float32))
            for part in (
                [r.given for r in self._rows],
                [np.concatenate([r.change, r.signals]) for r in self._rows],
            )
        )
        ended = torch.tensor([r.ended for r in self._rows])
        if self._nets is None:
            self._build(given.shape[1], target.shape[1])
        assert self._nets is not None
        self._nets.scale(given, target)
        # A member sees two rows of three, always the same ones: where rows are few, members differ.
        own = [
            np.flatnonzero(np.random.default_rng([self._seed, m]).random(len(self._rows)) < 2 / 3)
            for m in range(self._members)
        ]
        loss = torch.zeros(())
        for _ in range(steps):
            rows = torch.from_numpy(
                np.array([self._rng.choice(o if len(o) else len(self._rows), batch) for o in own])
            )
            out = self._nets(given[rows])
            loss = functional.mse_loss(out[..., :-1], self._nets.scaled(target[rows]))
            loss = loss + functional.binary_cross_entropy_with_logits(out[..., -1], ended[rows])
            self._optimizer.zero_grad()
            loss.backward()
            self._finite.take(
                self._optimizer,
                float(loss.detach()),
                partial(_as_arrays, given=given[rows], target=target[rows], ended=ended[rows]),
            )
        self.version += 1
        return float(loss.detach())

    def predict(self, observations: Sequence[str], actions: Sequence[str]) -> list[Prediction]:
        """The members' mean, written in the form of the observation; unsure without bound before the first fit, of an
        action that is not listed, and of an observation of another form."""
        known = [
            i
            for i, (o, a) in enumerate(zip(observations, actions, strict=True))
            if self._nets is not None and a in self._actions and _form(o) == self._form
        ]
        predictions = [Prediction(None, float("inf"))] * len(observations)
        if not known or self._nets is None:
            return predictions
        before = np.array([self._numbers(observations[i]) for i in known])
        given = np.array(
            [self._given(b, actions[i]) for b, i in zip(before, known, strict=True)], np.float32
        )
        with torch.inference_mode():
            out = self._nets(torch.from_numpy(given).expand(self._members, -1, -1))
            apart = out[..., :-1].std(0).amax(-1) + torch.sigmoid(out[..., -1]).std(0)
            mean = self._nets.unscaled(out[..., :-1].mean(0)).numpy()
            ended = torch.sigmoid(out[..., -1]).mean(0).numpy() > 0.5
        width = before.shape[1]
        for row, i in enumerate(known):
            signals = dict(
                zip(self._signals, mean[row, width:].astype(float).tolist(), strict=True)
            )
            seen = self._written(observations[i], before[row] + mean[row, :width])
            predictions[i] = Prediction(Outcome(seen, signals, bool(ended[row])), float(apart[row]))
        return predictions

    def calibrate(self, most: int = 512) -> ModelError | None:
        """As LanguageWorldModel.calibrate, with `right` as this class has it; copy is "no number changes"."""
        gating, measured = self._kept_out["gate"][-most:], self._kept_out["measured"][-most:]
        if self._nets is None or not self._rows:  # how much is usual is read off what was fitted
            return None
        if self._trusted_accuracy > 0 and len(gating) < FEWEST_GATING:
            return None
        if self._trusted_accuracy > 0:
            uncertainty, right, _ = self._checked(gating)
            self.threshold = gate(uncertainty, right, self._trusted_accuracy)
        return (
            judged(*self._checked(measured), self.threshold)
            if len(measured) >= FEWEST_MEASURED
            else None
        )

    def _checked(
        self, checked: Sequence[tuple[str, str, Outcome]]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the predictions for these: the uncertainty, float [N]; whether they are right, and whether "no number
        changes" is, bool [N]."""
        predictions = self.predict([o for o, _, _ in checked], [a for _, a, _ in checked])
        usual = np.array([r.change for r in self._rows]).std(0) + 1e-9
        right, copied = list[bool](), list[bool]()
        for (observation, _, answer), prediction in zip(checked, predictions, strict=True):
            truth, before = self._numbers(answer.observation), self._numbers(observation)
            guess = (
                self._numbers(prediction.answer.observation)
                if prediction.answer
                else truth + np.inf
            )
            near = self._tolerance * usual + _SINGLE * np.maximum(np.abs(truth), np.abs(before))
            agrees = prediction.answer is not None and prediction.answer.ended == answer.ended
            right.append(agrees and bool((np.abs(guess - truth) <= near).all()))
            copied.append(not answer.ended and bool((np.abs(before - truth) <= near).all()))
        return np.array([p.uncertainty for p in predictions]), np.array(right), np.array(copied)

    def save(self) -> dict[str, bytes]:
        """What the next fit depends on besides the transitions, by file name."""
        if self._nets is None:
            return {}
        return {
            **self.export_weights(),
            "world_model_optimizer.safetensors": pack_optimizer(self._optimizer),
        }

    def restore(self, saved: Mapping[str, bytes]) -> None:
        """Continues where `save` was called; the transitions seen until then are added by the caller."""
        self.load_weights(saved)
        unpack_optimizer(saved["world_model_optimizer.safetensors"], self._optimizer)

    def export_weights(self) -> dict[str, bytes]:
        """What another process needs to predict as this one does; nothing before the first fit."""
        if self._nets is None:
            return {}
        about: dict[str, Any] = {
            "version": self.version,
            "threshold": exact(self.threshold),
            "actions": self._actions,
            "signals": self._signals,
            "form": self._form,
            "random": self._rng.bit_generator.state,
        }
        return {
            "world_model.safetensors": Weights.of(self._nets, self.version).data,
            "world_model.json": dumps(about).encode(),
        }

    def load_weights(self, exported: Mapping[str, bytes]) -> None:
        """Predicts from now on as the model whose `exported` these are."""
        if "world_model.json" not in exported:
            return
        about = json.loads(exported["world_model.json"])
        self.version, self._form, self._rng.bit_generator.state = (
            about["version"],
            about["form"],
            about["random"],
        )
        self.threshold = float(about["threshold"])
        self._actions, self._signals = tuple(about["actions"]), tuple(about["signals"])
        numbers = str(self._form).count("#")
        self._build(numbers + len(self._actions), numbers + len(self._signals))
        assert self._nets is not None
        Weights.read(self.version, exported["world_model.safetensors"]).put_into(self._nets)

    def _build(self, inputs: int, outputs: int) -> None:
        self._nets = _Ensemble(self._members, inputs, self._width, outputs, self._seed)
        self._optimizer = torch.optim.Adam(
            [p for p in self._nets.parameters() if p.requires_grad], lr=1e-3
        )

    def _numbers(self, observation: str) -> np.ndarray:
        form = _form(observation)
        if self._form is None:
            self._form = form
        if form != self._form:
            raise RecordError(
                f"observation of the form {form[:60]!r}, those before were {self._form[:60]!r}",
                "use planning.model=language for worlds whose screens differ",
            )
        return np.array([float(n[0]) for n in _NUMBER.finditer(observation)])

    def _given(self, numbers: np.ndarray, action: str) -> np.ndarray:
        return np.concatenate([numbers, [float(action == a) for a in self._actions]])

    @staticmethod
    def _written(observation: str, numbers: np.ndarray) -> str:
        values = iter(numbers.tolist())
        return _NUMBER.sub(lambda seen: _as_written(next(values), len(seen[1] or "")), observation)


def _as_written(number: float, decimals: int) -> str:
    """To four digits, or as many as stand before the point and the world writes after it, whichever is finer."""
    size = abs(number)
    if size >= 1e15:
        return f"{number:.15g}"
    of_four = 3 - math.floor(math.log10(size)) if size else 0
    text = f"{number:.{max(of_four, decimals)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _form(observation: str) -> str:
    """The observation with every number as #; a # of its own is none."""
    return _NUMBER.sub("#", observation.replace("#", "No."))


def _as_arrays(**tensors: Tensor) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


class _Ensemble(nn.Module):
    """M two-layer networks at once: float [M, B, I] -> float [M, B, O + 1], the last for the end. Inputs and targets
    are scaled to unit size."""

    def __init__(self, members: int, inputs: int, width: int, outputs: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sizes = ((inputs, width), (width, width), (width, outputs + 1))
            self.weights = nn.ParameterList(
                torch.randn(members, i, o) * (2 / i) ** 0.5 for i, o in sizes
            )
            self.biases = nn.ParameterList(torch.zeros(members, 1, o) for _, o in sizes)
        self.stats = nn.ParameterDict(
            {
                name: nn.Parameter(torch.full((size,), torch.nan), requires_grad=False)
                for name, size in (
                    ("centre", inputs),
                    ("spread", inputs),
                    ("middle", outputs),
                    ("usual", outputs),
                )
            }
        )

    def scale(self, given: Tensor, target: Tensor) -> None:
        """Each column once, by the first rows in which it is not constant: until then it tells nothing (input), or is
        predicted as it has always been (target)."""
        for rows, centre, spread in ((given, "centre", "spread"), (target, "middle", "usual")):
            mean, deviation = rows.mean(0), rows.std(0, correction=0)
            deviation[deviation <= _SINGLE * mean.abs()] = 0.0
            unset = ~(self.stats[spread] > 0)
            self.stats[centre][unset], self.stats[spread][unset] = mean[unset], deviation[unset]

    def scaled(self, target: Tensor) -> Tensor:
        return _over(target - self.stats["middle"], self.stats["usual"])

    def unscaled(self, out: Tensor) -> Tensor:
        unscaled: Tensor = out * self.stats["usual"] + self.stats["middle"]
        return unscaled

    def forward(self, given: Tensor) -> Tensor:
        x = _over(given - self.stats["centre"], self.stats["spread"])
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            x = functional.silu(x) if layer < 2 else x
        return x


def _over(difference: Tensor, spread: Tensor) -> Tensor:
    """In units of `spread`; 0 where that is 0: what was always the same says nothing yet."""
    return torch.where(spread > 0, difference / torch.where(spread > 0, spread, 1.0), 0.0)
