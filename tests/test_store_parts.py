"""The small parts of a store, each alone: prompts, manifest, sums, fence, reserve, what is known."""

from __future__ import annotations

import errno
import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from experience.errors import FencedError, ShardError
from experience.shards.amend import Amendment, amend
from experience.shards.cold.compaction import compact
from experience.shards.cold.retention import merged, spans_of
from experience.shards.cold.snapshot import Snapshot, by_stream, read_snapshot
from experience.shards.journal import Journal
from experience.shards.known import Known
from experience.shards.record.prompts import PromptDeltas, common_prefix
from experience.shards.storage import sums
from experience.shards.storage.blobs import media_and_size
from experience.shards.storage.blocks import Commit, read_commits
from experience.shards.storage.checked import Expected, open_all, open_checked
from experience.shards.storage.disk import REAL
from experience.shards.storage.locate import find_store, given_store
from experience.shards.storage.manifest import append_manifest, read_manifest
from experience.shards.storage.unpacked import check_unpacked, rows_a_group, unpacked
from experience.shards.writing.fence import Fence
from experience.shards.writing.reserve import Reserve, is_full
from experience.signal import SignalKind
from tests.conftest import CATALOGUE, make_step

STREAM = b"s" * 16


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


def a_store(path: Path, steps: int = 10, seals: int = 1, writer: str = "w") -> Path:
    """A store of one stream, sealed `seals` times, at even distances."""
    for _ in range(seals):
        journal = Journal(path / writer, CATALOGUE)
        for _step in range(steps // seals):
            journal.append(make_step(journal.next_t(STREAM)))
        journal.close()
    return path


# Prompts


def test_a_prompt_that_goes_on_from_the_last_context_is_stored_as_its_new_tokens() -> None:
    deltas = PromptDeltas()
    assert deltas.shrink(STREAM, ids(1, 2, 3), ids(4))[0] == 0
    kept, new = deltas.shrink(STREAM, ids(1, 2, 3, 4, 9), ids(5))
    assert kept == 4 and new.tolist() == [9]


def test_prompts_come_back_whole_in_the_order_in_which_they_were_shrunk() -> None:
    prompts = [ids(1, 2, 3), ids(1, 2, 3, 7, 8), ids(1, 2, 9), ids()]
    out, back = PromptDeltas(), PromptDeltas()
    for prompt in prompts:
        kept, new = out.shrink(STREAM, prompt, ids(7))
        assert back.expand(STREAM, kept, new, ids(7)).tolist() == prompt.tolist()


def test_the_contexts_of_two_streams_do_not_mix() -> None:
    deltas = PromptDeltas()
    deltas.shrink(STREAM, ids(1, 2, 3), ids(4))
    assert deltas.shrink(b"o" * 16, ids(1, 2, 3, 4), ids(5))[0] == 0


def test_a_new_segment_shares_no_tokens_with_the_one_before_it() -> None:
    deltas = PromptDeltas()
    deltas.shrink(STREAM, ids(1, 2), ids(3))
    deltas.forget()
    assert deltas.shrink(STREAM, ids(1, 2, 3), ids(4))[0] == 0


def test_a_prompt_whose_earlier_rows_were_not_read_is_an_error() -> None:
    with pytest.raises(ShardError, match="keeps 3 tokens of a context of 0"):
        PromptDeltas().expand(STREAM, 3, ids(4), ids(5))


@pytest.mark.parametrize(
    ("a", "b", "shared"),
    [
        (ids(), ids(), 0),
        (ids(1), ids(), 0),
        (ids(1, 2), ids(1, 2, 3), 2),
        (ids(1, 9, 3), ids(1, 2, 3), 1),
    ],
)
def test_a_common_prefix_ends_at_the_first_difference(
    a: np.ndarray, b: np.ndarray, shared: int
) -> None:
    assert common_prefix(a, b) == common_prefix(b, a) == shared


# The manifest


def test_a_manifest_gives_back_its_lines_each_chained_to_the_one_before(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) == []
    for number in range(3):
        append_manifest(tmp_path / f"seg-000000-{number:06d}.arrow", 5, 100 + number, "ab")
    lines = read_manifest(tmp_path)
    assert [line["bytes"] for line in lines] == [100, 101, 102]
    raw = (tmp_path / "MANIFEST").read_bytes().splitlines(keepends=True)
    assert [line["previous"] for line in lines[1:]] == [
        hashlib.sha256(earlier).hexdigest() for earlier in raw[:-1]
    ]


def test_sealing_a_shard_once_more_writes_its_line_once(tmp_path: Path) -> None:
    sealed = tmp_path / "seg-000000-000000.arrow"
    append_manifest(sealed, 5, 100, "ab")
    append_manifest(sealed, 5, 120, "cd")
    assert [(line["bytes"], line["sha256"]) for line in read_manifest(tmp_path)] == [(120, "cd")]


def test_an_earlier_line_is_never_replaced_by_other_contents(tmp_path: Path) -> None:
    first, second = (tmp_path / f"seg-000000-{n:06d}.arrow" for n in (0, 1))
    append_manifest(first, 5, 100, "ab")
    append_manifest(second, 5, 100, "ab")
    append_manifest(first, 5, 100, "ab")
    assert len(read_manifest(tmp_path)) == 2
    with pytest.raises(ShardError, match="is named already, with other contents"):
        append_manifest(first, 6, 100, "ab")


@pytest.mark.parametrize("damage", ["drop the first", "drop the last's end", "swap", "flip"])
def test_a_line_that_was_dropped_swapped_or_changed_breaks_the_chain(
    tmp_path: Path, damage: str
) -> None:
    for number in range(3):
        append_manifest(tmp_path / f"seg-000000-{number:06d}.arrow", 5, 100, "ab")
    file = tmp_path / "MANIFEST"
    lines = file.read_bytes().splitlines(keepends=True)
    damaged = {
        "drop the first": lines[1:],
        "drop the last's end": [*lines[:2], lines[2][:-1]],
        "swap": [lines[1], lines[0], lines[2]],
        "flip": [lines[0], lines[1].replace(b": 5,", b": 6,"), lines[2]],
    }[damage]
    file.write_bytes(b"".join(damaged))
    with pytest.raises(ShardError, match="the chain is broken"):
        read_manifest(tmp_path)


def test_a_manifest_that_names_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    append_manifest(tmp_path / "elsewhere.arrow", 5, 100, "ab")
    with pytest.raises(ShardError, match=":1: the chain is broken"):
        read_manifest(tmp_path)


# Sums of a checkpoint


def test_a_folder_is_read_back_only_as_it_was_written(tmp_path: Path) -> None:
    files = {"weights": b"\0\1\2", "replay.json": b"{}"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / sums.NAME).write_bytes(sums.sums(files))
    assert sums.read_checked(tmp_path) == files
    (tmp_path / "more").write_bytes(b"")
    with pytest.raises(ShardError, match="more is not in SHA256SUMS"):
        sums.read_checked(tmp_path)
    (tmp_path / "more").unlink()
    (tmp_path / "weights").write_bytes(b"\0\1\3")
    with pytest.raises(ShardError, match="weights does not match SHA256SUMS"):
        sums.read_checked(tmp_path)
    (tmp_path / "weights").unlink()
    with pytest.raises(ShardError, match="weights is missing"):
        sums.read_checked(tmp_path)


@pytest.mark.parametrize(
    "text", [b"", b"no sum\n", b"0" * 64 + b"  ../up\n", b"0" * 64 + b"  a", b"\xff\n"]
)
def test_a_list_of_sums_that_is_none_is_damaged(tmp_path: Path, text: bytes) -> None:
    (tmp_path / sums.NAME).write_bytes(text)
    with pytest.raises(ShardError, match=r"is damaged|cannot be read"):
        sums.read_checked(tmp_path)


def test_a_list_that_names_a_file_twice_is_damaged(tmp_path: Path) -> None:
    (tmp_path / sums.NAME).write_bytes(2 * sums.sums({"a": b""}))
    with pytest.raises(ShardError, match="is damaged"):
        sums.read_checked(tmp_path)


# Files held against their sums


def test_a_mapped_file_is_given_only_with_the_size_and_the_bytes_expected(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    right = Expected(file, 3, hashlib.sha256(b"abc").hexdigest())
    assert open_checked(right).to_pybytes() == b"abc"
    assert [buffer.size for buffer in open_all([right, right])] == [3, 3]
    with pytest.raises(ShardError, match="holds 3 bytes, 4 expected"):
        open_checked(replace(right, bytes=4))
    file.write_bytes(b"abd")
    with pytest.raises(ShardError, match="is damaged"):
        open_checked(right)
    assert open_checked(right, checked=False).to_pybytes() == b"abd"
    file.unlink()
    with pytest.raises(FileNotFoundError):
        open_all([right])


# The fence and the reserve


def test_of_two_incarnations_the_older_may_go_on_no_more(tmp_path: Path) -> None:
    older = Fence(tmp_path, REAL)
    older.check()
    newer = Fence(tmp_path, REAL)
    newer.check()
    assert newer.epoch == older.epoch + 1
    with pytest.raises(FencedError, match="was replaced by a newer one") as raised:
        older.check()
    assert raised.value.exit_code == 4


def test_a_new_incarnation_numbers_itself_after_segments_whose_fence_is_gone(
    tmp_path: Path,
) -> None:
    (tmp_path / "seg-000007-000000.arrow").touch()
    assert Fence(tmp_path, REAL).epoch == 8


def test_the_reserve_takes_room_once_and_gives_it_back_once(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path, 4096, REAL)
    assert not reserve.free()
    reserve.keep()
    reserve.keep()
    assert (tmp_path / "RESERVE").stat().st_size == 4096
    assert reserve.free() and not reserve.free()


def test_only_a_full_disk_and_a_quota_are_called_full() -> None:
    assert is_full(OSError(errno.ENOSPC, "")) and is_full(OSError(errno.EDQUOT, ""))
    assert not is_full(OSError(errno.EIO, ""))


# What a store knows


def test_a_store_knows_each_step_and_signal_hot_and_cold(tmp_path: Path) -> None:
    store = a_store(tmp_path / "shards", 10, seals=2)
    for went_cold in (False, True):
        known = Known(store)
        assert [known.holds(STREAM, t) for t in (-1, 0, 9, 10)] == [False, True, True, False]
        assert not known.holds(b"x" * 16, 0)
        assert Known(store).kind("cost") == CATALOGUE["cost"]
        assert Known(store).kind("nonsense") is None
        assert Known(store).signals() == CATALOGUE
        if not went_cold:
            compact(store)


def test_a_store_knows_a_signal_that_only_an_amendment_declared(tmp_path: Path) -> None:
    store = a_store(tmp_path / "shards")
    liked = SignalKind("1", "human")
    amend(store, [Amendment(STREAM, 3, "liked", 1.0)], new={"liked": liked})
    assert Known(store).kind("liked") == liked
    assert Known(store).signals()["liked"] == liked
    assert "liked" not in Known(store).signals(amended=False)


def test_an_open_segment_and_an_empty_store_are_known_too(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    assert not Known(tmp_path / "shards").holds(STREAM, 0)
    journal = Journal(tmp_path / "shards" / "w", CATALOGUE)
    journal.append(make_step(0))
    journal.commit()
    known = Known(tmp_path / "shards")
    assert known.holds(STREAM, 0) and known.signals() == CATALOGUE
    journal.close()


# Retention and snapshots


def test_runs_of_rows_that_touch_are_one_run() -> None:
    assert merged([(4, 5), (0, 1), (2, 3), (9, 9)]) == [(0, 5), (9, 9)]
    assert merged([(0, 9), (2, 3)]) == [(0, 9)]
    assert merged([]) == []


def test_the_runs_of_a_table_are_told_by_stream() -> None:
    table = pa.table(
        {
            "stream_id": pa.array([STREAM, STREAM, b"o" * 16, STREAM], pa.binary(16)),
            "t": [0, 1, 7, 5],
        }
    )
    assert spans_of(table) == {STREAM.hex(): [(0, 1), (5, 5)], (b"o" * 16).hex(): [(7, 7)]}


def test_removed_rows_are_told_by_stream_whichever_writer_held_them() -> None:
    stream = STREAM.hex()
    removed = {"a": {stream: [(0, 1)]}, "b": {stream: [(2, 3)]}}
    assert by_stream(removed) == {stream: [(0, 3)]}
    snapshot = Snapshot(removed=removed, removed_beginnings={stream: 6})
    assert snapshot.removed_spans == {STREAM: [(0, 5)]}
    assert [snapshot.next_kept(STREAM, t) for t in (0, 5, 6)] == [6, 6, 6]
    assert snapshot.next_kept(b"o" * 16, 2) == 2
    assert snapshot.last("b") == {STREAM: 3}


def test_a_snapshot_that_was_changed_or_renamed_is_refused(tmp_path: Path) -> None:
    store = a_store(tmp_path / "shards")
    compact(store)
    (file,) = (store / "snapshots").glob("*.json")
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"part-", b"part-1", 1))
    with pytest.raises(ShardError, match="is damaged"):
        read_snapshot(store)
    body = whole.rpartition(b"\n")[0]
    outside = body.replace(b'"part-000001.parquet"', b'"../part-1.parquet"')
    assert outside != body
    file.write_bytes(outside + b"\n" + hashlib.sha256(outside).hexdigest().encode())
    with pytest.raises(ShardError, match="which is no file of this store"):
        read_snapshot(store)
    file.write_bytes(whole)
    file.rename(file.with_name("000009.json"))
    with pytest.raises(ShardError, match="names '1'"):
        read_snapshot(store)


# Commit logs


def test_a_commit_log_is_read_up_to_what_was_never_written() -> None:
    first = Commit.of(b"block", 0, 4, 5, 1)
    second = Commit.of(b"more", first.end, 6, 2, 2)
    log = first.pack() + second.pack()
    assert list(read_commits(log + bytes(32))) == [first, second]
    assert list(read_commits(log[:-1])) == [first]
    assert first.matches(b"block") and not first.matches(b"blocK") and not first.matches(b"bloc")


def test_a_record_that_no_writer_made_is_damage() -> None:
    first = Commit.of(b"block", 0, 4, 5, 1)
    wrong = Commit.of(b"more", first.end, 9, 2, 2)
    with pytest.raises(ShardError, match="the log: the record after row 4 is damaged"):
        list(read_commits(first.pack() + wrong.pack(), where="the log"))


# Where a store is, and what it unpacks to


def test_a_store_is_found_by_whatever_names_it(tmp_path: Path) -> None:
    store = a_store(tmp_path / "run" / "shards")
    (tmp_path / "run" / "run.json").write_text("{}")
    assert find_store(tmp_path / "run") == find_store(str(store)) == store
    assert given_store(tmp_path / "run") == store
    with pytest.raises(ShardError, match="holds no imagined"):
        find_store(tmp_path / "run", imagined=True)
    with pytest.raises(ShardError, match="runs there: run"):
        find_store(tmp_path / "nun")
    assert given_store(tmp_path) == tmp_path, "an empty store may be followed before its first row"


def test_the_memory_of_a_parquet_file_is_known_before_it_is_read(tmp_path: Path) -> None:
    table = pa.table({"word": ["a" * 1000] * 1000})
    sink = io.BytesIO()
    parquet.write_table(table, sink)
    check_unpacked(pa.py_buffer(sink.getvalue()), tmp_path / "a.parquet")
    assert unpacked(table.column("word").combine_chunks().dictionary_encode()) >= 1_000_000
    assert rows_a_group(table, 10) == 10
    assert rows_a_group(pa.table({"a": pa.array([], pa.int8())}), 10) == 10


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            b"\x89PNG\r\n\x1a\n" + bytes(8) + (3).to_bytes(4, "big") + (2).to_bytes(4, "big"),
            ("image/png", 3, 2),
        ),
        (b"\x89PNG\r\n\x1a\n", ("application/octet-stream", 0, 0)),
        (b"\xff\xd8\xff\xe0", ("image/jpeg", 0, 0)),
        (b"RIFF....WEBP", ("image/webp", 0, 0)),
        (b"", ("application/octet-stream", 0, 0)),
    ],
)
def test_a_pictures_kind_is_told_by_its_first_bytes(
    data: bytes, said: tuple[str, int, int]
) -> None:
    assert media_and_size(data) == said
