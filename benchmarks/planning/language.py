"""Language models on the key-and-door grid: the world model, Dyna with it, and ablations.

All but the world model's own figures come from whole runs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from actors.agents import planner
from actors.collecting.work import Lane, Work
from actors.config.schema import load
from actors.pool.local import LocalPool
from actors.run import run
from actors.running.progress import Progress
from actors.runs.directory import RunDirectory
from benchmarks.planning.held_out import returns
from benchmarks.planning.record import Row, ratio_row, row
from experience.models.weights import PolicyBundle, Weights
from experience.planning.world_models.language import LanguageWorldModel
from experience.planning.world_models.world_model import Prediction
from experience.replay.replay import Replay
from experience.shards.episodes.index import EpisodeIndex

CONFIG = "configs/keydoor.yaml"
CHAIN = "configs/keydoor-chain.yaml"
WORLD = "envs:KeyDoor-v0"
SUCCESS = 0.8


class Shuffled(LanguageWorldModel):
    """A control: each answer belongs to another question of the same batch.

    If planning still helped with it, the help would not come from the model.
    """

    def predict(self, observations: Sequence[str], actions: Sequence[str]) -> list[Prediction]:
        order = np.random.default_rng(len(observations)).permutation(len(observations))
        answers = super().predict(observations, actions)
        return [answers[i] for i in order]


KINDS: dict[str, list[str]] = {
    "model-free": ["planning.enabled=false"],
    "Dyna": [],
    "ungated": ["planning.model.trusted_accuracy=0.0"],
    "shuffled model": ["planning.model.trusted_accuracy=0.0"],
}


class Reached(Exception):
    """Ends a run: its held-out return has reached the goal, after `steps` real training steps."""

    def __init__(self, steps: int) -> None:
        super().__init__(f"{steps} real steps")
        self.steps = steps


def steps_to_success(
    kind: str, seed: int, budget: int, watch: Callable[[str], None] = lambda _: None
) -> float:
    """Real training steps until held-out success on the grid is 80 %; `budget` if it never is."""

    def named(line: str) -> None:
        watch(f"{kind} {line}")

    with shuffled(kind == "shuffled model"):
        return steps_to(SUCCESS, WORLD, CONFIG, KINDS[kind], seed, budget, named)


def steps_to(
    goal: float,
    world: str,
    path: str,
    settings: Sequence[str],
    seed: int,
    budget: int,
    watch: Callable[[str], None] = lambda _: None,
) -> float:
    """Real training steps until the mean held-out return reaches `goal`; `budget` if it never does.

    `watch` gets a line for each version that was evaluated.
    """
    with tempfile.TemporaryDirectory() as folder:
        config, origins = load(
            [path],
            [
                *settings,
                f"seed={seed}",
                f"budget.steps={budget}",
                f"runs_dir={folder}",
                "budget.updates=10000",
                "budget.minutes=60",
            ],
        )
        directory = RunDirectory.create(config, origins, ["bench"])
        seen: set[int] = set()
        # A version is evaluated while training goes on: its steps are counted when it is pushed.
        cost: dict[int, int] = {}

        def judge(progress: Progress) -> None:
            cost.setdefault(progress.version, progress.training_steps)
            for version, mean in progress.returns.get(world, {}).items():
                if mean.n >= config.evaluation.episodes and version not in seen:
                    seen.add(version)
                    watch(
                        f"seed {seed} v{version} {cost.get(version, 0)} steps: {mean.mean:.2f} "
                        f"({progress.seconds:.0f} s, model {progress.model_error}, "
                        f"{dict(progress.imagined)}, "
                        f"value {progress.metrics.get('value_explained', 0.0):.2f})"
                    )
                    if mean.mean >= goal:
                        raise Reached(cost.get(version, progress.training_steps))

        try:
            run(config, directory, judge)
        except Reached as reached:
            return float(reached.steps)
    return float(budget)


@contextmanager
def shuffled(really: bool) -> Iterator[None]:
    """Within the context, runs plan with `Shuffled` models, if `really`."""
    plain = planner.LanguageWorldModel
    if really:
        planner.LanguageWorldModel = Shuffled  # type: ignore[misc]
    try:
        yield
    finally:
        planner.LanguageWorldModel = plain  # type: ignore[misc]


def lived(folder: Path, seed: int, transitions: int) -> Replay:
    """Episodes of the expert and of random actions, half each, through the collector."""
    config, _ = load([CONFIG], [f"seed={seed}"])
    folder.mkdir(parents=True, exist_ok=True)
    index = EpisodeIndex.open(folder)
    pool = LocalPool(config, "bench", folder, index)
    replay = Replay(index, 2, 1)
    number = 0
    lanes: tuple[Lane, ...] = ("demonstration", "random")
    try:
        while len(replay.transitions) < transitions:
            works = []
            for task in range(number, number + 64):
                for lane in lanes:
                    name = f"{lane}/{task}"
                    works.append(
                        Work.named(name, env_id=WORLD, seed=seed * 1_000_000 + task, lane=lane)
                    )
            number += 64
            waiting = {w.work_id for w in works}
            pool.order(works)
            for _ in pool.shards(lambda: waiting <= replay.finished):  # noqa: B023
                replay.refresh()
    finally:
        pool.close()
    return replay


def world_model(seeds: int = 5) -> Iterator[Row]:
    """The model's exact matches on transitions kept out of its fit, and what its gate is worth."""
    errors = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            pairs = lived(Path(folder), seed, 4000).transitions[:]
        # In a random order: the model keeps a share out, which must not be the last episodes.
        order = np.random.default_rng(seed).permutation(len(pairs))[:4000]
        model = LanguageWorldModel(2, 64, 64, 0.95, seed)
        model.add([pairs[i] for i in order])
        for _ in range(15):
            model.fit(100)
        error = model.calibrate(400)
        assert error is not None
        errors.append(error)
    note = (
        "key-door grid 5×5, 4,000 transitions of expert and random episodes, 1,500 updates, "
        "100 k parameters"
    )
    yield row(
        "LM world model: exact match on kept-out transitions",
        "none; our own trial: .89",
        "share",
        [e.exact for e in errors],
        ">= 0.85",
        {"copy baseline": float(np.mean([e.copy for e in errors]))},
        note,
    )
    yield row(
        "LM world model: AUROC of its uncertainty for being wrong",
        "none; our own trial: .75",
        "AUROC",
        [e.auroc for e in errors if e.auroc is not None],
        ">= 0.7",
        {},
        note,
    )
    yield row(
        "LM world model: exact match of what the gate keeps, over all",
        "none",
        "difference",
        [e.exact_kept - e.exact for e in errors if e.exact_kept is not None],
        ">= 0.0",
        {"share kept": float(np.mean([e.kept for e in errors]))},
        note,
    )


def hierarchy(seeds: int = 5, budget: int = 25_000) -> Iterator[Row]:
    """Two keys and two doors, one after the other: subgoals and moves against moves alone."""
    without_options = ['planning.options.library=""']
    flat = [success_after(budget, CHAIN, without_options, seed) for seed in range(seeds)]
    deep = [success_after(budget, CHAIN, [], seed) for seed in range(seeds)]
    yield row(
        f"two-stage key-door chain: held-out return after {budget:,} real steps, hierarchical "
        "less flat",
        "none for an LM; options help most where rewards are far (Sutton, Precup & Singh 1999)",
        "points of 1",
        [d - f for d, f in zip(deep, flat, strict=True)],
        ">= 0.2",
        {"hierarchical": float(np.mean(deep)), "flat": float(np.mean(flat))},
        f"5×5, 60 turns an episode, a reward at the last door only, no demonstrations; {CHAIN}",
    )


def success_after(budget: int, path: str, settings: Sequence[str], seed: int) -> float:
    """Mean held-out return of a run's last policy, after `budget` real training steps."""
    return last_return(
        path,
        [
            *settings,
            f"budget.steps={budget}",
            "budget.updates=10000",
            "evaluation.final_episodes=96",
        ],
        seed,
    )


def last_return(path: str, settings: Sequence[str], seed: int) -> float:
    """Mean held-out return of a run's last version, in the configuration's only world."""
    with tempfile.TemporaryDirectory() as folder:
        config, origins = load(
            [path],
            [
                "budget.minutes=60",
                "evaluation.every=1000",
                *settings,
                f"seed={seed}",
                f"runs_dir={folder}",
            ],
        )
        progress = run(config, RunDirectory.create(config, origins, ["bench"]))
        (by_version,) = progress.returns.values()
        return by_version[progress.version].mean


def cartpole(seeds: int = 5) -> Iterator[Row]:
    """CartPole in numbers: equal updates with and without lookahead in an ensemble of models."""
    path = "configs/cartpole.yaml"
    no_lookahead = ["planning.lookahead.candidates=0"]
    plain = [last_return(path, no_lookahead, seed) for seed in range(seeds)]
    thinking = [last_return(path, [], seed) for seed in range(seeds)]
    yield ratio_row(
        "CartPole in numbers: held-out turns balanced after ten updates, thinking over not "
        "thinking",
        "none for an LM; PETS: an ensemble's plans in few trials (Chua et al. 2018)",
        "ratio",
        thinking,
        plain,
        "",
        {"turns, thinking": float(np.mean(thinking)), "turns, not": float(np.mean(plain))},
        "configs/cartpole.yaml; each way learns from its own episodes",
    )


def lookahead(seeds: int = 2) -> Iterator[Row]:
    """A frozen policy without lookahead, and with it: in the model, in forks, in a shuffled model.

    A fork of the world is a perfect model: the most that lookahead can be worth.
    """
    found, steps = zip(*(thought(seed) for seed in range(seeds)), strict=True)
    success = {}
    for way in found[0]:
        success[f"success {way}"] = float(np.mean([of_seed[way] for of_seed in found]))
    yield row(
        "lookahead: held-out success with it less without, same policy",
        "WebDreamer: 17.6 → 23.6 % on VisualWebArena",
        "points of 1",
        [f["in the model"] - f["without"] for f in found],
        ">= 0.2",
        success,
        "by sweeps over 64 states, or a tree of as many; policy and model of thirty updates "
        "without planning and "
        f"{' and '.join(f'{n:,}' for n in steps)} real steps; one real action a turn",
    )


def thought(seed: int, updates: int = 30, episodes: int = 96) -> tuple[dict[str, float], int]:
    """(held-out success of a run's last policy by way of lookahead, the run's training steps)."""
    thinking = ["planning.lookahead.candidates=8", "planning.lookahead.search=sweeps"]
    tree = ["planning.lookahead.candidates=8", "planning.lookahead.search=gumbel"]
    forks = "planning.lookahead.simulator=fork"
    ways = {
        "without": [],
        "in the model": thinking,
        "in forks": [*thinking, forks],
        "in a shuffled model": thinking,
        "by tree search in the model": tree,
        "by tree search in forks": [*tree, forks],
    }
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        config, origins = load(
            [CONFIG],
            [
                "planning.sweeps.roots=0",  # no Dyna: the policy has not learned from the model
                "planning.model.fit_steps=500",
                f"budget.updates={updates}",
                "budget.minutes=60",
                f"seed={seed}",
                f"runs_dir={folder}",
                "evaluation.every=1000",
                "evaluation.final_episodes=8",
            ],
        )
        directory = RunDirectory.create(config, origins, ["bench"])
        steps = run(config, directory).training_steps
        saved = directory.checkpoints.newest()
        assert saved is not None
        needed = ("value.safetensors", "world_model.json", "world_model_mean.safetensors")
        policy = PolicyBundle(
            Weights.read(updates, saved["policy.safetensors"]),
            planner={name: saved[name] for name in needed},
        )
        for way, settings in ways.items():
            with shuffled(way == "in a shuffled model"):
                found[way] = evaluated(policy, seed, episodes, settings, Path(folder) / way)
    return found, steps


def evaluated(
    policy: PolicyBundle, seed: int, episodes: int, settings: Sequence[str], folder: Path
) -> float:
    """Mean held-out return of a frozen policy."""
    config, _ = load([CONFIG], [*settings, f"seed={seed}"])
    return float(np.mean(returns(config, WORLD, policy, episodes, folder)))


def dyna(seeds: int = 2, budget: int = 40_000) -> Iterator[Row]:
    """Real steps until 80 % of held-out grids are solved: model-free, Dyna, and two spoilt Dynas.

    A spoilt Dyna gets half the steps of model-free learning: beyond them it has missed Dyna's goal.
    """
    taken = {"model-free": [steps_to_success("model-free", seed, budget) for seed in range(seeds)]}
    plain = [int(steps) for steps in taken["model-free"]]
    taken["Dyna"] = [steps_to_success("Dyna", seed, plain[seed]) for seed in range(seeds)]
    for kind in ("ungated", "shuffled model"):
        taken[kind] = [steps_to_success(kind, seed, plain[seed] // 2) for seed in range(seeds)]
    yield from dyna_rows(taken, budget)


def dyna_rows(taken: dict[str, list[float]], budget: int) -> Iterator[Row]:
    """The rows of these steps. A run without success counts with its cap (model-free: `budget`)."""
    plain = taken["model-free"]
    yield ratio_row(
        "LM Dyna: real steps to 80 % success over those of model-free learning, equal seeds",
        "none for an LM; MBPO, S&B fig. 8.2",
        "ratio",
        taken["Dyna"],
        plain,
        "<= 0.5",
        {f"real steps, {kind}": float(np.mean(taken[kind])) for kind in ("model-free", "Dyna")}
        | {"model-free, not reached": sum(steps >= budget for steps in plain)},
        "key-door grid 5×5, four demonstrations, the same settings but for planning; whole runs",
    )
    for kind, goal, what in (
        ("ungated", "", "an ablation without a goal of its own"),
        ("shuffled model", ">= 0.49", "a control: it must not get there"),
    ):
        spoilt = taken[kind]
        yield ratio_row(
            f"LM Dyna, {kind}: the same ratio",
            "none",
            "ratio",
            spoilt,
            plain[: len(spoilt)],
            goal,
            {
                "real steps": float(np.mean(spoilt)),
                "not reached": sum(s >= p // 2 for s, p in zip(spoilt, plain, strict=False)),
            },
            f"{what}; 0.5 is its cap, counted where it did not get there",
        )
