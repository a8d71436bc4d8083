"""Readers beside a compaction: each committed row is given once, whenever shards go cold under
their eyes."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from actors.reading.query import connect
from experience.errors import ShardError
from experience.shards.catalog import Catalog, check_acknowledged
from experience.shards.cold.compaction import compact
from experience.shards.journal import Journal
from experience.shards.sampling.windows import WindowReader
from experience.shards.storage.disk import Disk
from experience.shards.verify import verify
from tests.conftest import CATALOGUE, make_step

Rows = list[tuple[bytes, int]]


def write(store: Path, writer: str, rows: int, seal_bytes: int = 1, *, close: bool = True) -> None:
    journal = Journal(
        store / writer,
        CATALOGUE,
        batch_rows=3,
        commit_seconds=10,
        seal_bytes=seal_bytes,
        low_water_bytes=0,
    )
    for _ in range(rows):
        t = journal.next_t(writer.encode() * 16)
        journal.append(make_step(t, writer.encode() * 16))
    if close:
        journal.close()
    else:
        journal.commit()


class Interrupted(Disk):
    """A real disk on which something else happens just before the `at`-th call of a reader."""

    def __init__(self, at: int, event: Callable[[], object]) -> None:
        self._at, self._event, self.calls = at, event, 0

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self._at:
            self._event()

    def names(self, directory: Path) -> list[str]:
        self._count()
        return super().names(directory)

    def read(self, path: Path, start: int = 0, end: int | None = None) -> bytes:
        self._count()
        return super().read(path, start, end)

    def mapped(self, path: Path) -> pa.Buffer:
        self._count()
        return super().mapped(path)

    def size(self, path: Path) -> int:
        self._count()
        return super().size(path)

    def exists(self, path: Path) -> bool:
        self._count()
        return super().exists(path)

    def directories(self, directory: Path) -> list[Path]:
        self._count()
        return super().directories(directory)


def keys_of(table: Any) -> Rows:
    return list(
        zip(table.column("stream_id").to_pylist(), table.column("t").to_pylist(), strict=True)
    )


def followed(store: Path, disk: Disk) -> Rows:
    catalog, found = Catalog(store, disk=disk), []
    for _ in range(2):
        found += [(s.stream_id, s.t) for steps in catalog.follow() for s in steps]
    return found


def windowed(store: Path, disk: Disk) -> Rows:
    reader = WindowReader(store, ("t", "obs_text"), disk=disk)
    reader.refresh()
    reader.refresh()
    rows = pa.array(range(reader.rows)).to_numpy()
    streams, ts = reader.identify(rows)
    texts = reader.gather(rows.reshape(-1, 1)).ragged["obs_text"]
    assert [bytes(texts.row(i)).decode().split()[1] for i in rows] == [str(t) for t in ts]
    usable = reader._index._mark.view & 16 == 0
    return [(bytes(s), int(t)) for s, t, ok in zip(streams.tolist(), ts, usable, strict=True) if ok]


READERS: dict[str, Callable[[Path, Disk], Rows]] = {
    "follow": followed,
    "windows": windowed,
    "dataset": lambda store, disk: keys_of(Catalog(store, disk=disk).dataset().to_table()),
    "table": lambda store, disk: keys_of(Catalog(store, disk=disk).table(["stream_id", "t"])),
    "batches": lambda store, disk: [
        k for b in Catalog(store, disk=disk).batches() for k in keys_of(b)
    ],
}


@pytest.mark.parametrize("reader", READERS)
def test_a_compaction_before_any_call_of_a_reader_costs_and_doubles_no_row(
    reader: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    step = 1 if request.config.getoption("--long") else 5
    every, at = sorted((w.encode() * 16, t) for w in "ab" for t in range(21)), 1 - step
    for writer in "ab":
        write(tmp_path / "store", writer, 9)
    compact(tmp_path / "store")
    for writer in "ab":
        write(tmp_path / "store", writer, 9)
        write(tmp_path / "store", writer, 3, seal_bytes=1 << 20, close=False)
    while True:
        at += step
        store = tmp_path / str(at)
        shutil.copytree(tmp_path / "store", store)
        disk = Interrupted(at, lambda store=store: compact(store))  # type: ignore[misc]
        assert sorted(READERS[reader](store, disk)) == every, f"compaction before call {at}"
        if disk.calls < at:
            break
    assert at > 10


@pytest.mark.timeout(0)
def test_compaction_in_a_loop_beside_writers_and_readers_loses_and_doubles_nothing(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    for number in range(200 if request.config.getoption("--long") else 20):
        _one_round(tmp_path / str(number))


def _one_round(store: Path) -> None:
    done, errors = threading.Event(), []
    store.mkdir()

    def guarded(call: Callable[[], object], until: threading.Event) -> Callable[[], None]:
        def run() -> None:
            try:
                while not until.is_set():
                    call()
            except BaseException as error:  # noqa: BLE001  whatever it was fails the test
                errors.append(error)

        return run

    catalog, given, windows = Catalog(store), [], WindowReader(store, ("t",))

    def follow() -> None:
        given.extend((s.stream_id, s.t) for steps in catalog.follow() for s in steps)

    def query() -> None:
        rows = (
            connect({"steps": store})
            .sql("select stream_id, count(*), max(t) from steps group by all")
            .fetchall()
        )
        assert all(count == last + 1 for _, count, last in rows), rows

    def compacting() -> None:
        try:
            compact(store)
        except ShardError as error:
            assert "another process" in str(error), error
        time.sleep(0.005)

    readers = [
        threading.Thread(target=guarded(call, done)) for call in (follow, query, windows.refresh)
    ]
    compactor = threading.Thread(target=guarded(compacting, done))
    writers = [threading.Thread(target=write, args=(store, w, 30, 4_000)) for w in "ab"]
    for thread in (*readers, compactor, *writers):
        thread.start()
    for thread in writers:
        thread.join(60)
    done.set()
    for thread in (*readers, compactor):
        thread.join(60)
    assert not errors, errors
    follow()
    windows.refresh()
    every = sorted((w.encode() * 16, t) for w in "ab" for t in range(30))
    assert sorted(given) == every
    assert int((windows._index._mark.view & 16 == 0).sum()) == 60
    assert check_acknowledged(store, {w.encode() * 16: 29 for w in "ab"}, catalog.given) == 60
    assert not verify(store, deep=True).problems


def test_rows_that_a_follower_was_not_given_are_an_error_at_the_end(tmp_path: Path) -> None:
    write(tmp_path, "a", 9)
    catalog = Catalog(tmp_path)
    list(catalog.follow())
    assert check_acknowledged(tmp_path, {b"a" * 16: 8}, catalog.given) == 9
    write(tmp_path, "a", 3)
    with pytest.raises(ShardError, match=r"of 12 rows .* was given 9"):
        check_acknowledged(tmp_path, {b"a" * 16: 11}, catalog.given)


def test_a_follower_says_so_when_rows_before_are_missing(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    catalog.note(b"a" * 16, 0, 4)
    with pytest.raises(ShardError, match="jumps from t = 4 to 6"):
        catalog.note(b"a" * 16, 6, 6)
