"""Curation: options are found in the best episodes, tested in the world, pushed, and retired."""

from __future__ import annotations

from collections.abc import Callable

from actors.agents.skills import Skills
from actors.engines.engine import Engine
from actors.running.progress import Progress
from experience.learning.learner import Learner
from experience.replay.replay import Replay

_RECENT_EPISODES = 400
"""Real training episodes in which skills are found and by which they are judged."""


class Curation:
    """Keeps the library of options of a run, and gives it to the learner."""

    def __init__(
        self,
        skills: Skills,
        learner: Learner,
        replay: Replay,
        engine: Engine,
        progress: Progress,
        is_due: Callable[[int], bool],
    ) -> None:
        self.skills = skills
        self._learner = learner
        self._replay = replay
        self._engine = engine
        self._progress = progress
        self._is_due = is_due

    def curate(self) -> None:
        """Looks for new skills and retires bad ones, if it is time."""
        if not self.skills.most or not self._is_due(self._learner.version + 1):
            return
        recent = self._replay.episodes["real"][-_RECENT_EPISODES:]
        best = [
            episode
            for episode in recent
            if episode.ending == "terminated" and (episode.total_reward or 0.0) > 0
        ]
        changed = self.skills.curate(best, recent)
        if changed or len(self.skills.library):
            self._learner.options = self.skills.library.dump()
        if changed:
            self._learner.show(self.skills.turns(best, self._engine))
        self._progress.skills = len(self.skills.library)
