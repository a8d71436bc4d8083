"""One way to cut a stream: replay, exports and SQL agree on every episode, whatever marks rows
have."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.reading.query import connect
from experience.episode import Episode, EpisodeReader
from experience.replay.replay import Replay
from experience.shards.catalog import Catalog
from experience.shards.episodes.index import EpisodeIndex
from experience.shards.exchange import Rows
from experience.shards.journal import Journal
from experience.step import ENDINGS, FAILED, Boundary, Step
from tests.conftest import CATALOGUE, make_step

STREAMS = (b"a" * 16, b"b" * 16, b"c" * 16)
MARKS = (Boundary.RESET, Boundary.WORKER_RESTART, Boundary.GAP, Boundary.OPTION_END)


def any_step(rng: random.Random, t: int, stream: bytes) -> Step:
    boundary = Boundary.NONE
    for mark in MARKS:
        if rng.random() < 0.1:
            boundary |= mark
    ending = rng.choice(ENDINGS) if rng.random() < 0.3 else "none"
    step = replace(make_step(t, stream, closing=rng.random() < 0.25), boundary=boundary)
    reward = None if ending in FAILED or rng.random() < 0.1 else float(rng.randint(0, 8))
    return replace(step, ending=ending, reward=None if step.is_closing else reward)


def any_store(seed: int, folder: Path) -> None:
    """Three streams whose rows come mixed, in small blocks, with marks at random places."""
    rng, journal = random.Random(seed), Journal(folder / "w", CATALOGUE, batch_rows=5)
    for _ in range(rng.randint(1, 120)):
        stream = rng.choice(STREAMS)
        journal.append(any_step(rng, journal.next_t(stream), stream))
    journal.close()


def facts(episode: Episode) -> tuple[Any, ...]:
    first = episode.rows[0]
    ending, whole = episode.ending, not episode.failed
    return first.stream_id, first.t, len(episode.steps), episode.total_reward, ending, whole


@pytest.mark.parametrize("seed", range(20))
def test_all_who_cut_a_stream_find_the_same_episodes(seed: int, tmp_path: Path) -> None:
    any_store(seed, tmp_path)
    steps = [step for block in Catalog(tmp_path).follow() for step in block]
    reader = EpisodeReader()
    over = [episode for step in steps for episode in reader.take(step)]
    found = sorted(map(facts, [*over, *reader.rest()]), key=lambda fact: fact[:2])

    assert sum(fact[2] for fact in found) == sum(not step.is_closing for step in steps)
    asked = "select stream_id, t, turns, total_reward, ending, whole from episodes"
    assert connect({"steps": tmp_path}).sql(asked).fetchall() == found
    assert sorted(map(facts, Rows(tmp_path).episodes()), key=lambda fact: fact[:2]) == found

    replay = Replay(EpisodeIndex.open(tmp_path), group_size=4, max_lag=1)
    closed = [episode for episode in over if episode.closing is not None]
    assert [*map(facts, replay.episodes["real"])] == [*map(facts, closed)]
    assert replay.dropped.cut_off == len(over) - len(closed)
