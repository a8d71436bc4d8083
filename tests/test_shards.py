"""Shards: what was acknowledged is there, exactly, once; what is damaged is noticed."""

from __future__ import annotations

import dataclasses
import errno
import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from experience.errors import FencedError, ShardError
from experience.shards.catalog import Catalog, check_acknowledged
from experience.shards.journal import Journal
from experience.shards.record.schema import FIELDS
from experience.shards.storage.blocks import COMMIT, read_blocks
from experience.shards.storage.disk import Disk
from experience.shards.writing.sealing import recover
from experience.step import Step
from tests.conftest import CATALOGUE, make_step


def write(directory: Path, count: int, *, close: bool = True, batch_rows: int = 8) -> list[Step]:
    journal = Journal(directory, CATALOGUE, batch_rows=batch_rows, commit_seconds=10, block_rows=0)
    steps = [make_step(t, closing=t % 5 == 4) for t in range(count)]
    for step in steps:
        journal.append(step)
    journal.commit()
    if close:
        journal.close()
    return steps


def read(directory: Path) -> list[Step]:
    return [step for block in Catalog(directory).follow() for step in block]


def same(a: Step, b: Step) -> bool:
    for field in dataclasses.fields(Step):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if field.name == "decision" and x is not None and y is not None:
            if not all(
                np.array_equal(getattr(x, n), getattr(y, n))
                if isinstance(getattr(x, n), np.ndarray)
                else getattr(x, n) == getattr(y, n)
                for n in x.__dataclass_fields__
            ):
                return False
        elif x != y:
            return False
    return True


def test_steps_come_back_exactly_as_they_were_appended(tmp_path: Path) -> None:
    written = write(tmp_path / "w", 100)
    assert all(same(a, b) for a, b in zip(written, read(tmp_path), strict=True))


def test_every_column_of_the_record_is_in_the_schema_from_day_one() -> None:
    wanted = """stream_id t episode step_in_episode work_id group_id env_id env_version task_id split seed
        sandbox_tier t_start_ns t_end_ns source model_version uncertainty obs_text obs_blobs obs_struct
        state_key prompt_prefix_len prompt_ids action_text action_ids action_logprobs version_spans
        policy_version behaviour_id decoder token_exact sampled temperature allowed_ids allowed_counts prompt_cut
        action_cut tool_calls action_struct option_id option_step
        plan_id value_estimate signals reward reward_version discount ending boundary info""".split()
    assert set(wanted) <= {name for name, _, _ in FIELDS}


def test_prompts_are_stored_as_what_is_new(tmp_path: Path) -> None:
    write(tmp_path / "w", 16)
    batch = next(iter(read_blocks(next((tmp_path / "w").glob("*.arrow")))))
    kept = batch.column("prompt_prefix_len").to_pylist()
    assert kept[0] == 0
    assert all(
        k >= 5
        for k, a in zip(kept[1:], batch.column("action_text").to_pylist()[1:], strict=True)
        if a
    )


def test_an_unsealed_segment_is_readable_up_to_its_last_commit(tmp_path: Path) -> None:
    write(tmp_path / "w", 40, close=False)
    assert len(read(tmp_path)) == 40


def test_a_reader_follows_a_growing_journal_and_its_sealing_without_repeating(
    tmp_path: Path,
) -> None:
    journal, catalog, seen = Journal(tmp_path / "w", CATALOGUE, batch_rows=4), Catalog(tmp_path), []
    for t in range(20):
        journal.append(make_step(t))
        seen += [s.t for block in catalog.follow() for s in block]
    journal.close()
    seen += [s.t for block in catalog.follow() for s in block]
    assert seen == list(range(20))


@pytest.mark.parametrize("tail", [b"torn" * 50, b"\0" * 4096])
def test_bytes_after_the_last_commit_are_never_read(tmp_path: Path, tail: bytes) -> None:
    write(tmp_path / "w", 40, close=False)
    segment = next((tmp_path / "w").glob("*.open"))
    with open(segment, "ab") as file:
        file.write(tail)
    assert len(read(tmp_path)) == 40
    recover(tmp_path / "w")
    assert [s.t for s in read(tmp_path)] == list(range(40))
    assert Catalog(tmp_path).dataset().count_rows() == 40


@pytest.mark.parametrize("keep", range(0, 5 * COMMIT.size, 7))
def test_a_commit_log_cut_anywhere_keeps_its_whole_records(tmp_path: Path, keep: int) -> None:
    write(tmp_path / "w", 40, close=False)
    log = next((tmp_path / "w").glob("*.commit"))
    log.write_bytes(log.read_bytes()[:keep])
    recover(tmp_path / "w")
    assert [s.t for s in read(tmp_path)] == list(range(8 * (keep // COMMIT.size)))


def test_a_flipped_bit_is_noticed_before_arrow_parses_it_wherever_it_is(tmp_path: Path) -> None:
    write(tmp_path / "w", 24)
    segment = next((tmp_path / "w").glob("*.arrow"))
    whole = segment.read_bytes()
    committed = [
        COMMIT.unpack_from(segment.with_suffix(".commit").read_bytes(), o)[0]
        for o in range(0, 96, 32)
    ][-1]
    rng = np.random.default_rng(0)
    for position in rng.integers(0, committed, 300):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        segment.write_bytes(damaged)
        with pytest.raises(ShardError, match="damaged"):
            list(read_blocks(segment))


def test_damage_is_confined_to_its_block(tmp_path: Path) -> None:
    write(tmp_path / "w", 24)
    segment = next((tmp_path / "w").glob("*.arrow"))
    ends = [
        COMMIT.unpack_from(segment.with_suffix(".commit").read_bytes(), o)[0]
        for o in range(0, 96, 32)
    ]
    data = bytearray(segment.read_bytes())
    data[ends[1] + 100] ^= 1
    segment.write_bytes(data)
    got = []
    with pytest.raises(ShardError, match="rows 16 to 23"):
        for batch in read_blocks(segment):
            got += batch.column("t").to_pylist()
    assert got == list(range(16))


def test_a_step_appended_twice_is_stored_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "w", CATALOGUE)
    for t in (0, 1, 1, 0, 2):
        journal.append(make_step(t))
    journal.close()
    assert [s.t for s in read(tmp_path)] == [0, 1, 2]


def test_a_stream_with_a_hole_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "w", CATALOGUE)
    journal.append(make_step(0))
    with pytest.raises(ShardError, match="gapless"):
        journal.append(make_step(2))


def test_a_new_incarnation_goes_on_where_the_old_one_was_acknowledged(tmp_path: Path) -> None:
    write(tmp_path / "w", 40, close=False)
    again = Journal(tmp_path / "w", CATALOGUE)
    assert again.next_t(b"s" * 16) == 40
    again.append(make_step(40))
    again.close()
    assert [s.t for s in read(tmp_path)] == list(range(41))
    assert check_acknowledged(tmp_path, {b"s" * 16: 40}) == 41


def test_an_old_incarnation_is_refused_at_its_next_commit(tmp_path: Path) -> None:
    old = Journal(tmp_path / "w", CATALOGUE)
    old.append(make_step(0))
    Journal(tmp_path / "w", CATALOGUE)
    with pytest.raises(FencedError):
        old.commit()


def test_a_lost_row_and_a_doubled_row_are_both_noticed(tmp_path: Path) -> None:
    write(tmp_path / "w", 8)
    with pytest.raises(ShardError, match="acknowledged"):
        check_acknowledged(tmp_path, {b"s" * 16: 8})
    write(tmp_path / "v", 8)
    with pytest.raises(ShardError, match="doubled"):
        check_acknowledged(tmp_path, {})


def test_a_manifest_line_that_was_changed_breaks_the_chain(tmp_path: Path) -> None:
    for base in (0, 8):
        journal = Journal(tmp_path / "w", CATALOGUE)
        for t in range(base, base + 8):
            journal.append(make_step(t))
        journal.close()
    manifest = tmp_path / "w" / "MANIFEST"
    first, second = manifest.read_text().splitlines()
    changed = json.dumps(json.loads(first.partition(" ")[2]) | {"rows": 9})
    for line in (
        changed,
        f"{zlib.crc32(changed.encode()):08x} {changed}",
    ):  # by accident, and by someone who knows how
        manifest.write_text(line + "\n" + second + "\n")
        with pytest.raises(ShardError, match="chain"):
            recover(tmp_path / "w")


def test_shards_open_with_stock_pyarrow_duckdb_and_polars(tmp_path: Path) -> None:
    import duckdb
    import polars
    import pyarrow.dataset

    write(tmp_path / "w", 50)
    files = [str(p) for p in (tmp_path / "w").glob("*.arrow")]
    rows = pyarrow.dataset.dataset(files, format="ipc")
    assert rows.count_rows() == 50
    assert duckdb.sql("select count(*), count(action_text) from rows").fetchall() == [(50, 40)]
    frame = polars.scan_ipc(files).select(polars.len(), polars.col("reward").sum()).collect()
    assert frame["len"][0] == 50


class FullDisk(Disk):
    """A real disk that says it is full, by a failing sync or by its free space."""

    free, refusing = 1 << 40, False

    def free_bytes(self, directory: Path) -> int:
        return self.free

    def sync(self, descriptor: int) -> None:
        if self.refusing:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().sync(descriptor)


@pytest.mark.parametrize("how", ["low water", "a failing sync"])
def test_a_full_disk_pauses_and_everything_is_kept_once_there_is_room(
    tmp_path: Path, how: str
) -> None:
    disk = FullDisk()
    journal = Journal(tmp_path / "w", CATALOGUE, commit_seconds=10, disk=disk)
    for t in range(10):
        journal.append(make_step(t))
    journal.commit()
    journal.append(make_step(10))
    disk.free, disk.refusing = (1 << 20, False) if how == "low water" else (1 << 40, True)
    journal.commit()
    assert journal.paused and journal.acknowledged[b"s" * 16] == 9
    if how == "low water":
        assert next((tmp_path / "w").glob("*.arrow")), (
            "what was acknowledged is sealed while there is room"
        )
    with pytest.raises((ShardError, OSError), match=r"could not be kept|No space"):
        journal.close()
    disk.free, disk.refusing = 1 << 40, False
    journal.commit()
    assert not journal.paused and journal.acknowledged[b"s" * 16] == 10
    journal.close()
    assert [s.t for s in read(tmp_path)] == list(range(11))


def test_a_reader_that_saw_a_block_before_its_sync_failed_is_given_its_rows_once(
    tmp_path: Path,
) -> None:
    class Failing(Disk):
        fails = 0

        def sync(self, descriptor: int) -> None:
            self.fails -= 1
            if self.fails == 0:
                assert [s.t for s in catalog_rows()] == [0, 1], (
                    "the block was visible before it was synced"
                )
                raise OSError(errno.EIO, "the disk is going")
            super().sync(descriptor)

    catalog = Catalog(tmp_path)

    def catalog_rows() -> list[Step]:
        seen.extend(step for block in catalog.follow() for step in block)
        return seen

    seen: list[Step] = []
    disk = Failing()
    journal = Journal(tmp_path / "w", CATALOGUE, batch_rows=10, commit_seconds=10, disk=disk)
    journal.append(make_step(0))
    journal.append(make_step(1))
    disk.fails = 2  # the record's sync, after the data's
    with pytest.raises(OSError, match="going"):
        journal.commit()
    journal.append(make_step(2))
    journal.close()
    assert [s.t for s in catalog_rows()] == [0, 1, 2]
    assert [s.t for s in read(tmp_path)] == [0, 1, 2]


def test_a_newer_incarnation_that_comes_meanwhile_is_seen_before_anything_is_acknowledged(
    tmp_path: Path,
) -> None:
    class Racing(Disk):
        until = 0

        def sync(self, descriptor: int) -> None:
            super().sync(descriptor)
            self.until -= 1
            if self.until == 0:  # the data is on disk, its record is not
                newer.append(Journal(tmp_path / "w", CATALOGUE))

    newer: list[Journal] = []
    disk = Racing()
    old = Journal(tmp_path / "w", CATALOGUE, commit_seconds=10, disk=disk)
    old.append(make_step(0))
    old.commit()
    old.append(make_step(1))
    disk.until = 1
    with pytest.raises(FencedError):
        old.commit()
    assert old.acknowledged[b"s" * 16] == 0
    newer[0].append(make_step(1))
    newer[0].close()
    assert [s.t for s in read(tmp_path)] == [0, 1]
    assert recover(tmp_path / "w") == {b"s" * 16: 1}
