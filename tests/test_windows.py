"""Windows: runs of rows from a growing store, exactly as they were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experience.errors import ShardError
from experience.shards.journal import Journal
from experience.shards.windows import WindowReader
from experience.step import Boundary
from tests.conftest import CATALOGUE, make_step

STREAMS = [bytes([i]) * 16 for i in range(3)]


def grow(journal: Journal, rows: int, **changes: object) -> None:
    for i in range(rows):
        stream = STREAMS[i % 3 if i % 7 else 0]
        t = journal.next_t(stream)
        journal.append(make_step(t, stream, rng=np.random.default_rng([t, stream[0]]), obs_text=f"{stream[0]}/{t} é",
                                 reward=float(t), **changes))
    journal.commit()


def check(reader: WindowReader, k: int, n: int = 64) -> None:
    streams, firsts = reader.draw(n, k)
    found = reader.gather(streams, firsts, k, ("obs_text", "action_ids", "action_logprobs", "t", "reward"))
    assert found.numbers["t"].shape == (n, k) and found.numbers["reward"].flags.c_contiguous
    assert (found.numbers["t"] == firsts[:, None] + np.arange(k)).all()
    assert (found.numbers["reward"] == found.numbers["t"]).all()
    for i, t in enumerate(found.numbers["t"].ravel()):
        text = bytes(found.ragged["obs_text"].row(i)).decode()
        assert text == f"{text[0]}/{t} é"
        written = make_step(int(t), rng=np.random.default_rng([int(t), int(text[0])])).decision
        assert written is not None
        assert np.array_equal(found.ragged["action_ids"].row(i), written.action_ids)
        assert np.array_equal(found.ragged["action_logprobs"].row(i), written.logprobs)


def test_windows_hold_what_was_written_while_the_store_grows_and_seals(tmp_path: Path) -> None:
    journal, reader = Journal(tmp_path / "w", CATALOGUE, batch_rows=7, seal_bytes=40_000), WindowReader(tmp_path)
    for _ in range(5):
        grow(journal, 60)
        assert reader.refresh() == 60
        check(reader, 4)
    journal.close()
    assert reader.refresh() == 0
    check(reader, 8)
    assert len(list((tmp_path / "w").glob("*.arrow"))) > 1


def test_no_window_crosses_a_restart_or_a_gap(tmp_path: Path) -> None:
    journal, reader = Journal(tmp_path / "w", CATALOGUE), WindowReader(tmp_path)
    breaks = {9: Boundary.WORKER_RESTART, 20: Boundary.GAP, 22: Boundary.RESET}
    for t in range(30):
        journal.append(make_step(t, boundary=breaks.get(t, Boundary.NONE)))
    journal.commit()
    reader.refresh()
    _, firsts = reader.draw(500, 5)
    assert {int(f) for f in firsts} == {*range(5), *range(9, 16), *range(20, 26)}
    with pytest.raises(ShardError, match="unbroken"):
        reader.draw(1, 12)


def test_recent_windows_are_drawn_more_often_by_their_half_life(tmp_path: Path) -> None:
    journal, reader = Journal(tmp_path / "w", CATALOGUE), WindowReader(tmp_path)
    for t in range(400):
        journal.append(make_step(t))
    journal.commit()
    reader.refresh()
    _, firsts = reader.draw(20_000, 1, how="recency", half_life=50)
    newest, before = np.sum(firsts >= 350), np.sum((firsts >= 300) & (firsts < 350))
    assert newest / before == pytest.approx(2.0, rel=0.1)


def test_few_handles_are_kept_and_all_rows_stay_reachable(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "w", CATALOGUE, batch_rows=3)
    grow(journal, 120)
    reader = WindowReader(tmp_path, most_blocks=4)
    reader.refresh()
    check(reader, 3)
    assert len(reader._blocks) <= 4
