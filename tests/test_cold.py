"""The cold tier: the same rows, smaller; killed at any instant nothing is lost; which rows are
removed is on record."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as parquet
import pytest

from experience.errors import ShardError
from experience.shards.catalog import Catalog, check_acknowledged
from experience.shards.cold.compaction import compact
from experience.shards.cold.snapshot import read_snapshot
from experience.shards.journal import Journal
from experience.shards.sampling.windows import WindowReader
from experience.shards.storage.blobs import BlobReader
from experience.shards.verify import verify
from experience.step import Step
from tests.conftest import CATALOGUE, make_step
from tests.crash.simulated_disk import Fault, SimulatedDisk, power_cuts
from tests.golden.make import plain

STREAMS = (b"a" * 16, b"b" * 16)


def write(
    store: Path, rows: int, *, writers: str = "ab", close: bool = True, **changes: object
) -> list[Journal]:
    journals = []
    for writer in writers:
        journal = Journal(store / writer, CATALOGUE, batch_rows=6, seal_bytes=20_000)
        for _ in range(rows):
            t = journal.next_t(writer.encode() * 16)
            picture = journal.blobs.put(b"picture %d" % (t // 3), "image/png")
            journal.append(
                make_step(
                    t, writer.encode() * 16, closing=t % 5 == 4, obs_blobs=(picture,), **changes
                )
            )
        journal.commit()
        if close:
            journal.close()
        journals.append(journal)
    return journals


def read(store: Path) -> list[object]:
    steps = [s for block in Catalog(store).follow() for s in block]
    return [plain(s) for s in sorted(steps, key=lambda s: (s.stream_id, s.t))]


@pytest.mark.parametrize("to", ["parquet", "lance"])
def test_compacted_rows_are_exactly_the_rows_that_were_written(tmp_path: Path, to: str) -> None:
    if to == "lance":
        pytest.importorskip("lance", reason="an optional backend: uv pip install pylance")
    write(tmp_path, 40)
    before = read(tmp_path)
    done = compact(tmp_path, to)  # type: ignore[arg-type]
    assert done.rows == 80 and not list(tmp_path.glob("*/*.arrow"))
    assert read(tmp_path) == before
    assert check_acknowledged(tmp_path, dict.fromkeys(STREAMS, 39)) == 80
    found = verify(tmp_path, deep=True)
    assert not found.problems and (found.rows, found.blobs) == (80, 14)
    assert Catalog(tmp_path).dataset().count_rows() == 80


def test_a_writer_goes_on_after_its_shards_went_cold(tmp_path: Path) -> None:
    write(tmp_path, 10)
    compact(tmp_path)
    write(tmp_path, 7)
    assert check_acknowledged(tmp_path, dict.fromkeys(STREAMS, 16)) == 34
    assert compact(tmp_path).rows == 14
    assert [p.rows for p in read_snapshot(tmp_path).parts] == [20, 14]
    write(tmp_path, 3)
    assert len(read(tmp_path)) == 40 == Catalog(tmp_path).dataset().count_rows()
    assert not verify(tmp_path, deep=True).problems


def test_a_follower_is_given_each_row_once_while_shards_go_cold(tmp_path: Path) -> None:
    catalog, given = Catalog(tmp_path), []
    for round_ in range(4):
        write(tmp_path, 9, close=round_ < 3)
        if round_ % 2:
            given += [s for block in catalog.follow() for s in block]
        compact(tmp_path)
        given += [s for block in catalog.follow() for s in block]
    assert sorted((s.stream_id, s.t) for s in given) == [(s, t) for s in STREAMS for t in range(36)]


def test_a_follower_in_the_midst_of_a_shard_that_goes_cold_misses_nothing(tmp_path: Path) -> None:
    write(tmp_path, 30)
    following = Catalog(tmp_path).follow()
    given = list(next(following))
    compact(tmp_path)
    given += [s for block in following for s in block]
    assert sorted((s.stream_id, s.t) for s in given) == [(s, t) for s in STREAMS for t in range(30)]


def test_windows_come_from_cold_and_hot_rows_alike(tmp_path: Path) -> None:
    write(tmp_path, 20)
    already = WindowReader(tmp_path, ("t", "obs_text"))
    already.refresh()
    compact(tmp_path)
    write(tmp_path, 20)
    fresh = WindowReader(tmp_path, ("t", "obs_text"))
    for reader in (already, fresh):
        reader.refresh()
        windows = reader.gather(reader.draw(400, 8))
        assert (np.diff(windows.numbers["t"], axis=1) == 1).all()
        assert windows.numbers["t"].min() == 0 and windows.numbers["t"].max() == 39
        assert [
            bytes(windows.ragged["obs_text"].row(i)).decode().split()[1] for i in range(3200)
        ] == [str(t) for t in windows.numbers["t"].ravel()]


def test_what_is_removed_is_named_and_the_rest_reads_exactly(tmp_path: Path) -> None:
    write(tmp_path, 20, t_end_ns=1_000)
    write(tmp_path, 20, t_end_ns=2_000)
    before = {(s["stream_id"], s["t"]): s for s in read(tmp_path)}  # type: ignore[index]
    done = compact(tmp_path, expire_before_ns=1_500)
    gone = read_snapshot(tmp_path).removed_beginnings
    assert set(gone) == {s.hex() for s in STREAMS} and done.rows_removed == sum(gone.values()) > 20
    after = read(tmp_path)
    assert len(after) == 80 - done.rows_removed
    assert all(s == before[s["stream_id"], s["t"]] for s in after), "prompts too"  # type: ignore[index]
    assert done.blobs_dropped > 0
    found = verify(tmp_path, deep=True)
    assert not found.problems
    assert found.blobs == len({b["hash"] for s in after for b in s["obs_blobs"]})  # type: ignore[index]
    write(tmp_path, 5)
    assert check_acknowledged(tmp_path, dict.fromkeys(STREAMS, 44)) == 90


def test_snapshots_keep_the_keys_that_older_stores_have(tmp_path: Path) -> None:
    write(tmp_path, 40)
    compact(tmp_path, expire_before_ns=1_500)
    newest = sorted((tmp_path / "snapshots").glob("*.json"))[-1]
    said = json.loads(newest.read_bytes().rpartition(b"\n")[0])
    assert set(said) == {"version", "parts", "replaced", "let_go", "gone", "published_ns"}
    assert said["let_go"] == read_snapshot(tmp_path).removed_beginnings != {}


def test_cold_parts_open_with_stock_readers_and_hold_their_checksums(tmp_path: Path) -> None:
    write(tmp_path, 40)
    hot = sum(p.stat().st_size for p in tmp_path.glob("*/*.arrow"))
    compact(tmp_path)
    (part,) = tmp_path.glob("cold/*.parquet")
    assert part.stat().st_size < hot / 2
    assert pl.read_parquet(part)["t"].sum() == 2 * sum(range(40))
    described = parquet.ParquetFile(part)
    assert [s.column_index for s in described.metadata.row_group(0).sorting_columns] == [0, 1]
    columns = [
        described.metadata.row_group(0).column(i) for i in range(described.metadata.num_columns)
    ]
    (logprobs,) = [c for c in columns if c.path_in_schema == "action_logprobs.list.element"]
    assert "BYTE_STREAM_SPLIT" in logprobs.encodings


def test_damage_to_a_cold_part_or_a_snapshot_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, 40)
    compact(tmp_path)
    (part,) = tmp_path.glob("cold/*.parquet")
    (snapshot,) = tmp_path.glob("snapshots/*.json")
    for path in (part, snapshot):
        whole, rng = path.read_bytes(), random.Random(0)
        for _ in range(60):
            at = rng.randrange(len(whole))
            path.write_bytes(
                whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :]
            )
            assert verify(tmp_path, deep=True).problems
        path.write_bytes(whole)
    assert not verify(tmp_path, deep=True).problems
    part.unlink()
    assert "not there" in verify(tmp_path).problems[0].what


def test_two_compactions_at_once_are_refused_and_a_crash_frees_the_lock(tmp_path: Path) -> None:
    from experience.shards.storage.disk import REAL

    write(tmp_path, 5)
    (tmp_path / "snapshots").mkdir()
    with (
        REAL.lock(tmp_path / "snapshots" / "LOCK"),
        pytest.raises(ShardError, match="another process"),
    ):
        compact(tmp_path)
    assert compact(tmp_path).rows == 10


STORE = Path("/store")


def on(disk: SimulatedDisk, rounds: int) -> None:
    """Two rounds of a writer and a compaction."""
    for _ in range(rounds):
        journal = Journal(
            STORE / "w", CATALOGUE, batch_rows=3, seal_bytes=9_000, low_water_bytes=0, disk=disk
        )
        for _ in range(9):
            t = journal.next_t(STREAMS[0])
            picture = journal.blobs.put(b"picture %d" % t, "image/png")
            journal.append(make_step(t, STREAMS[0], obs_blobs=(picture,)))
        journal.close()
        compact(STORE, disk=disk)


def rows_of(disk: SimulatedDisk) -> list[Step]:
    Journal(STORE / "w", CATALOGUE, low_water_bytes=0, disk=disk).close()
    found = [s for block in Catalog(STORE, disk=disk).follow() for s in block]
    blobs = BlobReader(STORE, disk)
    assert all(blobs.read(b.hash) for s in found for b in s.obs_blobs)
    return sorted(found, key=lambda s: s.t)


@pytest.mark.timeout(0)
def test_a_power_cut_in_a_compaction_loses_and_doubles_no_row(
    request: pytest.FixtureRequest,
) -> None:
    rng, (rounds, each) = (
        random.Random(0),
        (20, 40) if request.config.getoption("--long") else (1, 2),
    )
    for _ in range(rounds):
        before = SimulatedDisk()
        on(before, 1)
        journal = Journal(
            STORE / "w", CATALOGUE, batch_rows=3, seal_bytes=9_000, low_water_bytes=0, disk=before
        )
        for t in range(9, 18):
            journal.append(make_step(t, STREAMS[0]))
        journal.close()
        disk = SimulatedDisk(before.files())
        compact(STORE, disk=disk)
        for _, image in power_cuts(disk, each, rng):
            crashed = SimulatedDisk(image)
            assert [s.t for s in rows_of(crashed)] == list(range(18))
            compact(STORE, disk=crashed)
            assert [s.t for s in rows_of(crashed)] == list(range(18))


def test_whichever_call_of_a_compaction_fails_no_row_is_lost(
    request: pytest.FixtureRequest,
) -> None:
    before = SimulatedDisk()
    on(before, 2)
    at = 0
    while True:
        at += 1
        disk = SimulatedDisk(before.files())
        disk.fault = fault = Fault(at, 5)
        with contextlib.suppress(OSError, ShardError):
            compact(STORE, disk=disk)
        disk.fault = None
        if not fault.fired:
            break
        healthy = SimulatedDisk(disk.files())
        assert [s.t for s in rows_of(healthy)] == list(range(18))
    assert at > 5
