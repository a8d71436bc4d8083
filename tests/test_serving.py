"""Worlds for other programs' servers: one thread a world, a deadline, and rewards that may be
unknown."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from gymnasium.spaces import Text

from envs.bridges.serving.play import Play
from envs.bridges.serving.world_thread import WorldThread
from experience.errors import ConfigError, EnvironmentFailure
from tests.late_world import Shop
from tests.served_worlds import Jars, Plain


class Threaded:
    """Notes the thread of each call; `hang` waits until it is let go."""

    observation_space, action_space = Text(100), Text(100)

    def __init__(self) -> None:
        self.seen = [threading.get_ident()]
        self.closed = threading.Event()
        self.let_go = threading.Event()

    def call(self) -> int:
        self.seen.append(threading.get_ident())
        return len(self.seen)

    def hang(self) -> None:
        self.let_go.wait(30)

    def late(self) -> None:
        raise TimeoutError("the device did not answer")

    def close(self) -> None:
        self.seen.append(threading.get_ident())
        self.closed.set()


def kept(worlds: list[Threaded]) -> Callable[[], Threaded]:
    def make() -> Threaded:
        worlds.append(Threaded())
        return worlds[-1]

    return make


def test_one_thread_makes_steps_and_closes_a_world_whoever_asks() -> None:
    worlds: list[Threaded] = []
    thread = WorldThread(kept(worlds))

    async def many() -> None:
        await asyncio.gather(*(thread.answer("call", lambda w: w.call()) for _ in range(5)))

    asyncio.run(many())
    asker = threading.Thread(target=lambda: thread.ask("call", lambda w: w.call()))
    asker.start()
    asker.join()
    thread.close()
    (world,) = worlds
    assert len(world.seen) == 8 and world.closed.is_set()
    assert len(set(world.seen)) == 1 and world.seen[0] != threading.get_ident()


@pytest.mark.parametrize("how", ["ask", "answer"])
def test_a_world_that_hangs_is_an_error_in_words_and_is_lost(how: str) -> None:
    worlds: list[Threaded] = []
    thread = WorldThread(kept(worlds), seconds=0.2)

    def do(what: str, call: Callable[[Any], Any]) -> Any:
        if how == "ask":
            return thread.ask(what, call)
        return asyncio.run(thread.answer(what, call))

    assert do("call", lambda w: w.call()) == 2
    began = time.monotonic()
    with pytest.raises(EnvironmentFailure, match=r"step did not answer within 0\.2 s"):
        do("step", lambda w: w.hang())
    with pytest.raises(EnvironmentFailure, match=r"lost: step did not answer"):
        do("reset", lambda w: w.call())
    thread.close()
    assert time.monotonic() - began < 4, "nobody waits for it"
    worlds[0].let_go.set()
    assert worlds[0].closed.wait(5), "its own thread closes it, as soon as it can"
    assert len(set(worlds[0].seen)) == 1


def test_what_a_world_raises_reaches_the_one_who_asked_and_it_lives_on() -> None:
    thread = WorldThread(Threaded, seconds=5)
    with pytest.raises(TimeoutError, match="the device"):
        thread.ask("step", lambda w: w.late())
    assert not thread.is_lost and thread.ask("call", lambda w: w.call()) == 2
    thread.close()

    def unmade() -> Any:
        raise ConfigError("no such world", "write another")

    with pytest.raises(ConfigError, match="no such world"):
        WorldThread(unmade).ask("make", lambda w: w)


def test_a_worlds_own_deadline_counts() -> None:
    def make() -> Any:
        world = Threaded()
        world.deadline_seconds = 0.1  # type: ignore[attr-defined]
        return world

    thread = WorldThread(make, seconds=60)
    thread.ask("make", lambda w: w)
    with pytest.raises(EnvironmentFailure, match=r"within 0\.1 s"):
        thread.ask("step", lambda w: w.let_go.wait(5))
    thread.close()


def test_a_world_is_played_with_what_it_knows_and_what_it_does_not() -> None:
    async def played() -> None:
        play = Play(Jars)
        start = await play.begin(4)
        assert start.seen == "jars 0 to 49; nothing is known"
        assert {tool["name"] for tool in play.about.tools} >= {"open", "weigh"}
        refused = await play.do("open 99")
        assert refused.refused and refused.reward == -0.1 and not refused.ended
        weighed = await play.do("weigh")
        assert (weighed.reward, play.reward) == (None, None)
        last = await play.do("look")
        assert last.truncated and last.reward == 0.0 and play.reward is None
        assert play.signals == {"invalid_action": 1.0, "weight": None, "right": 0.0}
        with pytest.raises(RuntimeError, match="no episode is under way"):
            await play.do("look")
        await play.begin(5)
        assert (play.reward, play.signals) == (0.0, {}), "a new episode owes nothing to the old one"
        play.close()

    asyncio.run(played())


def test_a_strangers_environment_is_played_without_signals_splits_or_instructions() -> None:
    async def played() -> None:
        play = Play(Plain)
        await play.begin(0)
        turn = await play.do("left")
        assert turn.terminated and turn.reward == 2.0 and play.signals == {"env_reward": 2.0}
        play.close()

    asyncio.run(played())


def test_what_is_measured_later_is_unknown_now_and_told_when_it_comes() -> None:
    async def played() -> None:
        play = Play(Shop)
        seen = (await play.begin(0)).seen
        first = await play.do("hats")
        assert first.reward is None and first.tag == "order 1" and first.late == {}
        second = await play.do("hats")
        assert second.late == {"order 1": {"earned": float(seen == "sun")}}
        assert play.reward is None
        play.close()

    asyncio.run(played())
