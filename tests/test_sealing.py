"""Sealing: small blocks become large ones off the hot path, by size and by time, and every row
reads the same."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as datasets
import pytest

from experience.shards.catalog import Catalog, check_acknowledged
from experience.shards.journal import Journal
from experience.shards.sampling.windows import WindowReader
from experience.shards.storage.disk import Disk
from experience.shards.verify import verify
from tests.conftest import CATALOGUE, make_step
from tests.golden.make import plain

STREAM = b"s" * 16


def grow(journal: Journal, rows: int) -> None:
    for _ in range(rows):
        t = journal.next_t(STREAM)
        journal.append(
            make_step(t, closing=t % 5 == 4, value_estimate=float("nan") if t % 7 == 0 else 0.5)
        )
    journal.commit()


def read(store: Path) -> list[str]:
    return [repr(plain(s)) for steps in Catalog(store).follow() for s in steps]


def test_small_blocks_become_large_ones_and_every_row_reads_the_same(tmp_path: Path) -> None:
    for name, block_rows in (("small", 0), ("large", 64)):
        journal = Journal(tmp_path / name / "w", CATALOGUE, batch_rows=3, block_rows=block_rows)
        grow(journal, 150)
        journal.close()
    assert (
        read(tmp_path / "large") == read(tmp_path / "small")
        and len(read(tmp_path / "large")) == 150
    )
    small, large = (next((tmp_path / name / "w").glob("*.arrow")) for name in ("small", "large"))
    assert large.stat().st_size < 0.3 * small.stat().st_size
    shard = pa.ipc.open_file(large)
    assert shard.num_record_batches == 3
    assert not large.with_suffix(".commit").exists() and not large.with_suffix(".open").exists()
    assert not verify(tmp_path / "large", deep=True).problems


def test_rewritten_shards_and_others_open_together_in_stock_readers(tmp_path: Path) -> None:
    for writer, block_rows in (("a", 64), ("b", 0)):
        journal = Journal(tmp_path / writer, CATALOGUE, batch_rows=3, block_rows=block_rows)
        grow(journal, 9)
        journal.close()
    files = [str(p) for p in sorted(tmp_path.glob("*/*.arrow"))]
    assert (
        pl.scan_ipc(files)
        .filter(pl.col("split") == "train")
        .select("obs_text", "signals")
        .collect()
        .height
        == 18
    )
    steps = datasets.dataset(files, format="ipc")  # noqa: F841  DuckDB finds it by its name
    assert duckdb.sql("select env_id, count(*) from steps group by all").fetchall() == [
        ("envs:Test-v0", 18)
    ]


def test_a_reader_in_the_midst_of_a_segment_goes_on_in_its_rewritten_shard(tmp_path: Path) -> None:
    journal, catalog = Journal(tmp_path / "w", CATALOGUE, batch_rows=3), Catalog(tmp_path)
    windows = WindowReader(tmp_path, ("t", "obs_text"))
    grow(journal, 20)
    given = [s.t for steps in catalog.follow() for s in steps]
    windows.refresh()
    grow(journal, 21)  # the reader has seen the half of what becomes one block
    journal.close()
    assert (tmp_path / "w" / "seg-000000-000000.blocks").exists()
    given += [s.t for steps in catalog.follow() for s in steps]
    assert given == list(range(41))
    assert windows.refresh() == 21
    drawn = windows.gather(windows.draw(300, 4))
    assert [bytes(drawn.ragged["obs_text"].row(i)).decode().split()[1] for i in range(1200)] == [
        str(t) for t in drawn.numbers["t"].ravel()
    ]
    assert drawn.numbers["t"].max() == 40


@pytest.mark.parametrize("how", [{"seal_bytes": 10_000}, {"seal_seconds": 1e-9}])
def test_a_segment_is_sealed_once_it_is_large_or_old_while_the_next_is_written(
    how: dict[str, float], tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "w", CATALOGUE, batch_rows=3, **how)  # type: ignore[arg-type]
    grow(journal, 60)
    journal.seal()
    assert len(list((tmp_path / "w").glob("*.arrow"))) > 1
    grow(journal, 5)
    assert check_acknowledged(tmp_path, journal.acknowledged) == 65
    journal.close()
    assert not verify(tmp_path, deep=True).problems


def test_where_no_copy_can_be_written_the_blocks_stay_as_they_are(tmp_path: Path) -> None:
    class Crowded(Disk):
        def write_file(self, path: Path, parts: Iterable[bytes]) -> None:
            if path.suffix == ".draft" and "seg-" in path.name:
                super().write_file(path, list(parts)[:1])  # some of it fits
                raise OSError(errno.ENOSPC, "No space left on device")
            super().write_file(path, parts)

    journal = Journal(tmp_path / "w", CATALOGUE, batch_rows=3, disk=Crowded())
    grow(journal, 30)
    journal.close()
    assert sorted(p.suffix for p in (tmp_path / "w").glob("seg-*")) == [".arrow", ".commit"]
    assert len(read(tmp_path)) == 30 and not verify(tmp_path, deep=True).problems


def test_damage_found_while_blocks_are_rewritten_is_left_for_readers_to_see(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "w", CATALOGUE, batch_rows=3)
    grow(journal, 30)
    segment = next((tmp_path / "w").glob("*.open"))
    whole = bytearray(segment.read_bytes())
    whole[len(whole) // 2] ^= 1
    segment.write_bytes(whole)
    journal.close()
    assert [p.what for p in verify(tmp_path, deep=True).problems], (
        "the shard's SHA-256 is that of what was written"
    )
