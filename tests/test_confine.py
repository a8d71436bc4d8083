"""Programs of others in a confined process: input, output, endings and limits."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from envs.sandbox import cgroups, confine
from envs.sandbox.cage import _answers
from envs.sandbox.limits import MIB, Limits, folder_use, runs, tree
from experience.errors import EnvironmentFailure, IsolationError


def test_a_program_reads_its_stdin_and_its_output_and_exit_code_come_back() -> None:
    done = confine.run(["sh", "-c", "cat; echo more >&2; exit 3"], seconds=60, stdin=b"words\n")
    assert (done.returncode, done.stdout) == (3, b"words\nmore\n")


def test_a_program_that_reads_nothing_does_not_block_who_writes_to_it() -> None:
    done = confine.run(["true"], seconds=60, stdin=bytes(8 << 20))
    assert (done.returncode, done.stdout) == (0, b"")


def test_a_program_that_does_not_end_is_ended() -> None:
    started = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        confine.run(["sleep", "600"], seconds=3)
    assert time.monotonic() - started < 60


def test_a_flood_of_output_ends_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "MOST_OUTPUT", 1 << 20)
    with pytest.raises(EnvironmentFailure, match="more than 1 MiB"):
        confine.run(["yes"], seconds=60)


def test_a_process_is_given_files_by_descriptor_and_environment_by_name(tmp_path: Path) -> None:
    file = tmp_path / "content"
    file.write_text("in the file")
    with file.open("rb") as opened:
        done = confine.run(
            ["sh", "-c", "cat /given; echo; env | sort"],
            seconds=60,
            data={"/given": opened.fileno()},
            environment={"XP_WORD": "said"},
        )
    lines = done.stdout.decode().splitlines()
    assert lines[0] == "in the file"
    assert "XP_WORD=said" in lines and "HOME=/home" in lines
    assert not [line for line in lines if str(tmp_path) in line]


def test_what_bubblewrap_says_is_never_taken_for_the_programs_verdict(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure, match="no place for true could be started"):
        confine.run(["true"], seconds=60, writable={tmp_path / "nosuch": "/data"})


def test_without_bubblewrap_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(IsolationError, match="bubblewrap"):
        confine.entry(9)
    with pytest.raises(IsolationError, match="prlimit is not installed"):
        Limits().words()


def test_a_limit_above_our_own_is_asked_for_as_ours() -> None:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    words = Limits(files=10**9, cpu_seconds=5).words()
    most = 10**9 if hard == resource.RLIM_INFINITY else hard
    assert f"--nofile={most}" in words and "--core=0" in words and "--cpu=5" in words
    assert not [word for word in words if word.startswith("--fsize")]


def test_the_use_of_a_folder_counts_its_files_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/file").write_bytes(os.urandom(MIB))
    (tmp_path / "link").symlink_to("/usr/bin/python3")
    held, count = folder_use(tmp_path)
    assert count == 3
    assert MIB <= held < 2 * MIB


def test_a_tree_of_processes_starts_with_its_root_and_a_zombie_does_not_run() -> None:
    process = subprocess.Popen(["sh", "-c", "sleep 600 & wait"])
    try:
        until = time.monotonic() + 30
        while len(pids := tree(process.pid)) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        assert pids[0] == process.pid and len(pids) == 2
        assert all(map(runs, pids))
    finally:
        for pid in tree(process.pid):
            os.kill(pid, 9)
    until = time.monotonic() + 30
    while runs(process.pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert not runs(process.pid)
    assert Path(f"/proc/{process.pid}").exists(), "it is a zombie until it is waited for"
    process.wait()
    assert tree(process.pid) == [process.pid] and not runs(process.pid)


def test_groups_are_looked_for_from_our_own_up_to_the_mount() -> None:
    found = list(cgroups._upwards(("/sys/fs/cgroup", "/"), "/a/b"))
    assert found == [Path("/sys/fs/cgroup/a/b"), Path("/sys/fs/cgroup/a"), Path("/sys/fs/cgroup")]
    # In a container the mount shows a group below the root.
    found = list(cgroups._upwards(("/sys/fs/cgroup", "/docker/c1"), "/docker/c1/x"))
    assert found == [Path("/sys/fs/cgroup/x"), Path("/sys/fs/cgroup")]


def test_a_group_that_is_gone_counts_as_removed(tmp_path: Path) -> None:
    assert cgroups.remove(tmp_path / "nosuch")
    assert cgroups.members(tmp_path / "nosuch") == []
    (tmp_path / "kept/inner").mkdir(parents=True)
    assert not cgroups.remove(tmp_path / "kept")


def test_without_the_right_to_make_groups_none_are_left_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cgroups.Home(tmp_path, {})
    second = cgroups.Home(tmp_path / "nosuch", {})
    monkeypatch.setattr(cgroups, "homes", lambda: (first, second))
    assert cgroups.make(MIB, 10) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("claimed", "answers"),
    [
        ('[["value", 4], ["error", "ValueError: x"]]', (("value", 4), ("error", "ValueError: x"))),
        ('[["value", 1], ["value", 2], ["value", 3]]', (("value", 1), ("value", 2))),
        ('[["paid", 1]]', ()),
        ('{"value": 1}', ()),
        ("[1, 2]", ()),
        ("nonsense", ()),
        ("[" * 100_000, ()),
    ],
)
def test_only_pairs_of_a_kind_and_a_value_are_answers(
    claimed: str, answers: tuple[tuple[str, object], ...]
) -> None:
    assert _answers(claimed, 2) == answers


@pytest.mark.parametrize(
    ("version", "size"), [(1, 8), (2, 8), (3, 8), (4, 16), (5, 16), (6, 24), (7, 24)]
)
def test_landlock_is_given_only_what_its_version_knows(version: int, size: int) -> None:
    """The zygote is a program, not a module: its function is read from its text."""
    import struct

    text = (Path(confine.__file__).with_name("zygote.py")).read_text()
    start = text.index("def landlock_attributes")
    namespace = {"struct": struct}
    exec(text[start : text.index("def close_with_landlock")], namespace)
    attributes = namespace["landlock_attributes"](version)  # type: ignore[operator]
    assert len(attributes) == size
    files = {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)
    assert struct.unpack_from("<Q", attributes)[0] == (1 << files) - 1
