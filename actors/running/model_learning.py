"""Model learning: fits the world model to all transitions read so far, and sets its gate anew."""

from __future__ import annotations

import math
from collections.abc import Callable

from actors.running.events import Events, Learned
from actors.running.phases import Phases
from actors.running.progress import Progress
from experience.learning.learner import Learner
from experience.planning.world_models.world_model import LearnedModel
from experience.replay.replay import Replay


class ModelLearning:
    """Fits `world` (None: nothing to fit). Each transition of the replay is given to it once."""

    def __init__(
        self,
        world: LearnedModel | None,
        replay: Replay,
        learner: Learner,
        is_used_at: Callable[[int], bool],
        progress: Progress,
        events: Events,
    ) -> None:
        self.world = world
        self.seen = 0
        """Transitions that the model was given."""
        self._replay = replay
        self._learner = learner
        self._is_used_at = is_used_at
        self._progress = progress
        self._events = events

    def begin(self, phases: Phases, steps: int) -> None:
        """The first `steps` optimiser steps, as a phase of the run."""
        if self.world is not None:
            self._give_transitions(self.world)
            self._note(self.world, phases.fit(steps, self.world.fit))

    def fit(self, steps: int) -> None:
        """`steps` more optimiser steps, on all transitions read so far."""
        if self.world is not None:
            self._give_transitions(self.world)
            self._note(self.world, self.world.fit(steps))

    def resume(self, seen: int, saved: dict[str, bytes]) -> None:
        """Goes on from a checkpoint in which the model knew the first `seen` transitions."""
        if self.world is not None:
            self.seen = seen
            self.world.add(self._replay.transitions[:seen])
            self.world.restore(saved)

    def _give_transitions(self, world: LearnedModel) -> None:
        new = self._replay.transitions[self.seen :]
        self.seen += len(new)
        world.add(new)

    def _note(self, world: LearnedModel, loss: float) -> None:
        if not math.isnan(loss):
            self._events.emit(Learned({"model_nll": loss}))
        if self._is_used_at(self._learner.version + 1):
            # measured only when the model is about to be used: a calibration costs a second
            self._progress.model_error = world.calibrate() or self._progress.model_error
