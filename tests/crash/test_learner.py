"""A learner killed anywhere goes on as if nothing had happened: the same weights, and every group
learned from once."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.runs.directory import RunDirectory
from experience.errors import ShardError
from experience.learning.learner import LearnerSettings
from experience.learning.token_learner import TokenLearner
from experience.models.tokenizer import ByteTokenizer
from experience.models.transformer import Transformer, TransformerShape
from experience.policy import Decision, VersionSpan
from experience.replay.replay import Replay
from experience.shards.episodes.index import EpisodeIndex
from experience.shards.journal import Journal
from experience.step import Step
from tests.conftest import CATALOGUE, make_step

GROUP, GROUPS, PER_UPDATE = 4, 36, 2


def a_store(directory: Path) -> None:
    """Groups of one-turn episodes, and some demonstrations."""
    journal, rng, tokens = (
        Journal(directory / "w", CATALOGUE),
        np.random.default_rng(0),
        ByteTokenizer(),
    )
    stream = b"s" * 16
    for number in range(GROUPS + 3):
        shown = number < 3
        for _ in range(GROUP):
            action = tokens.action(f"press {rng.integers(4)}")
            decision = Decision(
                "press",
                0,
                tokens.prompt(f"page {number}"),
                action,
                rng.normal(-1, 0.1, len(action)).astype(np.float32),
                (VersionSpan(0, len(action)),),
                token_exact=True,
                behaviour_id="expert" if shown else "small",
                sampled=not shown,
            )
            common = {
                "work_id": rng.bytes(16),
                "source": "demonstration" if shown else "real",
                "group_id": "" if shown else f"0-{number}",
            }
            journal.append(
                make_step(
                    journal.next_t(stream),
                    stream,
                    decision=decision,
                    ending="terminated",
                    reward=float(rng.integers(3)),
                    discount=0.0,
                    **common,
                )
            )
            journal.append(
                make_step(
                    journal.next_t(stream), stream, closing=True, ending="terminated", **common
                )
            )
    journal.close()


def begun(
    run: Path, settings: LearnerSettings
) -> tuple[RunDirectory, TokenLearner, Replay, list[Step]]:
    """A new learner beside what the run's store holds: its replay, and the steps that were shown."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    directory = RunDirectory(run)
    learner = TokenLearner(
        Transformer(TransformerShape(ByteTokenizer.size, 1, 16, 2, 64)), settings
    )
    replay = Replay(EpisodeIndex.open(directory.shards), GROUP, max_lag=1000, seed=0)
    return (
        directory,
        learner,
        replay,
        [step for episode in replay.demonstrations() for step in episode.steps],
    )


def learn(run: Path, patience: float = 0.0) -> str:
    """The learner's side of a run: resumes if it can, learns from all there is, saving after each
    update."""
    directory, learner, replay, shown = begun(run, LearnerSettings(minibatches=2))
    saved = directory.checkpoints.newest()
    if saved is None:
        learner.imitate(shown, 2)
    else:
        learner.restore(saved, shown, replay.restore(saved))
    while replay.ready_groups:
        learner.improve(replay.window(learner.version, PER_UPDATE))
        learner.publish()
        directory.checkpoints.save(learner.version, learner.save() | replay.save())
        time.sleep(patience)
    return learner.policy().weights.sha256


def consumed(run: Path) -> list[list[object]]:
    saved = RunDirectory(run).checkpoints.newest()
    assert saved is not None
    return list(json.loads(saved["replay.json"])["consumed"])


@cache
def forking() -> ForkServerContext:
    """Forks from a process without threads: torch's imports crash in a fork of this one."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload([__name__])
    first = forks.Process(target=int)  # takes the time of the server's start
    first.start()
    first.join()
    return forks


def in_a_child(run: Path, kill_after: float | None) -> bool:
    """Whether a learner in a process of its own came to its end; killed after `kill_after` seconds otherwise."""
    child = forking().Process(target=learn, args=(run,))
    child.start()
    if kill_after is not None:
        time.sleep(kill_after)
        child.kill()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL), "a learner that resumes never fails"
    return child.exitcode == 0


@pytest.mark.timeout(0)
def test_a_learner_killed_at_random_ends_with_the_same_weights_and_each_group_once(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    wanted = 200 if request.config.getoption("--long") else 6
    (tmp_path / "plain" / "checkpoints").mkdir(parents=True)
    a_store(tmp_path / "plain" / "shards")
    forking()
    started = time.monotonic()
    assert in_a_child(tmp_path / "plain", None)
    whole = time.monotonic() - started
    truth, order = _final(tmp_path / "plain"), consumed(tmp_path / "plain")
    assert len(order) == GROUPS
    rng, kills, rounds = random.Random(0), 0, 0
    while kills < wanted:
        rounds += 1
        run = tmp_path / f"killed-{rounds}"
        (run / "checkpoints").mkdir(parents=True)
        os.symlink(tmp_path / "plain" / "shards", run / "shards")
        while not in_a_child(run, rng.uniform(0, whole)):
            kills += 1
        assert _final(run) == truth
        assert consumed(run) == order


def _final(run: Path) -> bytes:
    saved = RunDirectory(run).checkpoints.newest()
    assert saved is not None
    return saved["policy.safetensors"] + saved["optimizer.safetensors"]


def test_a_checkpoint_of_another_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir(parents=True)
    a_store(tmp_path / "shards")
    learn(tmp_path)
    saved = RunDirectory(tmp_path).checkpoints.newest()
    assert saved is not None
    with pytest.raises(ShardError, match="another store"):
        (tmp_path / "other").mkdir()
        Replay(EpisodeIndex.open(tmp_path / "other"), GROUP, max_lag=1000).restore(saved)


def imitate(run: Path, passes: int, stop_after: int | None = None) -> bytes:
    """The first imitation of a run, saved at every third step; stopped after some, and then as a
    crash leaves it."""
    directory, learner, replay, shown = begun(run, LearnerSettings(batch_turns=2))
    if saved := directory.checkpoints.newest():
        learner.restore(saved, shown, replay.restore(saved))

    def watch(done: int, steps: int) -> bool:
        if done % 3 == 0:
            directory.checkpoints.save(0, learner.save() | replay.save(), imitated=done)
        return done != stop_after

    told = learner.imitate(shown, passes, watch)
    assert told["imitation_steps"] == (stop_after or passes * len(shown) // 2)
    return learner.policy().weights.data


def test_an_imitation_stopped_anywhere_goes_on_from_its_last_checkpoint_to_the_same_weights(
    tmp_path: Path,
) -> None:
    a_store(tmp_path / "shards")
    for name in ("whole", "stopped"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        os.symlink(tmp_path / "shards", tmp_path / name / "shards")
    truth = imitate(tmp_path / "whole", 4)
    for stop in (2, 7, 11, 20):
        imitate(tmp_path / "stopped", 4, stop)
        kept = [p.name for p in (tmp_path / "stopped" / "checkpoints").iterdir()]
        assert kept == ([f"imitation-{stop // 3 * 3:08d}"] if stop > 2 else []), (
            "the newest alone is kept"
        )
    assert imitate(tmp_path / "stopped", 4) == truth
