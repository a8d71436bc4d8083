"""The words of world models: a prediction, the Protocols that every model satisfies, its error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from experience.planning.world_models.change import Outcome
from experience.step import Step


@dataclass(frozen=True)
class Prediction:
    """What a model predicts of an action. `answer` is None if the model predicts nothing possible.

    uncertainty: larger is less certain; comparable only within one version of one model. The
    language model gives the negative log-likelihood of the change that it wrote, in nats.
    """

    answer: Outcome | None
    uncertainty: float


class WorldModel(Protocol):
    """Any model of a text world: counts, a simulator, a language model.

    A prediction with an uncertainty above `threshold` is not used.
    """

    version: int
    threshold: float

    def predict(self, observations: Sequence[str], actions: Sequence[str]) -> list[Prediction]: ...


class LearnedModel(WorldModel, Protocol):
    """A model that a run fits to its experience, saves, and exports to those who plan with it."""

    @property
    def skipped(self) -> int:
        """Updates skipped because their loss or gradient was not finite."""

    def add(self, transitions: Iterable[tuple[Step, Step]]) -> None: ...

    def fit(self, steps: int) -> float: ...

    def calibrate(self) -> ModelError | None: ...

    def save(self) -> dict[str, bytes]: ...

    def restore(self, saved: Mapping[str, bytes]) -> None: ...

    def export_weights(self) -> dict[str, bytes]: ...

    def load_weights(self, exported: Mapping[str, bytes]) -> None: ...


@dataclass(frozen=True)
class ModelError:
    """How accurate a model is on real transitions that it was not fitted to.

    exact: share of predictions that are right; copy: the same for "nothing changes"; kept: share
    that passes the gate; exact_kept: share that is right among those (None: none passes); auroc:
    P(a wrong prediction is less certain than a right one), None if only one of the two occurred;
    n: number of transitions measured.
    """

    exact: float
    exact_kept: float | None
    kept: float
    copy: float
    auroc: float | None
    n: int


def outcome_of(step: Step, following: Step) -> Outcome:
    """The outcome of a row, read from the row and the next one. Unknown signals are left out."""
    return Outcome(
        following.obs_text,
        {s.name: s.value for s in step.signals if s.value is not None},
        step.ending == "terminated",
    )
