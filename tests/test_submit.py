"""`ray job submit` of a run, against a real local cluster of two nodes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_job_submitted_to_a_cluster_of_two_nodes_collects_on_both_and_learns(tmp_path: Path) -> None:
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "PATH": f"{BIN}:{os.environ['PATH']}"}
    port, dashboard = free_port(), free_port()

    def ray(*words: str) -> None:
        subprocess.run([str(BIN / "ray"), *words], env=environment, cwd=ROOT, check=True, capture_output=True, timeout=120)

    ray("get-auth-token", "--generate")
    try:
        ray("start", "--head", "--port", str(port), "--num-cpus", "1", "--dashboard-host", "127.0.0.1",
            "--dashboard-port", str(dashboard))
        ray("start", "--address", f"127.0.0.1:{port}", "--num-cpus", "1")  # a second raylet: a second node
        done = subprocess.run(
            [str(BIN / "ray"), "job", "submit", "--address", f"http://127.0.0.1:{dashboard}", "--working-dir", ".", "--",
             "python", "-m", "actors", "run", "configs/local.yaml", f"runs_dir={tmp_path}", "budget.updates=3",
             "learning.imitation_passes=2", "evaluation.final_episodes=4"],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    finally:
        ray("stop", "--force")
    (record_path,) = [p for p in tmp_path.glob("*/run.json") if not p.parent.is_symlink()]
    record = json.loads(record_path.read_text())
    assert (record["status"], record["version"]) == ("succeeded", 3)
    assert len(list((record_path.parent / "shards").glob("collector-*/*.arrow"))) >= 2
