"""Windows: runs of rows from a growing store, exactly as they were written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experience.errors import ShardError
from experience.shards.journal import Journal
from experience.shards.sampling.samplers import Prioritised, Recency
from experience.shards.sampling.windows import WindowReader
from experience.step import Boundary
from tests.conftest import CATALOGUE, make_step

STREAMS = [bytes([i]) * 16 for i in range(3)]


def grow(journal: Journal, rows: int, **changes: object) -> None:
    for i in range(rows):
        stream = STREAMS[i % 3 if i % 7 else 0]
        t = journal.next_t(stream)
        journal.append(
            make_step(
                t,
                stream,
                rng=np.random.default_rng([t, stream[0]]),
                obs_text=f"{stream[0]}/{t} é",
                reward=float(t),
                **changes,
            )
        )
    journal.commit()


COLUMNS = (
    "obs_text",
    "action_ids",
    "action_logprobs",
    "t",
    "reward",
    "token_exact",
    "value_estimate",
    "action_text",
)


def check(reader: WindowReader, k: int, n: int = 64) -> None:
    rows = reader.draw(n, k)
    found = reader.gather(rows)
    assert found.numbers["t"].shape == (n, k) and found.numbers["reward"].flags.c_contiguous
    assert (np.diff(found.numbers["t"], axis=1) == 1).all()
    streams, ts = reader.identify(rows.ravel())
    assert (ts == found.numbers["t"].ravel()).all() and found.numbers["token_exact"].all()
    assert np.isnan(found.numbers["value_estimate"]).all()
    assert (found.numbers["reward"] == found.numbers["t"]).all()
    for i, t in enumerate(found.numbers["t"].ravel()):
        text = bytes(found.ragged["obs_text"].row(i)).decode()
        assert text == f"{streams[i].tobytes()[0]}/{t} é"
        assert (
            bytes(found.ragged["action_text"].row(i)) == b"press 1"
        )  # shorter than what a view holds itself
        written = make_step(int(t), rng=np.random.default_rng([int(t), int(text[0])])).decision
        assert written is not None
        assert np.array_equal(found.ragged["action_ids"].row(i), written.action_ids)
        assert np.array_equal(found.ragged["action_logprobs"].row(i), written.logprobs)


def test_windows_hold_what_was_written_while_the_store_grows_and_seals(tmp_path: Path) -> None:
    journal, reader = (
        Journal(tmp_path / "w", CATALOGUE, batch_rows=7, seal_bytes=40_000),
        WindowReader(tmp_path, COLUMNS),
    )
    for _ in range(5):
        grow(journal, 60)
        assert reader.refresh() == 60
        check(reader, 4)
    journal.close()
    assert reader.refresh() == 0
    check(reader, 8)
    assert len(list((tmp_path / "w").glob("*.arrow"))) > 1


def test_no_window_crosses_a_restart_or_a_gap_unasked(tmp_path: Path) -> None:
    journal, reader = Journal(tmp_path / "w", CATALOGUE), WindowReader(tmp_path, ("t",))
    breaks = {9: Boundary.WORKER_RESTART, 20: Boundary.GAP, 22: Boundary.RESET}
    for t in range(30):
        journal.append(make_step(t, boundary=breaks.get(t, Boundary.NONE)))
    journal.commit()
    reader.refresh()
    firsts = {int(t) for t in reader.gather(reader.draw(500, 5)).numbers["t"][:, 0]}
    assert firsts == {*range(5), *range(9, 16), *range(20, 26)}
    with pytest.raises(ShardError, match="no window"):
        reader.draw(1, 12)
    assert set(reader.draw(500, 12, across_gaps=True)[:, 0].tolist()) == set(range(19))


def test_recent_windows_are_drawn_more_often_by_their_half_life(tmp_path: Path) -> None:
    journal, reader = Journal(tmp_path / "w", CATALOGUE), WindowReader(tmp_path, ("t",))
    for t in range(400):
        journal.append(make_step(t))
    journal.commit()
    reader.refresh()
    firsts = reader.draw(20_000, 1, Recency(half_life=50))
    newest, before = np.sum(firsts >= 350), np.sum((firsts >= 300) & (firsts < 350))
    assert newest / before == pytest.approx(2.0, rel=0.1)


def test_kinds_do_not_mix_and_few_windows_among_many_are_still_found_alike(tmp_path: Path) -> None:
    journal, reader = (
        Journal(tmp_path / "w", CATALOGUE, batch_rows=50),
        WindowReader(tmp_path, ("t",)),
    )
    for t in range(3000):
        other = (
            dict(source="demonstration") if t < 2000 else dict(split="heldout") if t < 2900 else {}
        )
        journal.append(make_step(t, **other))
    journal.commit()
    reader.refresh()
    drawn = reader.draw(9_100, 10)[:, 0]
    assert drawn.min() == 2900 and drawn.max() == 2990, "3 in 100 rows begin one"
    assert np.bincount(drawn - 2900).std() == pytest.approx(10, rel=0.3), (
        "each as often: 100 times, Poisson"
    )
    assert reader.draw(500, 10, source="demonstration").max() < 2000
    mixed = reader.draw_mixture(10, 3, {"demonstration": 0.73, "real": 0.27})
    assert np.sum(mixed[:, 0] < 2000) == 7
    assert reader.draw(500, 10, split="heldout").min() >= 2000
    with pytest.raises(ShardError, match="no window"):
        reader.draw(1, 2, source="imagined")


def test_no_rows_are_gathered_as_nothing(tmp_path: Path) -> None:
    """As a learner's priorities are saved before the first row is there."""
    Journal(tmp_path / "w", CATALOGUE).close()
    reader = WindowReader(tmp_path, ("t", "obs_text", "action_ids"))
    reader.refresh()
    found = reader.gather(np.empty((0, 3), np.int64))
    assert found.numbers["t"].shape == (0, 3)
    assert [len(found.ragged[name].values) for name in ("obs_text", "action_ids")] == [0, 0]
    again = Prioritised()
    again.restore(Prioritised().save(reader.identify), reader.identify, reader.rows)


def test_windows_of_old_policies_are_left_out_when_asked(tmp_path: Path) -> None:
    journal, reader = (
        Journal(tmp_path / "w", CATALOGUE),
        WindowReader(tmp_path, ("policy_version",)),
    )
    for t in range(100):
        step = make_step(t)
        assert step.decision is not None
        journal.append(replace(step, decision=replace(step.decision, policy_version=t // 10)))
    journal.commit()
    reader.refresh()
    assert reader.gather(reader.draw(300, 4, oldest_version=7)).numbers["policy_version"].min() == 7


def test_prioritised_draws_follow_the_priorities_through_growth_and_a_restart(
    tmp_path: Path,
) -> None:
    writers, reader = (
        [Journal(tmp_path / w, CATALOGUE) for w in "ab"],
        WindowReader(tmp_path, ("t",)),
    )

    def grow_both(ts: range) -> None:
        for writer, stream in zip(writers, STREAMS, strict=False):
            for t in ts:
                writer.append(make_step(t, stream))
            writer.commit()
        reader.refresh()

    grow_both(range(50))
    priorities = Prioritised(alpha=0.5)
    priorities.judge(np.arange(100), np.linspace(0.01, 4.0, 100))
    grow_both(range(50, 60))
    counts = np.bincount(reader.draw(200_000, 1, priorities)[:, 0], minlength=120)
    expected = np.concatenate([np.sqrt(np.linspace(0.01, 4.0, 100)), np.full(20, 2.0)])
    assert counts / 200_000 == pytest.approx(expected / expected.sum(), abs=0.001)
    weights = priorities.importance(np.array([0, 99]), beta=1.0)
    assert weights == pytest.approx([1.0, 0.1 / 2.0])

    again = WindowReader(
        tmp_path, ("t",)
    )  # reads the first writer's rows whole, then the second's: other numbers
    again.refresh()
    restored = Prioritised(alpha=0.5)
    restored.restore(priorities.save(reader.identify), again.identify, again.rows)
    by_key = [
        dict(
            zip(
                zip(*(c.tolist() for c in r.identify(np.arange(120))), strict=True),
                p.weight(np.arange(120), 120),
                strict=True,
            )
        )
        for r, p in ((reader, priorities), (again, restored))
    ]
    assert by_key[0] == by_key[1]
    assert (reader.identify(np.arange(120))[1] != again.identify(np.arange(120))[1]).any()


def test_a_column_that_cannot_be_gathered_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="no column 'rewards'"):
        WindowReader(tmp_path, ("rewards",))
    with pytest.raises(ShardError, match="cannot be gathered"):
        WindowReader(tmp_path, ("signals",))
