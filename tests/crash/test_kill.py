"""Crashes: a writer killed at any instant loses nothing that it acknowledged, and doubles nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experience.shards.catalog import check_acknowledged
from experience.shards.journal import recover

WRITER = """
import sys
from pathlib import Path
from experience.shards.journal import Journal
from tests.conftest import CATALOGUE, make_step
journal = Journal(Path(sys.argv[1]), CATALOGUE, batch_rows=4, seal_bytes=60_000)
streams = [b"a" * 16, b"b" * 16]
while True:
    for stream in streams:
        journal.append(make_step(journal.next_t(stream), stream))
    for stream in streams:
        print(stream.decode(), journal.acknowledged.get(stream, -1), flush=True)
"""


def test_a_writer_killed_at_random_instants_loses_and_doubles_nothing(
        tmp_path: Path, request: pytest.FixtureRequest) -> None:
    kills = 500 if request.config.getoption("--long") else 12
    rng, told = random.Random(0), {}
    for _ in range(kills):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "w")], stdout=subprocess.PIPE, text=True,
                                  env={**os.environ, "PYTHONPATH": "."})
        assert writer.stdout is not None
        heard = [writer.stdout.readline()]  # it has begun
        time.sleep(rng.random() * 0.08)
        writer.send_signal(signal.SIGKILL)
        heard += writer.stdout.read().splitlines(keepends=True)
        writer.wait()
        for line in heard:
            if line.endswith("\n") and line.strip():
                stream, t = line.split()
                told[stream.encode()] = max(int(t), told.get(stream.encode(), -1))
        if rng.random() < 0.2:
            recover(tmp_path / "w")
    recover(tmp_path / "w")
    rows = check_acknowledged(tmp_path, told)
    assert rows > kills
    assert sum(t + 1 for t in told.values()) <= rows
