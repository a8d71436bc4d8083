"""Checkpoints: all that a run goes on from, saved by one rename and restored from storage alone."""

from __future__ import annotations

import json
from collections.abc import Callable

from actors.agents.skills import Skills
from actors.pool.evaluator import Evaluator
from actors.running.model_learning import ModelLearning
from actors.running.phases import Phases
from actors.running.progress import Progress
from actors.runs.directory import RunDirectory
from experience.learning.learner import Learner
from experience.options.option import Library
from experience.replay.mixture import Mixture
from experience.replay.replay import Replay
from experience.shards.cold.snapshot import read_snapshot
from experience.step import Step
from experience.text.strict_json import dumps


class Checkpoints:
    """Saves weights, moments, world model, random states, options and the cursor into the store."""

    def __init__(
        self,
        directory: RunDirectory,
        learner: Learner,
        replay: Replay,
        mixture: Mixture,
        model: ModelLearning,
        skills: Skills,
        phases: Phases,
        evaluator: Evaluator,
        progress: Progress,
        demonstrations: Callable[[], list[Step]],
    ) -> None:
        self._directory = directory
        self._learner = learner
        self._replay = replay
        self._mixture = mixture
        self._model = model
        self._skills = skills
        self._phases = phases
        self._evaluator = evaluator
        self._progress = progress
        self._demonstrations = demonstrations

    def save(self, imitated: int | None = None) -> None:
        """One atomic checkpoint. `imitated`: optimiser steps done of an imitation not yet over."""
        world = self._model.world if imitated is None else None
        about = {
            "seen_transitions": self._model.seen,
            "imitating": imitated is not None,
            "cut_short": self._progress.cut_short,
            "groups": self._progress.groups,
            "not_shown": sorted(work_id.hex() for work_id in self._phases.not_shown),
        }
        files = {
            **self._learner.save(),
            **self._replay.save(),
            **self._mixture.save(),
            **(world.save() if world is not None else {}),
            "parts.json": dumps(about).encode(),
            "options.json": self._skills.library.dump(),
        }
        self._directory.checkpoints.save(self._learner.version, files, imitated)

    def restore(self) -> bool:
        """Goes on from the newest checkpoint, once the store's rows are in the replay.

        False where there is none, and all is to be begun.
        """
        saved = self._directory.checkpoints.newest()
        if saved is None:
            return False
        about = json.loads(saved.get("parts.json", b"{}"))
        self._phases.is_imitating = about.get("imitating", False)
        self._phases.not_shown = {bytes.fromhex(name) for name in about.get("not_shown", ())}
        self._progress.cut_short |= about.get("cut_short", {})
        self._progress.groups.update(about.get("groups", {}))
        has_removed_rows = bool(read_snapshot(self._directory.shards).removed_spans)
        unfinished = self._replay.restore(saved, rows_removed=has_removed_rows)
        self._mixture.restore(saved)
        self._learner.restore(saved, self._demonstrations(), unfinished)
        if "world_model.json" in saved:
            self._model.resume(about["seen_transitions"], saved)
        if "options.json" in saved:
            library = Library.load(saved["options.json"])
            self._skills.resume(library, self._replay.work_ids())
            self._learner.options = saved["options.json"] if len(library) else b""
        self._evaluator.ordered = self._replay.evaluated_versions()
        return True
