"""Flips: one bit anywhere in a run's shards, imagined rows and checkpoints, through every reader:
an error, or nothing."""

from __future__ import annotations

import contextlib
import hashlib
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from actors.reading.query import connect
from actors.runs.directory import RunDirectory
from experience.errors import ShardError
from experience.replay.replay import Replay
from experience.shards.amend import Amendment, amend, amendments, follow_amended
from experience.shards.catalog import Catalog, check_acknowledged
from experience.shards.cold.compaction import compact
from experience.shards.episodes.index import EpisodeIndex
from experience.shards.exchange import export
from experience.shards.journal import Journal
from experience.shards.sampling.windows import WindowReader
from experience.shards.storage import sums
from experience.shards.storage.blobs import BlobReader
from experience.shards.verify import verify_run
from tests.conftest import CATALOGUE, make_step
from tests.golden.make import plain

STREAM = b"s" * 16


def a_run(run: Path) -> dict[bytes, int]:
    """Cold rows, sealed ones, growing ones; pictures, amendments, imagined rows, a checkpoint.

    What was acknowledged.
    """
    shards, open_ = run / "shards", 0
    for open_ in range(3):
        journal = Journal(
            shards / "collector-0000", CATALOGUE, batch_rows=3, commit_seconds=10, low_water_bytes=0
        )
        for _ in range(6):
            t = journal.next_t(STREAM)
            picture = journal.blobs.put(b"picture %d" % t * 3, "image/png")
            journal.append(make_step(t, closing=t % 3 == 2, obs_blobs=(picture,)))
        journal.commit()
        if open_ < 2:
            journal.close()
        if open_ == 0:
            compact(shards)
    amend(shards, [Amendment(STREAM, 1, "done", 0.75)])
    imagined = Journal(
        run / "imagined" / "learner", CATALOGUE, batch_rows=3, commit_seconds=10, low_water_bytes=0
    )
    for t in range(3):
        imagined.append(
            make_step(t, b"i" * 16, source="imagined", parent=(STREAM, 1), model_version=1)
        )
    imagined.close()
    checkpoint = run / "checkpoints" / "step-000001"
    checkpoint.mkdir(parents=True)
    files = {"learner.safetensors": b"weights" * 20, "parts.json": b"{}"}
    for name, data in (files | {sums.NAME: sums.sums(files)}).items():
        (checkpoint / name).write_bytes(data)
    (run / "run.json").write_text("{}")
    EpisodeIndex.open(run / "shards").save()
    return dict(journal.acknowledged)


@dataclass
class Readers:
    """Every way in which a run is read, each giving a digest of all that it gave."""

    run: Path
    scratch: Path
    acknowledged: dict[bytes, int]

    @property
    def shards(self) -> Path:
        return self.run / "shards"

    def follow(self) -> object:
        return [plain(s) for steps in Catalog(self.shards).follow() for s in steps]

    def batches(self) -> object:
        return [batch.to_pylist() for batch in Catalog(self.shards).batches()]

    def dataset(self) -> object:
        return sorted(map(repr, Catalog(self.shards).dataset().to_table().to_pylist()))

    def table(self) -> object:
        return sorted(
            map(
                repr,
                Catalog(self.shards).table(["stream_id", "t", "reward", "signal.done"]).to_pylist(),
            )
        )

    def windows(self) -> object:
        reader = WindowReader(self.shards, ("t", "obs_text", "action_ids"))
        reader.refresh()
        drawn = reader.gather(reader.draw(8, 2))
        return drawn.numbers["t"].tolist(), {n: r.values.tobytes() for n, r in drawn.ragged.items()}

    def replay(self) -> object:
        replay = Replay(EpisodeIndex.open(self.shards), 2, 1)
        return [(plain(a), plain(b)) for a, b in replay.transitions]

    def amended(self) -> object:
        return amendments(self.shards).to_pylist(), [
            plain(s) for steps in follow_amended(self.shards) for s in steps
        ]

    def blobs(self) -> object:
        reader = BlobReader(self.shards)
        return [reader.read(hashlib.sha256(b"picture %d" % t * 3).digest()) for t in range(18)]

    def query(self) -> object:
        connection = connect({"steps": self.shards, "imagined": self.run / "imagined"})
        return [
            connection.sql(
                "select t, reward, signal(signals, 'done'), \"signal.done\", obs_text from "
                f"{table} order by t"
            ).fetchall()
            for table in ("steps", "imagined")
        ]

    def show(self) -> object:
        return RunDirectory(self.run).count()

    def export(self) -> object:
        shutil.rmtree(self.scratch, ignore_errors=True)
        export(self.shards, "jsonl", self.scratch)
        return {p.name: p.read_bytes() for p in sorted(self.scratch.rglob("*")) if p.is_file()}

    def check(self) -> object:
        return check_acknowledged(self.shards, self.acknowledged)

    def checkpoint(self) -> object:
        return RunDirectory(self.run).checkpoints.newest()

    def all(self) -> dict[str, Callable[[], object]]:
        names = (
            "follow",
            "batches",
            "dataset",
            "table",
            "windows",
            "replay",
            "amended",
            "blobs",
            "query",
            "show",
            "export",
            "check",
            "checkpoint",
        )
        return {name: getattr(self, name) for name in names}


@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2, 3))]
)
def test_no_flipped_bit_is_believed_by_any_reader(
    seed: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    wanted = 2_500 if request.config.getoption("--long") else 60
    rng, run = random.Random(seed), tmp_path / "run"
    readers = Readers(run, tmp_path / "out", a_run(run))
    truth = {name: read() for name, read in readers.all().items()}
    assert not verify_run(run, deep=True).problems
    files = [
        p
        for folder in ("shards", "imagined", "checkpoints")
        for p in sorted((run / folder).rglob("*"))
        if p.is_file() and p.stat().st_size
    ]
    noticed = 0
    on_follow = (
        "replay",
        "show",
        "export",
        "check",
        "query",
    )  # what these read, follow and dataset read: one a flip
    for number in range(wanted):
        path = rng.choice(files)
        whole = path.read_bytes()
        at = rng.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :])
        where = f"{path.relative_to(run)} byte {at}"
        told = verify_run(run, deep=True).problems
        for name, read in readers.all().items():
            if wanted > 1_000 and name in on_follow and name != on_follow[number % len(on_follow)]:
                continue
            try:
                assert read() == truth[name], f"{name} believed a flipped bit in {where}"
            except ShardError:
                assert told, f"{name} noticed a flipped bit in {where}, verify did not"
        noticed += bool(told)
        path.write_bytes(whole)
    assert noticed > 0.9 * wanted


@pytest.mark.parametrize("cut", ["missing", "empty", "half"])
def test_no_missing_or_short_file_is_passed_over(tmp_path: Path, cut: str) -> None:
    run = tmp_path / "run"
    readers = Readers(run, tmp_path / "out", a_run(run))
    truth = {name: read() for name, read in readers.all().items()}
    patterns = (
        "collector-0000/*.arrow",
        "collector-0000/*.commit",
        "collector-0000/MANIFEST",
        "snapshots/*.json",
        "cold/*.parquet",
        "collector-0000/*.blobs",
    )
    for path in [p for pattern in patterns for p in sorted((run / "shards").glob(pattern))]:
        whole = path.read_bytes()
        path.unlink()
        if cut != "missing":
            path.write_bytes(whole[: len(whole) // 2 if cut == "half" else 0])
        # the last commits of a segment that is still open are known to its log alone
        grows = cut != "missing" and path.suffix == ".commit" and path.with_suffix(".open").exists()
        for name, read in readers.all().items():
            with contextlib.suppress(ShardError):
                assert read() == truth[name] or grows, f"{name} passed over {path.name}, {cut}"
        assert verify_run(run, deep=True).problems or grows, f"{path.name}, {cut}"
        path.write_bytes(whole)


def test_hostile_bytes_end_verification_with_problems_and_never_with_a_traceback(
    tmp_path: Path,
) -> None:
    run, rng = tmp_path / "run", random.Random(1)
    a_run(run)
    for path in [
        p for p in sorted((run / "shards").rglob("*")) if p.is_file() and p.stat().st_size
    ]:
        whole = path.read_bytes()
        for hostile in (
            b"\xff" * len(whole),
            rng.randbytes(len(whole)),
            b"{" * 100_000,
            whole * 2,
            b"\0" * len(whole),
        ):
            path.write_bytes(hostile)
            assert (
                verify_run(run, deep=True).problems
                or path.with_suffix(".open").exists()
                or path.suffix == ".blobs"
            ), path
        path.write_bytes(whole)


def test_the_pages_of_a_cold_part_are_checked_before_parquet_reads_them(tmp_path: Path) -> None:
    a_run(tmp_path / "run")
    (part,) = (tmp_path / "run" / "shards" / "cold").glob("*.parquet")
    footer = parquet.ParquetFile(part).metadata.serialized_size
    whole = bytearray(part.read_bytes())
    whole[-8 - footer // 2] ^= 1
    part.write_bytes(whole)
    with pytest.raises(ShardError, match="SHA-256"):
        Catalog(tmp_path / "run" / "shards").dataset()
