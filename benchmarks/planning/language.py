"""Language models on the key-and-door grid: the world model, Dyna with it, and its ablations, by whole runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence

import numpy as np

from actors import parts
from actors.config import Config, load
from actors.parts import Progress
from actors.run import run
from actors.rundir import RunDirectory
from experience.planning.world_model import LanguageWorldModel, Prediction

CONFIG = "configs/keydoor.yaml"
WORLD = "envs:KeyDoor-v0"
SUCCESS = 0.8


class Shuffled(LanguageWorldModel):
    """A model whose answers belong to other questions of the same batch: what planning must not survive."""

    def predict(self, observations: Sequence[str], actions: Sequence[str]) -> list[Prediction]:
        order = np.random.default_rng(len(observations)).permutation(len(observations))
        answers = super().predict(observations, actions)
        return [answers[i] for i in order]


KINDS: dict[str, list[str]] = {
    "model-free": ["planning.enabled=false"],
    "Dyna": [],
    "ungated": ["planning.trusted_accuracy=0.0"],
    "shuffled model": ["planning.trusted_accuracy=0.0"]}


class Reached(Exception):
    """The success that was asked for, after so many real training steps."""

    def __init__(self, steps: int) -> None:
        super().__init__(f"{steps} real steps")
        self.steps = steps


def steps_to_success(kind: str, seed: int, budget: int, watch: Callable[[str], None] = lambda _: None) -> float:
    """Real training steps until held-out success first reaches 80 %; `budget` if it does not."""
    with tempfile.TemporaryDirectory() as folder:
        config, origins = load([CONFIG], [*KINDS[kind], f"seed={seed}", f"budget.steps={budget}", f"runs_dir={folder}",
                                          "budget.updates=10000", "budget.minutes=60"])
        directory = RunDirectory.create(config, origins, ["bench"])
        seen: set[int] = set()
        # A version is evaluated while training goes on: what it cost is counted when it was pushed.
        cost: dict[int, int] = {}

        def judge(progress: Progress) -> None:
            cost.setdefault(progress.version, progress.training_steps)
            for version, mean in progress.returns.get(WORLD, {}).items():
                if mean.n >= config.evaluation.episodes and version not in seen:
                    seen.add(version)
                    watch(f"{kind} seed {seed} v{version} {cost.get(version, 0)} steps: {mean.mean:.2f} "
                          f"({progress.seconds:.0f} s, model {progress.model_error}, {dict(progress.imagined)})")
                    if mean.mean >= SUCCESS:
                        raise Reached(cost.get(version, progress.training_steps))

        plain = parts.make_world_model
        if kind == "shuffled model":
            parts.make_world_model = _shuffled
        try:
            run(config, directory, judge)
        except Reached as reached:
            return float(reached.steps)
        finally:
            parts.make_world_model = plain
    return float(budget)


def _shuffled(config: Config) -> LanguageWorldModel:
    planning = config.planning
    return Shuffled(planning.layers, planning.width, config.policy.context, planning.trusted_accuracy, config.seed)
