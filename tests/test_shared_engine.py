"""A shared engine: batches as requests come, futures, versions for all who ask."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from actors.engines.engine import Situation
from actors.engines.serving.shared import SharedEngine
from experience.errors import EngineError
from experience.models.weights import Weights
from experience.policy import Decision


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
