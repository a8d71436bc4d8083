"""The seam between a run and what learns in it: the `Learner` protocol and its settings.

This file imports nothing heavy, so that the configuration can read its defaults from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from experience.learning.recipes.recipe import Recipe
from experience.saving import Saveable

if TYPE_CHECKING:
    from experience.episode import Group
    from experience.learning.batch import Turn
    from experience.learning.value import ValueFunction
    from experience.models.weights import PolicyBundle
    from experience.step import Step

Watch = Callable[[int, int], bool]
"""Takes the number of finished steps and of all steps; returns whether imitation goes on."""


def to_the_end(done: int, steps: int) -> bool:
    """A `Watch` that never stops imitation."""
    return True


@dataclass(frozen=True)
class LearnerSettings:
    """The settings of a `TokenLearner`. The configuration (`learning.*`) takes its defaults from
    these fields.

    Learning rates are per optimiser step. `imitation_weight` is c in
    L = L_objective + c·L_NLL(demonstrations). `imitation_ratio` is the number of imitated turns for
    each turn of experience.

    `observation_weight` weighs the NLL of the demonstrations' observations. It lets a model that
    starts from random weights learn the worlds' language (early experience, arXiv 2510.08558).

    `recipe` is the algorithm: the name of a row in `recipes.table`, a mapping of cells with `like`,
    or "package:Class". See docs/learning.md.

    `precision` is float32, bfloat16, or auto: bfloat16 on a GPU. With `checkpointing`, activations
    are computed again in the backward pass, for less memory and more time.
    """

    learning_rate: float = 3e-4
    imitation_rate: float = 2e-3
    imitation_weight: float = 0.05
    imitation_ratio: float = 1.0
    observation_weight: float = 0.2
    recipe: str | Mapping[str, Any] | Recipe = "grpo"
    minibatches: int = 4
    micro_batch_tokens: int = 8192
    batch_turns: int = 16
    gradient_norm: float = 1.0
    remembered_successes: int = 2000
    precision: str = "auto"
    checkpointing: bool = False
    seed: int = 0


class Learner(Saveable, Protocol):
    """Improves a policy from experience. `version` rises by one with each `publish`."""

    version: int
    options: bytes
    """The library of options that the policy was learned with (`Library.dump`); empty for none."""
    planner: Mapping[str, bytes]
    """Weights by name that a planner needs where the policy acts; empty for none."""

    @property
    def skipped(self) -> int:
        """The number of updates that were left out because they were not finite."""

    @property
    def value(self) -> ValueFunction | None:
        """The value function that this learner fits, if it has one."""

    def policy(self) -> PolicyBundle:
        """The present policy. Calls between two changes return the same object."""

    def publish(self) -> PolicyBundle:
        """Makes the present policy a new version and returns it."""

    def imitate(
        self, demonstrations: Iterable[Step], passes: float, watch: Watch = to_the_end
    ) -> dict[str, float]:
        """Learns from demonstrations, before any experience; returns metrics."""

    def improve(self, groups: Sequence[Group], rate: float = 1.0) -> dict[str, float]:
        """Learns from groups of episodes at `rate` times the learning rate; returns metrics."""

    def imitate_plans(self, plans: Sequence[Turn], rate: float = 1.0) -> dict[str, float]:
        """Learns what a planner chose at `rate` times the imitation rate; returns metrics."""

    def show(self, turns: Iterable[Turn]) -> None:
        """Adds turns that are imitated from now on."""

    def restore(
        self,
        saved: Mapping[str, bytes],
        demonstrations: Iterable[Step],
        learned_from: Iterable[Group],
    ) -> None:
        """Continues where `save` was called, given the same demonstrations and the groups that
        were learned from until then, in their order."""
