"""Crashes: a writer killed at any instant loses nothing that it acknowledged, and doubles nothing."""

from __future__ import annotations

import os
import random
import signal
import struct
import time
from pathlib import Path

import pytest

from experience.shards.catalog import check_acknowledged
from experience.shards.journal import Journal
from experience.shards.verify import verify
from experience.shards.writing.sealing import recover
from tests.conftest import CATALOGUE, make_step

STREAMS = (b"a" * 16, b"b" * 16)


def write_until_killed(directory: Path, told: int) -> None:
    """Appends to two streams and tells after each what is acknowledged."""
    journal = Journal(directory, CATALOGUE, batch_rows=4, seal_bytes=60_000)
    while True:
        for stream in STREAMS:
            journal.append(make_step(journal.next_t(stream), stream))
        for stream in STREAMS:
            os.write(told, struct.pack("<16sq", stream, journal.acknowledged.get(stream, -1)))


@pytest.mark.timeout(0)
def test_a_writer_killed_at_random_instants_loses_and_doubles_nothing(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    kills = 10_000 if request.config.getoption("--long") else 40
    rng, told = random.Random(0), dict.fromkeys(STREAMS, -1)
    rows = 0
    for kill in range(kills):
        directory = (
            tmp_path / f"{kill // 200}" / "w"
        )  # a new store now and then: reading all of it again takes longer
        listen, tell = os.pipe()
        writer = os.fork()
        if writer == 0:
            try:
                write_until_killed(directory, tell)
            finally:
                os._exit(1)
        os.close(tell)
        with os.fdopen(listen, "rb") as ear:
            heard = ear.read(
                24 * rng.randint(1, 80)
            )  # so much was done, however busy the machine is
            time.sleep(rng.random() * 0.005)
            os.kill(writer, signal.SIGKILL)
            heard += ear.read()
        _, status = os.waitpid(writer, 0)
        assert status == signal.SIGKILL
        for stream, t in struct.iter_unpack("<16sq", heard[: len(heard) // 24 * 24]):
            told[stream] = max(told[stream], t)
        if rng.random() < 0.1:
            recover(directory)
        if kill % 200 == 199 or kill == kills - 1:
            recover(directory)
            assert not verify(directory.parent, deep=True).problems
            rows += check_acknowledged(directory.parent, {s: t for s, t in told.items() if t >= 0})
            told = dict.fromkeys(STREAMS, -1)
    assert rows > kills
    print(f"{kills} kills, {rows} rows acknowledged or found, 0 lost, 0 doubled")
