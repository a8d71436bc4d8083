"""No secret leaves by Ray: its session folder, what its state tells, and the job that `./xp submit`
makes.

The secrets are drawn anew in each test, since a job takes this checkout along, with all that is
written in its tests.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.test_redaction import EchoingServer, planted
from tests.test_submit import BIN, cluster_of

ROOT = Path(__file__).resolve().parent.parent.parent
_TOLD = (
    "jobs/",
    "v0/actors",
    "v0/tasks",
    "v0/workers",
    "v0/runtime_envs",
    "v0/cluster_events",
    "v0/nodes",
    "v0/placement_groups",
    "v0/objects",
)
"""What Ray's dashboard tells of jobs and of its state; each is asked with all detail."""


class Planted:
    """Two secrets as a user has them: a key in the environment, and the password of the model
    server's address."""

    def __init__(self) -> None:
        self.key, self.password = (secrets.token_urlsafe(12) + end for end in ("+/k&1", "+x9<y"))
        kept = {
            n: v
            for n, v in os.environ.items()
            if n not in ("XP_SECRET_NAMES", "XP_URL_PASSWORD", "RAY_ADDRESS")
        }
        self.environment = kept | {"LLM_FOR_TESTS": self.key, "XP_URL_PASSWORD": self.password}

    def found_in(self, exits: Mapping[str, bytes]) -> list[str]:
        """Where one of them stands, in any of twelve encodings."""
        cores = {
            core.encode() for secret in (self.key, self.password) for _, core in planted(secret)
        }
        return sorted(
            f"{where}: {core.decode()}"
            for where, data in exits.items()
            for core in cores
            if core in data
        )


@contextmanager
def echoing_server(known: Planted) -> Iterator[int]:
    class Server(EchoingServer):
        secrets = known.key, known.password

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()


def words(runs: Path, port: int) -> list[str]:
    """A run that leaves its secrets wherever a world can, behind a server that echoes them, by one
    Ray collector."""
    return [
        f"runs_dir={runs}",
        "worlds=[{id: 'tests.leaky_world:Leaky-v0', groups: 1, demonstrations: 2}]",
        "policy={engine: openai, model: m, learns: false, retries: 0, api_key_env: LLM_FOR_TESTS}",
        f"policy.base_url=http://user:***@127.0.0.1:{port}/v1",
        "budget.updates=0",
        "budget.steps=12",
        "planning.enabled=false",
        "evaluation.episodes=4",
        "evaluation.final_episodes=4",
        "collecting.slots=2",
        "collecting.group_size=2",
        "workers=1",
    ]


def files(*folders: Path) -> dict[str, bytes]:
    """Every file by its path and what it holds; sockets, and links to what is read anyway, are left
    out."""
    return {
        str(p): p.read_bytes()
        for folder in folders
        for p in folder.rglob("*")
        if p.is_file() and not p.is_symlink()
    }


def outputs(done: subprocess.CompletedProcess[str]) -> dict[str, bytes]:
    return {"stdout": done.stdout.encode(), "stderr": done.stderr.encode()}


def run_on_its_own_ray(
    known: Planted, session: Path, runs: Path, control: bool = False
) -> subprocess.CompletedProcess[str]:
    """`control`: without the redactor, in this process and in those of Ray that import from the
    folder it starts in."""
    start = "import runpy; runpy.run_module('actors', run_name='__main__')"
    folder = session / "started-here"
    folder.mkdir()
    if control:
        (folder / "sitecustomize.py").write_text(
            "from experience.shards.redaction import redact\n"
            "redact.Redactor.text = lambda self, text: text\n"
        )
    environment = known.environment | {"RAY_TMPDIR": str(session), "PYTHONPATH": f"{ROOT}:{folder}"}
    with echoing_server(known) as port:
        return subprocess.run(
            [sys.executable, "-c", start, "run", *words(runs, port)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=500,
        )


@pytest.mark.long
@pytest.mark.timeout(600)
def test_no_secret_is_in_the_session_folder_of_the_ray_that_a_run_starts(tmp_path: Path) -> None:
    known = Planted()
    with tempfile.TemporaryDirectory(
        prefix="ray-", dir="/tmp", ignore_cleanup_errors=True
    ) as session:
        done = run_on_its_own_ray(known, Path(session), tmp_path / "runs")
        assert done.returncode == 0, done.stderr[-3000:]
        found = files(Path(session), tmp_path)
        logs = [path for path in found if "worker-" in path and path.endswith((".out", ".err"))]
        assert any(b"[redacted]" in found[path] for path in logs), (
            "what the world printed is there, without"
        )
        assert known.found_in(found | outputs(done)) == []


@pytest.mark.long
@pytest.mark.timeout(600)
def test_without_the_redactor_the_secrets_are_in_rays_session_folder(tmp_path: Path) -> None:
    known = Planted()
    with tempfile.TemporaryDirectory(
        prefix="ray-", dir="/tmp", ignore_cleanup_errors=True
    ) as session:
        done = run_on_its_own_ray(known, Path(session), tmp_path / "runs", control=True)
        found = known.found_in(files(Path(session)))
        assert any(".err" in where for where in found), (
            f"the control finds it\n{done.stderr[-2000:]}"
        )


@pytest.mark.long
@pytest.mark.timeout(900)
def test_no_secret_is_in_a_submitted_job_nor_in_what_ray_tells_and_keeps_of_it(
    tmp_path: Path,
) -> None:
    known = Planted()
    with cluster_of(1, known.environment) as cluster, echoing_server(known) as port:
        done = submit(cluster, words(tmp_path / "runs", port))
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        told = {
            f"told of {what}": ask(
                cluster, f"api/{what}?detail=1&limit=1000&filter_keys=&filter_values="
            )
            for what in _TOLD
        }
        (job,) = (j for j in json.loads(told["told of jobs/"]) if j["type"] == "SUBMISSION")
        assert "actors run" in job["entrypoint"] and job["status"] == "SUCCEEDED"
        assert b"_RayCollector" in told["told of v0/actors"]
        log = subprocess.run(
            [str(BIN / "ray"), "job", "logs", job["submission_id"]],
            env=cluster,
            capture_output=True,
        )
        found = files(Path(cluster["RAY_TMPDIR"]), tmp_path)
        assert any("job-driver-" in path for path in found) and len(log.stdout) > 100
        assert any(b"[redacted]" in data for path, data in found.items() if "worker-" in path)
        assert any("runtime_resources" in path for path in found), (
            "what was uploaded is among the files"
        )
        assert (
            known.found_in(found | told | outputs(done) | {"ray job logs": log.stdout + log.stderr})
            == []
        )
        token = Path("~/.ray/auth_token").expanduser().read_bytes().strip()
        assert not [path for path, data in (found | told | outputs(done)).items() if token in data]


def submit(cluster: Mapping[str, str], words: list[str]) -> subprocess.CompletedProcess[str]:
    """`./xp submit`, from a machine that knows the secrets; tried again until the cluster takes
    jobs."""
    address = cluster["RAY_API_SERVER_ADDRESS"]
    command = [sys.executable, "-m", "actors", "submit", "--address", address, *words]
    environment = {**cluster, "RAY_AUTH_MODE": "token"}
    deadline = time.monotonic() + 120
    while True:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
        )
        if "please try again later" not in done.stdout + done.stderr or time.monotonic() > deadline:
            return done
        time.sleep(2)  # of all that Ray starts, the agents that take jobs are there last


def ask(cluster: Mapping[str, str], path: str) -> bytes:
    token = Path("~/.ray/auth_token").expanduser().read_text().strip()
    asked = urllib.request.Request(
        f"{cluster['RAY_API_SERVER_ADDRESS']}/{path}", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return bytes(answer.read())
