"""Agentic experience: what happened, and what follows from it.

`import experience as xp`, then `xp.open("runs/latest")`, or `xp.run(...)`: docs/python-api.md. The
names below are the public words of the library. Each is imported when it is first used, so that
`import experience` loads neither NumPy nor PyArrow nor PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experience.episode import Episode, EpisodeReader, Group
    from experience.errors import ConfigError, EnvironmentFailure, RecordError, ShardError, XpError
    from experience.learning.learner import Learner, LearnerSettings
    from experience.learning.objectives import Objective
    from experience.learning.token_learner import TokenLearner
    from experience.models.weights import PolicyBundle, Weights
    from experience.opened.calling import collect, evaluate, run
    from experience.opened.opening import open
    from experience.opened.picture import Picture
    from experience.opened.run import Run
    from experience.options.option import Library, Option
    from experience.policy import Decision, VersionSpan
    from experience.reward import RewardModel
    from experience.saving import Saveable
    from experience.shards.amend import Amendment
    from experience.shards.catalog import Catalog
    from experience.shards.journal import Journal
    from experience.shards.selection import Steps
    from experience.signal import Signal, SignalKind
    from experience.step import Blob, Boundary, Step

__version__ = "0.1.0"

_MODULES = {
    "episode": ("Episode", "EpisodeReader", "Group"),
    "errors": ("ConfigError", "EnvironmentFailure", "RecordError", "ShardError", "XpError"),
    "learning.learner": ("Learner", "LearnerSettings"),
    "learning.objectives": ("Objective",),
    "learning.token_learner": ("TokenLearner",),
    "models.weights": ("PolicyBundle", "Weights"),
    "opened.calling": ("collect", "evaluate", "run"),
    "opened.opening": ("open",),
    "opened.picture": ("Picture",),
    "opened.run": ("Run",),
    "options.option": ("Library", "Option"),
    "policy": ("Decision", "VersionSpan"),
    "reward": ("RewardModel",),
    "saving": ("Saveable",),
    "shards.amend": ("Amendment",),
    "shards.catalog": ("Catalog",),
    "shards.journal": ("Journal",),
    "shards.selection": ("Steps",),
    "signal": ("Signal", "SignalKind"),
    "step": ("Blob", "Boundary", "Step"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Amendment",
    "Blob",
    "Boundary",
    "Catalog",
    "ConfigError",
    "Decision",
    "EnvironmentFailure",
    "Episode",
    "EpisodeReader",
    "Group",
    "Journal",
    "Learner",
    "LearnerSettings",
    "Library",
    "Objective",
    "Option",
    "Picture",
    "PolicyBundle",
    "RecordError",
    "RewardModel",
    "Run",
    "Saveable",
    "ShardError",
    "Signal",
    "SignalKind",
    "Step",
    "Steps",
    "TokenLearner",
    "VersionSpan",
    "Weights",
    "XpError",
    "collect",
    "evaluate",
    "open",
    "run",
]


def __getattr__(name: str) -> Any:
    """Imports a public name from its module. Raises AttributeError for other names."""
    if name not in _HOME:
        raise AttributeError(f"module 'experience' has no attribute {name!r}")
    return getattr(import_module(f"experience.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
