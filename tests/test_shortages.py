"""Too little memory, or no room on a disk, is said in a sentence, and while it lasts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experience.command.ending import shortage
from tests.test_house import ROOT
from tests.test_silence import _SMALL, started

_LIMITED = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2); "
    "sys.argv[:2] = ['xp']; import runpy; runpy.run_module('actors', run_name='__main__')"
)


def limited(folder: Path, gib: float, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _LIMITED, str(int(gib * 2**30)), *words],
        cwd=folder,
        text=True,
        capture_output=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize(
    ("gib", "workers", "says"), [(4.0, 2, "Ray reserves more"), (0.5, 0, "not enough memory")]
)
def test_a_limit_of_memory_that_a_run_cannot_live_with_is_named(
    tmp_path: Path, gib: float, workers: int, says: str
) -> None:
    run = limited(
        tmp_path,
        gib,
        "run",
        f"workers={workers}",
        "worlds=[{id: 'envs:KeyDoor-v0', demonstrations: 0}]",
        *_SMALL[1:],
    )
    assert run.returncode == 1 and says in run.stderr and "ulimit -v unlimited" in run.stderr, (
        run.stderr
    )
    assert "Traceback" not in run.stderr


def test_an_error_that_is_no_shortage_is_left_alone() -> None:
    assert (
        shortage(OSError(2, "No such file or directory", "x")) is None
        and shortage(RuntimeError("a bug")) is None
    )
    told = shortage(OSError(28, "No space left on device", "runs/a/metrics.jsonl"))
    assert told is not None and "the disk is full: runs/a/metrics.jsonl" in str(told)


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is mounted by root")
def test_a_run_says_that_its_disk_is_full_while_it_is(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(small)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        run = started(
            tmp_path,
            "run",
            "worlds=[{id: 'envs:KeyDoor-v0', groups: 1, demonstrations: 0}]",
            f"runs_dir={small}",
            "budget.updates=100000",
            "budget.minutes=10",
            *_SMALL,
        )
        until = time.monotonic() + 300
        while not list(small.glob("*/shards/*/*")) and time.monotonic() < until:
            time.sleep(0.1)
        (small / "fill").write_bytes(bytes(60 << 20))
        assert run.stderr is not None
        for line in run.stderr:
            if "THE DISK IS FULL" in line or time.monotonic() > until:
                break
        assert run.poll() is None and "THE DISK IS FULL" in line, line
        (small / "fill").unlink()
        run.terminate()
        run.communicate(timeout=300)
        assert json.loads((small / "latest/run.json").read_text())["status"] == "interrupted"
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)
