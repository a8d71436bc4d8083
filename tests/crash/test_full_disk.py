"""A disk that fills: the journal pauses, raises nothing, keeps every step, and goes on when there
is room."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experience.shards.catalog import Catalog
from experience.shards.journal import Journal
from experience.shards.verify import verify
from experience.shards.writing.sealing import recover
from tests.conftest import CATALOGUE, make_step
from tests.crash.simulated_disk import Fault, SimulatedDisk

STORE = Path("/store")
STREAM = b"s" * 16
_WRITES = frozenset({"write", "create", "reopen", "rename", "sync", "sync_directory", "truncate"})


def append(journal: Journal) -> None:
    t = journal.next_t(STREAM)
    picture = journal.blobs.put(b"picture %d" % t * 40, "image/png")
    journal.append(make_step(t, obs_blobs=(picture,)))


@pytest.mark.parametrize("for_ever", [False, True])
def test_whichever_call_meets_a_full_disk_the_journal_pauses_and_loses_nothing(
    for_ever: bool, request: pytest.FixtureRequest
) -> None:
    at, step = 0, 1 if request.config.getoption("--long") else 7
    while True:
        at += step
        disk = SimulatedDisk()
        journal = Journal(
            STORE / "w", CATALOGUE, batch_rows=2, commit_seconds=10, seal_bytes=9_000, disk=disk
        )
        disk.fault = fault = Fault(at, errno.ENOSPC, _WRITES, for_ever)
        for _ in range(20):
            append(journal)  # raises nothing
        journal.commit()
        assert journal.paused or not for_ever or journal.acknowledged[STREAM] == 19
        acknowledged = dict(journal.acknowledged)
        disk.fault = None
        killed = SimulatedDisk(disk.files())  # a kill now costs no acknowledged step
        assert recover(STORE / "w", killed).get(STREAM, -1) >= acknowledged.get(STREAM, -1)
        append(journal)
        journal.commit()
        assert not journal.paused and journal.acknowledged[STREAM] == 20
        journal.close()
        assert [s.t for steps in Catalog(STORE, disk=disk).follow() for s in steps] == list(
            range(21)
        )
        assert not verify(STORE, deep=True, disk=disk).problems and disk.open_descriptors == 0
        if not fault.fired:
            break
    assert at > 40, "the loop must have tried every call"


_FILL = """
import json, sys
from pathlib import Path
from experience.shards.catalog import Catalog
from experience.shards.journal import Journal
from experience.shards.verify import verify
from tests.conftest import CATALOGUE, make_step
disk, how = Path(sys.argv[1]), sys.argv[2]
store, filler, stream = disk / "store", disk / "filler", b"s" * 16
journal = Journal(store / "w", CATALOGUE, batch_rows=4, commit_seconds=10, seal_bytes=int(sys.argv[3]),
                  low_water_bytes=1 if how == "brim" else 1 << 20)
def append(n):
    for _ in range(n):
        journal.append(make_step(journal.next_t(stream)))
append(40)
journal.commit()
before = journal.acknowledged[stream]
with open(filler, "wb", buffering=0) as file:  # to the last page, reserve and all
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
append(200)
journal.commit()
full = journal.acknowledged[stream]
paused, sealed = journal.paused, len(list(store.glob("w/*.arrow")))
reserve = (store / "w" / "RESERVE").exists()
filler.unlink()
append(1)
journal.commit()
after, again = journal.paused, (store / "w" / "RESERVE").exists()
journal.close()
rows = [s.t for steps in Catalog(store).follow() for s in steps]
print(json.dumps({"before": before, "full": full, "paused": paused, "sealed": sealed, "reserve": reserve,
                  "after": after, "again": again, "rows": rows, "problems": len(verify(store, deep=True).problems)}))
"""


def in_a_small_tmpfs(tmp_path: Path, megabytes: int, *words: str) -> dict[str, object]:
    """What the script printed, run on a tmpfs of its own. Skips where none can be mounted."""
    place = tmp_path / "small"
    place.mkdir()
    namespace = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    mount = f"mount -t tmpfs -o size={megabytes}m none {place}"
    if (
        not shutil.which("unshare")
        or subprocess.run([*namespace, "sh", "-c", mount], capture_output=True).returncode
    ):
        pytest.skip("no tmpfs can be mounted here: needs root or user namespaces")
    run = subprocess.run(
        [
            *namespace,
            "sh",
            "-c",
            f'{mount} && exec "$@"',
            "sh",
            sys.executable,
            "-c",
            _FILL,
            str(place),
            *words,
        ],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert run.returncode == 0, run.stderr
    return dict(json.loads(run.stdout))


@pytest.mark.parametrize("how", ["brim", "low water"])
@pytest.mark.parametrize("seal_bytes", [20_000, 1 << 20])
def test_a_real_small_disk_that_fills_pauses_and_goes_on(
    tmp_path: Path, how: str, seal_bytes: int
) -> None:
    found = in_a_small_tmpfs(tmp_path, 12, how, str(seal_bytes))
    assert found["paused"] and not found["after"] and found["again"]
    assert found["before"] == 39 and found["rows"] == list(range(241)) and not found["problems"]
    assert found["sealed"], "what was acknowledged is sealed, in the room of the reserve"
