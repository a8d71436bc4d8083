"""Damage: whatever happens to a byte of a store is noticed, costs one block at most, and never
crashes a reader."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from experience.errors import ShardError
from experience.shards.journal import Journal
from experience.shards.storage.blocks import COMMIT, read_blocks, read_commits
from experience.shards.verify import verify
from tests.conftest import CATALOGUE, make_step
from tests.crash.simulated_disk import SimulatedDisk

WRITER = Path("/store/writer")


def a_store(steps: int = 40) -> dict[Path, bytes]:
    disk = SimulatedDisk()
    journal = Journal(
        WRITER,
        CATALOGUE,
        batch_rows=5,
        commit_seconds=10,
        seal_bytes=30_000,
        low_water_bytes=0,
        block_rows=0,
        disk=disk,
    )
    for t in range(steps):
        shown = (journal.blobs.put(b"picture %d" % t * 50, "image/png"),) if t % 2 else ()
        journal.append(make_step(t, obs_blobs=shown))
    journal.close()
    return {p: b for p, b in disk.files().items() if not p.name.startswith("epoch")}


def blocks_of(files: dict[Path, bytes]) -> list[tuple[Path, int, int]]:
    return [
        (p, c.start, c.end)
        for p in files
        if p.suffix == ".arrow"
        for c in read_commits(files[p.with_suffix(".commit")])
    ]


def damaged(files: dict[Path, bytes], rng: random.Random) -> tuple[str, dict[Path, bytes]]:
    """One kind of damage to one file, at random; always different from what was there."""
    path = rng.choice(sorted(files))
    whole = bytearray(files[path])
    kind = rng.choice(
        ("bit", "burst", "zeroed page", "truncation", "swapped blocks", "stale block", "splice")
    )
    at = rng.randrange(len(whole))
    if kind == "bit":
        whole[at] ^= 1 << rng.randrange(8)
    elif kind == "burst":
        for i in range(at, min(at + rng.randint(1, 8), len(whole))):
            whole[i] ^= rng.randint(1, 255)
    elif kind == "zeroed page":
        page = at // 4096 * 4096
        whole[page : page + 4096] = bytes(len(whole[page : page + 4096]))
    elif kind == "truncation":
        del whole[at:]
    else:
        blocks = blocks_of(files)
        (path, a, b), (other, c, d) = rng.sample(blocks, 2)
        whole = bytearray(files[path])
        if kind == "stale block" or path != other:
            piece = files[other][c:d]
            whole[a:b] = (piece + bytes(b - a))[: b - a]
        else:
            (a, b), (c, d) = sorted([(a, b), (c, d)])
            whole = bytearray(
                files[path][:a]
                + files[path][c:d]
                + files[path][b:c]
                + files[path][a:b]
                + files[path][d:]
            )
    new = files | {path: bytes(whole)}
    return kind, new


def what_reads(files: dict[Path, bytes]) -> tuple[list[int], bool]:
    """The rows that a reader is given, and whether it was told of damage."""
    disk, rows, told = SimulatedDisk(files), [], False
    for path in sorted(files):
        if path.suffix == ".arrow":
            try:
                for batch in read_blocks(path, disk):
                    rows += batch.column("t").to_pylist()
            except ShardError:
                told = True
    return rows, told


@pytest.mark.timeout(0)
def test_all_damage_is_noticed_and_nothing_false_is_ever_read(
    request: pytest.FixtureRequest,
) -> None:
    wanted = 100_000 if request.config.getoption("--long") else 1_500
    rng, files = random.Random(0), a_store()
    kinds: dict[str, int] = {}
    truth, _ = what_reads(files)
    assert not verify(Path("/store"), deep=True, disk=SimulatedDisk(files)).problems
    for _ in range(wanted):
        kind, hurt = damaged(files, rng)
        if hurt == files:
            continue
        found = verify(Path("/store"), deep=True, disk=SimulatedDisk(hurt))
        assert found.problems, kind
        rows, _ = what_reads(hurt)
        assert set(rows) <= set(truth) and len(rows) == len(set(rows)), kind
        kinds[kind] = kinds.get(kind, 0) + 1
    assert len(kinds) == 7


def test_damage_to_a_block_costs_that_block_alone() -> None:
    files, rng = a_store(), random.Random(1)
    for path, start, end in blocks_of(files):
        whole = bytearray(files[path])
        whole[rng.randrange(start, end)] ^= 1
        found = verify(Path("/store"), disk=SimulatedDisk(files | {path: bytes(whole)}))
        assert found.rows == 40 - (5 if start else len(_rows_of(files, path))), (
            "the first block holds the schema"
        )


def _rows_of(files: dict[Path, bytes], path: Path) -> range:
    return range([*read_commits(files[path.with_suffix(".commit")])][-1].last_seq + 1)


def test_a_shard_cut_at_any_byte_is_noticed_without_a_crash() -> None:
    files = a_store(15)
    path = next(p for p in files if p.suffix == ".arrow")
    for size in range(0, len(files[path]), 1):
        if size % 7 and size % 512:
            continue
        hurt = SimulatedDisk(files | {path: files[path][:size]})
        assert verify(Path("/store"), deep=True, disk=hurt).problems
    log = path.with_suffix(".commit")
    for size in range(len(files[log])):
        assert verify(Path("/store"), disk=SimulatedDisk(files | {log: files[log][:size]})).problems
    assert len(files[log]) % COMMIT.size == 0
