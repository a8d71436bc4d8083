"""A world model of numbers: an ensemble of small networks that agree where they have seen enough.

For worlds whose observations are a fixed form with numbers in it. The networks predict the change
of each number, the signals and the end. The uncertainty is the members' spread, in units of the
usual change of each number (Chua et al. 2018, PETS; Janner et al. 2019, MBPO).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from experience.models.weights import Weights, pack_optimizer, unpack_optimizer
from experience.planning.world_models.change import Outcome
from experience.planning.world_models.gate import (
    FEWEST_GATING,
    FEWEST_MEASURED,
    first_threshold,
    gate,
    judged,
)
from experience.planning.world_models.networks import NetworkTrainer
from experience.planning.world_models.number_form import NumberForm, written
from experience.planning.world_models.number_transitions import HeldOut, NumberTransitions
from experience.planning.world_models.world_model import ModelError, Prediction
from experience.step import Step
from experience.text.strict_json import dumps, exact


class EnsembleModel:
    """`members` networks, each fitted to a part of the transitions; their mean predicts.

    `actions` lists the world's actions, `signals` the names of its signals; a model that only
    loads another's exported weights needs neither, for they come with the weights. A prediction
    is right if every number is within `tolerance` of the usual change of that number, and the
    end is predicted correctly.
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
        self.version = 0
        self.threshold = first_threshold(trusted_accuracy)
        self.transitions = NumberTransitions(actions, signals)
        self._tolerance = tolerance
        self._trusted_accuracy = trusted_accuracy
        self._trainer = NetworkTrainer(members, width, seed)

    @property
    def skipped(self) -> int:
        return self._trainer.skipped

    def add(self, transitions: Iterable[tuple[Step, Step]]) -> None:
        """Takes (row, next row) pairs. Raises RecordError if an observation has another form."""
        self.transitions.add(transitions)

    def fit(self, steps: int, batch: int = 128) -> float:
        """`steps` optimiser steps of all members together; the last loss."""
        if not self.transitions.rows:
            return float("nan")
        loss = self._trainer.fit(self.transitions.rows, steps, batch)
        self.version += 1
        return loss

    def predict(self, observations: Sequence[str], actions: Sequence[str]) -> list[Prediction]:
        """The members' mean, written in the form of the observation.

        The uncertainty is infinite before the first fit, for an action that is not listed, and
        for an observation of another form.
        """
        predictions = [Prediction(None, float("inf"))] * len(observations)
        # Unknown stays unknown: no answer, and an uncertainty that passes no gate.
        nets, seen = self._trainer.nets, self.transitions
        if nets is None:
            return predictions
        pairs = enumerate(zip(observations, actions, strict=True))
        known = [i for i, (o, a) in pairs if a in seen.actions and seen.form.fits(o)]
        if not known:
            return predictions
        before = [seen.form.read(observations[i]) for i in known]
        given = [seen.input(b, actions[i]) for b, i in zip(before, known, strict=True)]
        mean, ended, apart = nets.predict(torch.from_numpy(np.array(given, np.float32)))
        width = seen.form.size
        for row, i in enumerate(known):
            values = mean[row, width:].astype(float).tolist()
            signals = dict(zip(seen.signals, values, strict=True))
            text = written(observations[i], before[row] + mean[row, :width])
            predictions[i] = Prediction(Outcome(text, signals, bool(ended[row])), float(apart[row]))
        return predictions

    def calibrate(self, most: int = 512) -> ModelError | None:
        """As LanguageWorldModel.calibrate; copy is "no number changes"."""
        gating = self.transitions.held_out["gate"][-most:]
        measured = self.transitions.held_out["measured"][-most:]
        # The usual change, by which a prediction is judged, is that of the fitted rows.
        if self._trainer.nets is None or not self.transitions.rows:
            return None
        if self._trusted_accuracy > 0:
            if len(gating) < FEWEST_GATING:
                return None
            uncertainty, right, _ = self._checked(gating)
            self.threshold = gate(uncertainty, right, self._trusted_accuracy)
        if len(measured) < FEWEST_MEASURED:
            return None
        return judged(*self._checked(measured), self.threshold)

    def _checked(self, held_out: Sequence[HeldOut]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Uncertainty float [N]; is each right, is "no number changes" right, bool [N]."""
        predictions = self.predict([o for o, _, _ in held_out], [a for _, a, _ in held_out])
        near = self._tolerance * self.transitions.usual_change()
        right, copied = list[bool](), list[bool]()
        for (observation, _, truth), prediction in zip(held_out, predictions, strict=True):
            # The baseline: a model that is worth its cost beats "nothing changes".
            copy = Outcome(observation, {}, False)
            is_near = partial(self.transitions.is_near, observation, truth, near)
            right.append(is_near(prediction.answer))
            copied.append(is_near(copy))
        return np.array([p.uncertainty for p in predictions]), np.array(right), np.array(copied)

    def save(self) -> dict[str, bytes]:
        """What the next fit depends on besides the transitions, by file name."""
        exported = self.export_weights()
        if not exported:
            return {}
        optimizer = pack_optimizer(self._trainer.optimizer)
        return {**exported, "world_model_optimizer.safetensors": optimizer}

    def restore(self, saved: Mapping[str, bytes]) -> None:
        """Continues where `save` was called. The caller adds the transitions seen until then."""
        self.load_weights(saved)
        unpack_optimizer(saved["world_model_optimizer.safetensors"], self._trainer.optimizer)

    def export_weights(self) -> dict[str, bytes]:
        """What another process needs to predict as this one does; empty before the first fit."""
        if self._trainer.nets is None:
            return {}
        about: dict[str, Any] = {
            "version": self.version,
            "threshold": exact(self.threshold),
            "actions": self.transitions.actions,
            "signals": self.transitions.signals,
            "form": self.transitions.form.form,
            "random": self._trainer.rng.bit_generator.state,
        }
        return {
            "world_model.safetensors": Weights.of(self._trainer.nets, self.version).data,
            "world_model.json": dumps(about).encode(),
        }

    def load_weights(self, exported: Mapping[str, bytes]) -> None:
        """Predicts from now on as the model that made `exported` by `export_weights`."""
        # A model that was never fitted exports nothing; the planner then predicts nothing.
        if "world_model.json" not in exported:
            return
        about = json.loads(exported["world_model.json"])
        self.version = about["version"]
        self.threshold = float(about["threshold"])
        known = self.transitions
        known.form = NumberForm(about["form"])
        known.actions, known.signals = tuple(about["actions"]), tuple(about["signals"])
        self._trainer.rng.bit_generator.state = about["random"]
        size = known.form.size
        nets = self._trainer.build(size + len(known.actions), size + len(known.signals))
        Weights.read(self.version, exported["world_model.safetensors"]).put_into(nets)
