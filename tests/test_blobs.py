"""Blobs: what was seen is kept once, before the row that names it, and is never given wrong."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from experience.errors import ShardError
from experience.shards.catalog import Catalog
from experience.shards.journal import Journal
from experience.shards.storage.blobs import BlobReader, entries, packs, sweep
from experience.shards.verify import verify
from tests.conftest import CATALOGUE, make_step


def a_store(path: Path, writers: str = "w", pictures: int = 4, steps: int = 12) -> list[bytes]:
    shown = [bytes([i]) * 1000 + os.urandom(200) for i in range(pictures)]
    for writer in writers:
        journal = Journal(path / writer, CATALOGUE, batch_rows=5)
        for t in range(steps):
            blob = journal.blobs.put(
                shown[t % pictures], "image/png", width=20, height=10, role="screenshot"
            )
            journal.append(make_step(t, writer.encode() * 16, obs_blobs=(blob,)))
        journal.close()
    return shown


def test_a_picture_seen_many_times_is_stored_once_and_read_back_whole(tmp_path: Path) -> None:
    shown = a_store(tmp_path)
    size = sum(p.stat().st_size for p in packs(tmp_path / "w"))
    assert size < 4 * (1200 + 60)
    reader, found = BlobReader(tmp_path), [s for block in Catalog(tmp_path).follow() for s in block]
    assert [reader.read(s.obs_blobs[0].hash) for s in found] == [shown[t % 4] for t in range(12)]
    blob = found[0].obs_blobs[0]
    assert (blob.media, blob.nbytes, blob.w, blob.h, blob.role) == (
        "image/png",
        1200,
        20,
        10,
        "screenshot",
    )
    assert verify(tmp_path, deep=True).blobs == 4


def test_a_writer_that_comes_back_does_not_store_again_what_it_has(tmp_path: Path) -> None:
    shown = a_store(tmp_path)
    journal = Journal(tmp_path / "w", CATALOGUE)
    journal.append(make_step(12, b"w" * 16, obs_blobs=(journal.blobs.put(shown[0], "image/png"),)))
    journal.close()
    assert len(packs(tmp_path / "w")) == 1


def test_a_damaged_or_missing_blob_is_an_error_and_costs_no_other(tmp_path: Path) -> None:
    a_store(tmp_path)
    (pack,) = packs(tmp_path / "w")
    whole = pack.read_bytes()
    digests = [digest for digest, _ in entries(pack)]
    for at, reads in ((30, "missing"), (200, "damaged")):  # in the first one's head; in its bytes
        pack.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        reader = BlobReader(tmp_path)
        with pytest.raises(ShardError, match=reads):
            reader.read(digests[0])
        assert [hashlib.sha256(reader.read(d)).digest() for d in digests[1:]] == digests[1:]
        assert len(verify(tmp_path, deep=True).problems) == 1


def test_a_reader_follows_a_pack_while_it_grows(tmp_path: Path) -> None:
    journal, reader = Journal(tmp_path / "w", CATALOGUE), BlobReader(tmp_path)
    for t in range(3):
        blob = journal.blobs.put(b"%d" % t * 500, "image/png")
        assert blob.hash not in reader
        journal.append(make_step(t, obs_blobs=(blob,)))
        journal.commit()
        assert reader.read(blob.hash) == b"%d" % t * 500
    journal.close()


def test_sweeping_drops_what_no_row_names_and_all_copies_but_one(tmp_path: Path) -> None:
    shown = a_store(tmp_path, writers="ab")
    named = {hashlib.sha256(data).digest() for data in shown[:3]}
    assert sweep(tmp_path, named) == (5, 5 * 1200)
    reader = BlobReader(tmp_path)
    assert {hashlib.sha256(reader.read(d)).digest() for d in named} == named
    assert hashlib.sha256(shown[3]).digest() not in reader
    assert not packs(tmp_path / "b")


def test_a_blob_beyond_the_limit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "w", CATALOGUE)
    with pytest.raises(ShardError, match="64 MiB"):
        journal.blobs.put(bytes((64 << 20) + 1), "image/png")
    journal.close()
