"""The learner of a run whose policy is not trained here, such as a model behind a server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from experience.episode import Group
from experience.learning.batch import Turn
from experience.learning.learner import Watch, to_the_end
from experience.models.weights import PolicyBundle, Weights
from experience.step import Step
from experience.text.strict_json import dumps


class NullLearner:
    """Learns nothing. Its versions count rounds of experience, and its weights are empty."""

    skipped = 0
    value = None

    def __init__(self) -> None:
        self.version = 0
        self.options = b""
        self.planner: Mapping[str, bytes] = {}
        self._bundle = PolicyBundle(Weights(0, b"", ""))

    def policy(self) -> PolicyBundle:
        # The same object while nothing changes: whoever sends bundles sends each object once.
        self._bundle = self._bundle.updated(
            Weights(self.version, b"", ""), self.options, self.planner
        )
        return self._bundle

    def publish(self) -> PolicyBundle:
        self.version += 1
        return self.policy()

    def imitate(
        self, demonstrations: Iterable[Step], passes: float, watch: Watch = to_the_end
    ) -> dict[str, float]:
        return {}

    def improve(self, groups: Sequence[Group], rate: float = 1.0) -> dict[str, float]:
        return {}

    def imitate_plans(self, plans: Sequence[Turn], rate: float = 1.0) -> dict[str, float]:
        return {}

    def show(self, turns: Iterable[Turn]) -> None:
        pass

    def save(self) -> dict[str, bytes]:
        return {"learner.json": dumps({"version": self.version}).encode()}

    def restore(
        self,
        saved: Mapping[str, bytes],
        demonstrations: Iterable[Step],
        learned_from: Iterable[Group],
    ) -> None:
        self.version = json.loads(saved["learner.json"])["version"]
