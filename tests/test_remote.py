"""Object stores: sealed shards are sent once, and followed and verified from there."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.fs as fs
import pytest

from actors.config.schema import load
from experience.errors import ConfigError, ShardError
from experience.shards.amend import Amendment, amend, follow_amended
from experience.shards.catalog import Catalog
from experience.shards.cold.compaction import compact
from experience.shards.forget import forget
from experience.shards.journal import Journal
from experience.shards.sampling.windows import WindowReader
from experience.shards.storage.blobs import BlobReader, sweep
from experience.shards.storage.remote import RemoteDisk, mirror
from experience.shards.verify import verify
from tests.conftest import CATALOGUE, make_step

THERE = Path("run-1")


def write(store: Path, rows: int, *, close: bool = True) -> Journal:
    journal = Journal(store / "w", CATALOGUE, batch_rows=4)
    for _ in range(rows):
        t = journal.next_t(b"s" * 16)
        journal.append(make_step(t, obs_blobs=(journal.blobs.put(b"picture %d" % t, "image/png"),)))
    journal.commit()
    if close:
        journal.close()
    return journal


@pytest.fixture(params=["local", "s3"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RemoteDisk]:
    """A directory, and a bucket behind the real S3 protocol (moto's server on loopback, pyarrow's
    client)."""
    if request.param == "local":
        (tmp_path / "bucket").mkdir()
        yield RemoteDisk(fs.LocalFileSystem(), str(tmp_path / "bucket"))
        return
    server = pytest.importorskip("moto.server", reason="./xp setup worlds").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    server.start()
    host, port = server.get_host_and_port()
    bucket = fs.S3FileSystem(
        endpoint_override=f"{host}:{port}",
        scheme="http",
        access_key="test",
        secret_key="test",
        region="us-east-1",
        allow_bucket_creation=True,
    )
    name = f"bucket-{uuid.uuid4()}"
    bucket.create_dir(name)
    yield RemoteDisk(bucket, name)
    server.stop()


def test_what_is_sealed_is_sent_once_and_reads_the_same_from_there(
    tmp_path: Path, remote: RemoteDisk
) -> None:
    store, catalog = tmp_path / "store", Catalog(THERE, disk=remote)
    write(store, 10)
    assert mirror(store, remote, THERE) > 0 and mirror(store, remote, THERE) == 0
    assert [s.t for block in catalog.follow() for s in block] == list(range(10))
    growing = write(store, 6, close=False)
    mirror(store, remote, THERE)
    assert [s.t for block in catalog.follow() for s in block] == [], "not sealed yet"
    growing.close()
    mirror(store, remote, THERE)
    assert [s.t for block in catalog.follow() for s in block] == list(range(10, 16))
    blobs = BlobReader(THERE, remote)
    assert all(
        blobs.read(b.hash) == b"picture %d" % s.t
        for block in Catalog(THERE, disk=remote).follow()
        for s in block
        for b in s.obs_blobs
    )
    found = verify(THERE, deep=True, disk=remote)
    assert not found.problems and (found.rows, found.blobs) == (16, 16)


def test_cold_parts_are_read_from_there_too(tmp_path: Path, remote: RemoteDisk) -> None:
    write(tmp_path / "store", 10)
    compact(tmp_path / "store")
    write(tmp_path / "store", 5)
    mirror(tmp_path / "store", remote, THERE)
    assert [s.t for block in Catalog(THERE, disk=remote).follow() for s in block] == list(range(15))
    assert not verify(THERE, deep=True, disk=remote).problems


@pytest.mark.parametrize("cold", [False, True])
def test_every_reader_reads_from_there_as_a_follower_does(
    tmp_path: Path, remote: RemoteDisk, cold: bool
) -> None:
    store = tmp_path / "store"
    write(store, 10)
    if cold:
        compact(store)
        write(store, 5)
    rows = 15 if cold else 10
    amend(store, [Amendment(b"s" * 16, 3, "done", 0.9)])
    mirror(store, remote, THERE)
    catalog = Catalog(THERE, disk=remote)
    steps = catalog.dataset()
    assert steps.count_rows() == rows and duckdb.sql("select max(t) from steps").fetchall() == [
        (rows - 1,)
    ]
    assert catalog.table(["t", "signal.done"]).num_rows == rows
    windows = WindowReader(THERE, ("t", "obs_text"), disk=remote)
    assert windows.refresh() == rows
    drawn = windows.gather(windows.draw(20, 3))
    assert (np.diff(drawn.numbers["t"], axis=1) == 1).all()
    amended = {s.t: s for block in follow_amended(THERE, disk=remote) for s in block}
    assert (
        len(amended) == rows
        and amended[3].signals[0].value == 0.9
        and amended[2].signals[0].value == 0.5
    )


def test_a_writer_that_is_given_an_object_store_is_refused_and_writes_nothing_anywhere(
    tmp_path: Path, remote: RemoteDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "store", 10)
    mirror(tmp_path / "store", remote, THERE)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for attempt in (
        lambda: Journal(THERE / "w", CATALOGUE, disk=remote),
        lambda: compact(THERE, disk=remote),
        lambda: amend(THERE, [Amendment(b"s" * 16, 3, "done", 0.9)], remote),
        lambda: sweep(THERE, [], remote),
        lambda: remote.write_file(THERE / "x", [b"x"]),
    ):
        with pytest.raises(ShardError, match="read here, not written to"):
            attempt()
    assert sorted(tmp_path.rglob("*")) == before


def test_what_was_forgotten_here_goes_there_when_it_is_pruned(
    tmp_path: Path, remote: RemoteDisk
) -> None:
    write(tmp_path / "shards", 10)
    mirror(tmp_path / "shards", remote, THERE)
    journal = Journal(tmp_path / "shards" / "w", CATALOGUE)
    journal.append(make_step(0, b"k" * 16))
    journal.close()
    forget(tmp_path, streams=[b"s" * 16])
    mirror(tmp_path / "shards", remote, THERE, prune=True)
    assert [
        (s.stream_id, s.t) for block in Catalog(THERE, disk=remote).follow() for s in block
    ] == [(b"k" * 16, 0)]
    assert not verify(THERE, deep=True, disk=remote).problems
    assert not [
        n
        for d in remote.directories(THERE)
        for n in remote.names(d)
        if n.endswith((".arrow", ".blobs"))
    ]


@pytest.mark.parametrize("address", ["s3://bucket/runs", "gs://b/r", "S3:/b", "file:///tmp/x"])
def test_runs_are_not_written_to_a_folder_that_is_named_like_an_address(
    tmp_path: Path, address: str
) -> None:
    with pytest.raises(ConfigError, match=r"runs_dir: .* is an address"):
        load([], [f"runs_dir={address}"])
