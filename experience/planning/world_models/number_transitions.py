"""The transitions that the ensemble is fitted to, as numbers, and when a prediction is right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from experience.planning.world_models.change import Outcome
from experience.planning.world_models.gate import Use, use_of
from experience.planning.world_models.networks import SINGLE, Row
from experience.planning.world_models.number_form import NumberForm
from experience.planning.world_models.world_model import outcome_of
from experience.step import Step

HeldOut = tuple[str, str, Outcome]
"""(observation, action, outcome)"""


class NumberTransitions:
    """Fitted transitions as rows of numbers, held-out ones as they were observed."""

    def __init__(self, actions: Sequence[str], signals: Sequence[str]) -> None:
        self.actions = tuple(actions)
        self.signals = tuple(signals)
        self.form = NumberForm()
        self.rows: list[Row] = []
        self.held_out: dict[Use, list[HeldOut]] = {"gate": [], "measured": []}
        self.too_large = 0
        """Transitions with numbers that single precision cannot hold: not fitted."""

    def add(self, transitions: Iterable[tuple[Step, Step]]) -> None:
        """Takes (row, next row) pairs, except those with an unlisted action or unknown signal.

        Raises RecordError if an observation has another form than those before.
        """
        for step, following in transitions:
            if step.decision is None or step.decision.text not in self.actions:
                continue
            if all(s.value is not None for s in step.signals):
                self._add(step.obs_text, step.decision.text, outcome_of(step, following))

    def _add(self, observation: str, action: str, outcome: Outcome) -> None:
        before = self.form.read(observation)
        change = self.form.read(outcome.observation) - before
        # The networks compute in single precision: what overflows there cannot be fitted.
        with np.errstate(over="ignore", invalid="ignore"):
            finite = np.isfinite(change.astype(np.float32)).all()
        use = use_of(observation, action)
        if not finite:
            self.too_large += 1
        elif use != "fitted":
            self.held_out[use].append((observation, action, outcome))
        else:
            signals = np.array([outcome.signals.get(n, 0.0) for n in self.signals])
            row = Row(self.input(before, action), change, signals, float(outcome.ended))
            self.rows.append(row)

    def input(self, numbers: np.ndarray, action: str) -> np.ndarray:
        """float [I]: the numbers, then the action, one-hot."""
        return np.concatenate([numbers, [float(action == a) for a in self.actions]])

    def usual_change(self) -> np.ndarray:
        """Standard deviation of each number's change over the fitted rows, float [N]."""
        usual: np.ndarray = np.array([r.change for r in self.rows]).std(0) + 1e-9
        return usual

    def is_near(
        self, observation: str, truth: Outcome, near: np.ndarray, guess: Outcome | None
    ) -> bool:
        """Whether each number of `guess` is within `near`, float [N], and the end is the same."""
        if guess is None or guess.ended != truth.ended:
            return False
        numbers = self.form.read(truth.observation)
        # Large numbers may differ by what single precision cannot tell apart.
        before = self.form.read(observation)
        rounding = SINGLE * np.maximum(np.abs(numbers), np.abs(before))
        distance = np.abs(self.form.read(guess.observation) - numbers)
        return bool((distance <= near + rounding).all())
