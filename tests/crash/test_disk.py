"""Power cuts and failing calls: the same writer and recovery, on a disk in memory."""

from __future__ import annotations

import contextlib
import errno
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from experience.errors import ShardError
from experience.shards.journal import Journal
from experience.shards.storage.blobs import BlobReader, named_blobs
from experience.shards.storage.blocks import keys, read_blocks
from experience.shards.storage.disk import Disk
from experience.shards.storage.manifest import read_manifest
from experience.shards.writing.sealing import recover
from tests.conftest import CATALOGUE, make_step
from tests.crash.simulated_disk import Fault, SimulatedDisk, power_cuts

WRITER = Path("/store/writer")
STREAMS = (b"a" * 16, b"b" * 16)


def rows(disk: Disk) -> dict[bytes, list[int]]:
    found: dict[bytes, list[int]] = {s: [] for s in STREAMS}
    blobs = BlobReader(WRITER.parent, disk)
    stems = {
        name.partition(".")[0]: name
        for name in sorted(disk.names(WRITER), reverse=True)
        if name.endswith((".arrow", ".open"))
    }
    for name in sorted(stems.values()):
        for batch in read_blocks(WRITER / name, disk):
            for stream, t in keys(batch):
                found[stream].append(t)
            assert all(blobs.read(digest) for digest in named_blobs(batch))
    return found


def append(journal: Journal, stream: bytes) -> None:
    """The stream's next step; some show what an earlier one did, some show nothing."""
    t = journal.next_t(stream)
    picture = journal.blobs.put(b"picture %d" % (t // 2) * 40, "image/png")
    journal.append(make_step(t, stream, obs_blobs=(picture,) if t % 3 else ()))


def check(disk: Disk, acknowledged: dict[bytes, int], appended: dict[bytes, int]) -> None:
    """Every acknowledged row is there, none is doubled or missing, none is there that was never
    appended."""
    for stream, found in rows(disk).items():
        assert found == list(range(len(found)))
        assert acknowledged.get(stream, -1) < len(found) <= appended.get(stream, 0)


def live(
    journal: Journal, count: int, acks: list[tuple[int, dict[bytes, int]]], disk: SimulatedDisk
) -> None:
    """Appends `count` steps over two streams, some batches by commit, and notes what was
    acknowledged when."""
    for i in range(count):
        stream = STREAMS[i % 3 == 0]
        with contextlib.suppress(OSError):
            append(journal, stream)
        acks.append((len(disk.log), dict(journal.acknowledged)))


def power_cut_states(wanted: int, seed: int) -> int:
    """Recovers `wanted` states that a power cut may leave, of writers that go on where the one
    before was cut."""
    rng, states = random.Random(seed), 0
    while states < wanted:
        files: dict[Path, bytes] = {}
        floor: dict[bytes, int] = {}
        for _ in range(3):
            disk = SimulatedDisk(files)
            acks = [(0, floor)]
            journal = Journal(
                WRITER,
                CATALOGUE,
                batch_rows=rng.choice((1, 2, 3)),
                commit_seconds=10,
                seal_bytes=rng.choice((1, 9_000, 30_000)),
                low_water_bytes=0,
                disk=disk,
            )
            if rng.random() < 0.4:  # power often goes when disks do
                disk.fault = Fault(
                    rng.randint(1, 30),
                    errno.EIO,
                    frozenset(
                        rng.choice(((), ("sync",), ("sync_directory",), ("rename",), ("write",)))
                    ),
                    for_ever=rng.random() < 0.3,
                )
            live(journal, rng.randint(1, 8), acks, disk)
            if rng.random() < 0.5:
                with contextlib.suppress(OSError):
                    journal.close()
                acks.append((len(disk.log), dict(journal.acknowledged)))
            appended = {s: journal.next_t(s) for s in STREAMS}
            go_on_from = rng.randint(0, len(disk.log))
            for instant, image in power_cuts(disk, 4, rng):
                told = max((a for a in acks if a[0] <= instant), key=lambda a: a[0])[1]
                crashed = SimulatedDisk(image)
                recovered = recover(WRITER, crashed)
                check(crashed, told, appended)
                assert all(recovered.get(s, -1) >= told.get(s, -1) for s in STREAMS)
                assert {n for n in crashed.names(WRITER) if n.endswith(".arrow")} == {
                    line["file"] for line in read_manifest(WRITER, crashed)
                }
                states += 1
                if instant == go_on_from:
                    files, floor = image, told
    return states


@pytest.mark.timeout(0)
def test_no_power_cut_loses_or_doubles_an_acknowledged_step(request: pytest.FixtureRequest) -> None:
    wanted = 1_000_000 if request.config.getoption("--long") else 1_000
    assert power_cut_states(wanted, seed=0) >= wanted


FAULTS = [
    (errno.EIO, ()),
    (errno.ENOSPC, ("write", "create")),
    (errno.EIO, ("sync", "sync_directory")),
    (errno.EMFILE, ("create", "reopen")),
]


def live_through(
    disk: SimulatedDisk, steps: int
) -> tuple[dict[bytes, int], dict[bytes, int], Counter[str]]:
    """A writer that tries again after each failure, as a collector does; gives up after a few in a
    row."""
    seen: Counter[str] = Counter()
    journal = None
    for _ in range(4):
        try:
            journal = Journal(
                WRITER,
                CATALOGUE,
                batch_rows=3,
                commit_seconds=10,
                seal_bytes=9_000,
                low_water_bytes=0,
                disk=disk,
            )
            break
        except OSError as error:
            seen[errno.errorcode[error.errno]] += 1
    if journal is None:
        return {}, {}, seen
    for i in range(steps):
        stream = STREAMS[i % 3 == 0]
        try:
            append(journal, stream)
        except OSError as error:
            seen[errno.errorcode[error.errno]] += 1
    for _ in range(4):
        try:
            journal.close()
            break
        except (OSError, ShardError) as error:
            seen[type(error).__name__] += 1
    return dict(journal.acknowledged), {s: journal.next_t(s) for s in STREAMS}, seen


@pytest.mark.parametrize("for_ever", [False, True])
@pytest.mark.parametrize(("number", "calls"), FAULTS)
def test_whichever_call_fails_nothing_acknowledged_is_lost_or_doubled(
    number: int, calls: tuple[str, ...], for_ever: bool, request: pytest.FixtureRequest
) -> None:
    at, step = 0, 1 if request.config.getoption("--long") else 4
    while True:
        at += step
        fault = Fault(at, number, frozenset(calls), for_ever)
        disk = SimulatedDisk(fault=fault)
        acknowledged, appended, _ = live_through(disk, 20)
        disk.fault = None
        if not fault.fired:
            break
        if not for_ever and acknowledged:
            assert acknowledged == {s: n - 1 for s, n in appended.items()}, (
                "one failure costs nothing"
            )
        healthy = SimulatedDisk(disk.files())
        recover(WRITER, healthy)
        check(healthy, acknowledged, appended)
        again = Journal(WRITER, CATALOGUE, low_water_bytes=0, disk=healthy)
        again.append(make_step(again.next_t(STREAMS[0]), STREAMS[0]))
        again.close()
        check(healthy, again.acknowledged, {s: again.next_t(s) for s in STREAMS})
    assert at > 20, "the loop must have tried every call"


def test_short_writes_are_written_to_their_end() -> None:
    for at in range(1, 40):
        disk = SimulatedDisk(fault=Fault(at, 0, short=True))
        acknowledged, appended, seen = live_through(disk, 20)
        assert not seen and acknowledged == {s: n - 1 for s, n in appended.items()}
        check(disk, acknowledged, appended)


def test_a_sync_that_failed_is_never_tried_again_on_the_same_file() -> None:
    disk = SimulatedDisk()
    journal = Journal(
        WRITER, CATALOGUE, batch_rows=100, commit_seconds=10, low_water_bytes=0, disk=disk
    )
    journal.append(make_step(0))
    journal.commit()
    journal.append(make_step(1))
    disk.fault = Fault(1, errno.EIO, frozenset({"sync"}))
    with pytest.raises(OSError, match="injected"):
        journal.commit()
    assert journal.acknowledged[b"s" * 16] == 0
    first = next(p for p in disk.names_now if p.suffix == ".open")
    journal.commit()
    assert journal.acknowledged[b"s" * 16] == 1
    assert first not in disk.names_now and first.with_suffix(".arrow") in disk.names_now
    journal.close()
    assert disk.open_descriptors == 0


class SlowDisk(Disk):
    def sync(self, descriptor: int) -> None:
        time.sleep(0.3)
        super().sync(descriptor)


def test_a_signal_while_waiting_for_the_disk_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """What a signal's handler raises in the wait is no failure of the disk: the block is still on
    its way."""

    def ended(*_: object) -> None:
        raise SystemExit(143)

    journal = Journal(tmp_path / "w", CATALOGUE, low_water_bytes=0, disk=SlowDisk())
    journal.append(make_step(0))
    before = signal.signal(signal.SIGALRM, ended)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(SystemExit):
            journal.commit()
    finally:
        signal.signal(signal.SIGALRM, before)
    journal.append(make_step(1))
    journal.close()
    assert [
        t
        for path in (tmp_path / "w").glob("*.arrow")
        for batch in read_blocks(path)
        for _, t in keys(batch)
    ] == [0, 1]
    shards = [path.name for path in (tmp_path / "w").glob("*.arrow")]
    assert len(shards) == 1 and shards[0].endswith("-000000.arrow"), (
        "the first segment was not given up under the thread"
    )
