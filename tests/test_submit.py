"""`ray job submit` of a run, against a real local cluster of two nodes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
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
    from ray.cluster_utils import Cluster

    environment = {**os.environ, "RAY_AUTH_MODE": "token", "PATH": f"{BIN}:{os.environ['PATH']}"}
    os.environ["RAY_AUTH_MODE"] = "token"
    subprocess.run([str(BIN / "ray"), "get-auth-token", "--generate"], env=environment, check=True, capture_output=True)
    dashboard = free_port()
    cluster = Cluster(initialize_head=True, head_node_args={
        "num_cpus": 1, "include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": dashboard})
    try:
        cluster.add_node(num_cpus=1)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", dashboard)) == 0:
                    break
            time.sleep(0.5)
        done = subprocess.run(
            [str(BIN / "ray"), "job", "submit", "--address", f"http://127.0.0.1:{dashboard}", "--working-dir", ".", "--",
             "python", "-m", "actors", "run", "configs/local.yaml", f"runs_dir={tmp_path}", "budget.updates=3",
             "learning.imitation_passes=2", "evaluation.final_episodes=4"],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    finally:
        cluster.shutdown()
    (record_path,) = [p for p in tmp_path.glob("*/run.json") if not p.parent.is_symlink()]
    record = json.loads(record_path.read_text())
    assert (record["status"], record["version"]) == ("succeeded", 3)
    assert len(list((record_path.parent / "shards").glob("collector-*/*.arrow"))) >= 2
