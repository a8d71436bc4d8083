"""A shared engine: batches as requests come, futures, versions for all who ask."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from actors import ROOT
from actors.collecting.loop.lanes import Lanes
from actors.config.schema import Config
from actors.engines.engine import Situation
from actors.engines.serving.shared import SharedEngine
from experience.errors import EngineError
from experience.models.weights import PolicyBundle, Weights
from experience.policy import Decision
from experience.reward import RewardModel
from experience.shards.catalog import Catalog


class Recording:
    """Answers with its version, and records its batches. It waits while `may_go` is not set."""

    def __init__(self) -> None:
        self.version = 0
        self.batches: list[int] = []
        self.may_go = threading.Event()
        self.may_go.set()
        self.is_busy = threading.Event()

    def load(self, weights: Weights) -> None:
        self.version = weights.version

    def encode(self, situation: Situation, action: str) -> Decision | None:
        return None

    def act(self, situations: Sequence[Situation], temperature: float) -> list[Decision]:
        self.is_busy.set()
        assert self.may_go.wait(20)
        self.batches.append(len(situations))
        if any(situation.observation == "bad" for situation in situations):
            raise EngineError("no answer")
        return [Decision(s.observation, self.version) for s in situations]


class Server(Recording):
    answers_alone = True

    def pinned(self) -> Server:
        return Server()

    def act(self, situations: Sequence[Situation], temperature: float) -> list[Decision]:
        if situations[0].observation == "slow":
            return super().act(situations, temperature)
        return [Decision(s.observation, self.version) for s in situations]


def weights(version: int) -> Weights:
    return Weights.read(version, b"")


def test_what_waits_while_the_engine_is_busy_is_answered_in_one_batch() -> None:
    engine = Recording()
    shared = SharedEngine(lambda: engine)
    engine.may_go.clear()
    first = shared.ask(Situation("first"), 1.0)
    assert engine.is_busy.wait(20)
    later = [shared.ask(Situation(f"{n}"), 1.0) for n in range(5)]
    engine.may_go.set()
    assert first.result(20).text == "first"
    assert [answer.result(20).text for answer in later] == ["0", "1", "2", "3", "4"]
    assert engine.batches == [1, 5]


def test_a_slow_request_of_a_server_holds_up_nobody() -> None:
    engine = Server()
    shared = SharedEngine(lambda: engine)
    engine.may_go.clear()
    slow = shared.ask(Situation("slow"), 1.0)
    assert engine.is_busy.wait(20)
    assert shared.ask(Situation("quick"), 1.0).result(20).text == "quick"
    assert not slow.done()
    engine.may_go.set()
    assert slow.result(20).text == "slow"


def test_weights_come_once_and_older_ones_never() -> None:
    shared = SharedEngine(Recording)
    assert shared.version == -1
    assert shared.load(weights(3)) == 3
    assert shared.load(weights(2)) == 3
    assert shared.ask(Situation("x"), 1.0).result(20).policy_version == 3


@pytest.mark.parametrize("kind", [Recording, Server])
def test_a_pinned_version_answers_beside_the_newest(kind: type[Recording]) -> None:
    shared = SharedEngine(kind)
    for version in (1, 2):
        shared.pin(weights(version))
    shared.load(weights(5))
    asked = [shared.ask(Situation("x"), 0.0, version) for version in (1, None, 2, 1, None)]
    assert [answer.result(20).policy_version for answer in asked] == [1, 5, 2, 1, 5]


def test_a_version_is_kept_until_the_last_who_pinned_it_lets_it_go() -> None:
    shared = SharedEngine(Recording)
    shared.pin(weights(1))
    shared.pin(weights(1))
    shared.unpin(1)
    assert shared.ask(Situation("x"), 0.0, 1).result(20).policy_version == 1
    shared.unpin(1)
    with pytest.raises(EngineError, match="version 1 is not pinned"):
        shared.ask(Situation("x"), 0.0, 1).result(20)


def test_an_error_belongs_to_those_who_asked_and_the_engine_goes_on() -> None:
    shared = SharedEngine(Recording)
    with pytest.raises(EngineError, match="no answer"):
        shared.ask(Situation("bad"), 1.0).result(20)
    assert shared.ask(Situation("good"), 1.0).result(20).text == "good"


def test_an_error_of_new_weights_reaches_whoever_brought_them() -> None:
    class Refusing(Recording):
        def load(self, weights: Weights) -> None:
            raise EngineError("not these")

    shared = SharedEngine(Refusing)
    with pytest.raises(EngineError, match="not these"):
        shared.load(weights(1))
    assert shared.ask(Situation("x"), 1.0).result(20).policy_version == 0


def test_evaluations_of_two_versions_are_each_answered_by_their_own() -> None:
    """Where an engine holds versions side by side, no evaluation waits for another's weights."""
    closed: list[int] = []

    class Pinned(Server):
        def close(self) -> None:
            closed.append(self.version)

    class Held(Server):
        def pinned(self) -> Server:
            return Pinned()

    lanes = Lanes(Config(), RewardModel({}), 0, make=lambda policy, seed: Held())
    for version in (3, 7):
        lanes.pin(PolicyBundle(weights(version)))
    agents = [lanes.agent("evaluation", version) for version in (3, 7, 3)]
    assert [agent.engine.version for agent in agents] == [3, 7, 3]
    assert agents[0] is agents[2]
    lanes.keep_pinned({7})
    assert closed == [3]


@pytest.mark.long
def test_collectors_of_a_node_share_one_engine_and_learn(tmp_path: Path) -> None:
    words = [
        *("run", "workers=2", "policy.arguments={placement: node, cpus: 0.5}", "--json"),
        "worlds=[{id: envs:KeyDoor-v0, groups: 1, demonstrations: 2}]",
        *("budget.updates=2", "collecting.slots=2", "collecting.group_size=2"),
        *("learning.imitation_passes=1", "planning.enabled=false", "evaluation.every=1"),
        *("policy.layers=1", "policy.width=32", "policy.heads=2", "policy.context=256"),
        *("evaluation.episodes=1", "evaluation.final_episodes=1", "runs_dir=runs"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "actors", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    # so few steps may teach nothing, which a run says and ends with 1
    assert done.returncode == 0 or "nothing was learned" in done.stderr, done.stderr[-2000:]
    (run,) = [path for path in (tmp_path / "runs").iterdir() if not path.is_symlink()]
    steps = [step for block in Catalog(run / "shards").follow() for step in block]
    decisions = [step.decision for step in steps if step.decision and step.decision.sampled]
    assert {decision.policy_version for decision in decisions} > {0}
    assert len({step.stream_id for step in steps}) >= 3
