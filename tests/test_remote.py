"""Object stores: sealed shards are sent once, and followed and verified from there."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as fs
import pytest

from experience.shards.blobs import BlobReader
from experience.shards.catalog import Catalog
from experience.shards.cold import compact
from experience.shards.journal import Journal
from experience.shards.remote import RemoteDisk, mirror
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
    """A directory, and a bucket behind the real S3 protocol (moto's server on loopback, pyarrow's client)."""
    if request.param == "local":
        (tmp_path / "bucket").mkdir()
        yield RemoteDisk(fs.LocalFileSystem(), str(tmp_path / "bucket"))
        return
    server = pytest.importorskip("moto.server", reason="./xp setup worlds").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    bucket = fs.S3FileSystem(endpoint_override=f"{host}:{port}", scheme="http", access_key="test", secret_key="test",
                             region="us-east-1", allow_bucket_creation=True)
    name = f"bucket-{uuid.uuid4()}"
    bucket.create_dir(name)
    yield RemoteDisk(bucket, name)
    server.stop()


def test_what_is_sealed_is_sent_once_and_reads_the_same_from_there(tmp_path: Path, remote: RemoteDisk) -> None:
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
    assert all(blobs.read(b.hash) == b"picture %d" % s.t for block in Catalog(THERE, disk=remote).follow()
               for s in block for b in s.obs_blobs)
    found = verify(THERE, deep=True, disk=remote)
    assert not found.problems and (found.rows, found.blobs) == (16, 16)


def test_cold_parts_are_read_from_there_too(tmp_path: Path, remote: RemoteDisk) -> None:
    write(tmp_path / "store", 10)
    compact(tmp_path / "store")
    write(tmp_path / "store", 5)
    mirror(tmp_path / "store", remote, THERE)
    assert [s.t for block in Catalog(THERE, disk=remote).follow() for s in block] == list(range(15))
    assert not verify(THERE, deep=True, disk=remote).problems
