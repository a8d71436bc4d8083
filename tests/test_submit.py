"""`ray job submit` of a run, against a real local cluster of two nodes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import free_port

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """A cluster of two nodes: the environment that its users need."""
    with cluster_of(2, os.environ) as environment:
        yield environment


def test_ray_takes_every_source_file_along() -> None:
    """A pattern `runs/` in an ignore file would also leave out actors/runs, and a job would not
    start."""
    from ray._private.runtime_env.packaging import get_excludes_from_ignore_files

    left_out = get_excludes_from_ignore_files(ROOT, include_gitignore=True)
    sources = [p for room in ("experience", "actors", "envs") for p in (ROOT / room).rglob("*.py")]
    assert left_out and (ROOT / "actors/runs/directory.py") in sources
    assert not [p for p in sources if any(leaves_out(p) for leaves_out in left_out)]


@contextlib.contextmanager
def cluster_of(count: int, of: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """A cluster of `count` nodes, started with the environment `of`, in a session folder of its
    own: other clusters of this machine are not seen, nor ended. The environment that its users
    need."""
    port, dashboard = free_port(), free_port()
    nodes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(
        prefix="ray-", dir="/tmp", ignore_cleanup_errors=True
    ) as folder:
        environment = {
            **of,
            "RAY_AUTH_MODE": "token",
            "RAY_TMPDIR": folder,
            "PATH": f"{BIN}:{of['PATH']}",
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
        }
        subprocess.run(
            [str(BIN / "ray"), "get-auth-token", "--generate"],
            env=environment,
            check=True,
            capture_output=True,
        )
        try:
            for words in (
                [
                    "--head",
                    "--port",
                    str(port),
                    "--dashboard-host",
                    "127.0.0.1",
                    "--dashboard-port",
                    str(dashboard),
                ],
                *[["--address", f"127.0.0.1:{port}"]] * (count - 1),
            ):  # a second raylet: a second node
                agent = [
                    "--dashboard-agent-listen-port",
                    str(free_port()),
                ]  # its default may be another cluster's
                nodes.append(
                    subprocess.Popen(
                        [str(BIN / "ray"), "start", *words, *agent, "--num-cpus", "1", "--block"],
                        env=environment,
                        cwd=ROOT,
                        start_new_session=True,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                    )
                )
                wait_for_nodes(len(nodes), environment)
            yield environment
        finally:
            for node in reversed(nodes):
                node.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    node.wait(30)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(node.pid, signal.SIGKILL)


def wait_for_nodes(wanted: int, environment: Mapping[str, str]) -> None:
    """Until so many nodes have said that they are there."""
    words = [str(BIN / "ray"), "list", "nodes", "--format", "json"]
    deadline = time.monotonic() + 300
    while True:
        told = subprocess.run(words, env=environment, capture_output=True, text=True)
        if told.stdout.count('"ALIVE"') >= wanted:
            return
        assert time.monotonic() < deadline, told.stdout + told.stderr
        time.sleep(1)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_job_submitted_to_a_cluster_of_two_nodes_collects_on_both_and_learns(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    words = [
        str(BIN / "ray"),
        "job",
        "submit",
        "--working-dir",
        ".",
        "--",
        "python",
        "-m",
        "actors",
        "run",
        "configs/local.yaml",
        f"runs_dir={tmp_path}",
        "budget.updates=3",
        "learning.imitation_passes=2",
        "evaluation.final_episodes=4",
    ]
    deadline = time.monotonic() + 120
    while True:
        done = subprocess.run(
            words, cwd=ROOT, env=cluster, capture_output=True, text=True, timeout=600
        )
        if "please try again later" not in done.stderr or time.monotonic() > deadline:
            break
        time.sleep(2)  # of all that Ray starts, the agents that take jobs are there last
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert sessions(cluster) == 1, "the job joined the cluster, and started none of its own"
    record, folder = the_run(tmp_path)
    assert (record["status"], record["version"]) == ("succeeded", 3)
    assert len(list((folder / "shards").glob("collector-*/*.arrow"))) >= 2


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_run_that_names_no_cluster_starts_its_own_beside_one_that_is_there(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "actors",
            "run",
            "configs/local.yaml",
            f"runs_dir={tmp_path}",
            "budget.updates=1",
            "learning.imitation_passes=1",
            "evaluation.final_episodes=0",
        ],
        cwd=ROOT,
        env=cluster,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert sessions(cluster) == 2
    assert the_run(tmp_path)[0]["status"] == "succeeded"


def sessions(cluster: Mapping[str, str]) -> int:
    """How many clusters were ever started in that session folder."""
    return sum(not p.is_symlink() for p in Path(cluster["RAY_TMPDIR"]).glob("**/session_*"))


def the_run(runs: Path) -> tuple[dict[str, Any], Path]:
    (record,) = [p for p in runs.glob("*/run.json") if not p.parent.is_symlink()]
    return json.loads(record.read_text()), record.parent
