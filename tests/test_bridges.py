"""Bridges, each with the real package in its own Python (./xp setup peers), and our end alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from experience.errors import EnvironmentFailure, MissingPartError
from tests.conftest import free_port

ROOT = Path(__file__).resolve().parent.parent
COUNTER = "resources_servers.example_session_state_mgmt.app:StatefulCounterResourcesServer"


def peer(name: str) -> str:
    python = ROOT / f".peers/{name}/bin/python"
    if not python.exists():
        pytest.skip(f"no {name} here: ./xp setup peers")
    return str(python)


def served(command: list[str], port: int, cwd: Path = ROOT) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for _ in range(300):
        with socket.socket() as it:
            if it.connect_ex(("127.0.0.1", port)) == 0:
                return process
        assert process.poll() is None, command
        time.sleep(0.1)
    raise AssertionError(f"nothing listens: {command}")


@pytest.fixture(scope="module")
def ours() -> Iterator[str]:
    """The address of our KeyDoor, served by OpenEnv's own server."""
    python, port = peer("openenv"), free_port()
    process = served([python, "-m", "envs.bridges.open_env", "envs:KeyDoor-v0", str(port)], port)
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


def by_oracle(seed: int) -> list[str]:
    world = gymnasium.make("envs:KeyDoor-v0").unwrapped
    world.reset(seed=seed)
    actions, ended = [], False
    while not ended:
        actions.append(world.oracle_action())
        ended = world.step(actions[-1])[2]
    return actions


def test_openenvs_own_client_solves_our_world_and_is_told_what_was_measured(ours: str) -> None:
    script = """if True:
        import asyncio, json, sys
        from openenv import GenericEnvClient
        async def main(url, seed, actions):
            async with GenericEnvClient(base_url=url) as env:
                first = await env.reset(seed=seed)
                results = [await env.step({"text": a}) for a in actions]
                return first, results[-1]
        first, last = asyncio.run(main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])))
        seen = last.observation["metadata"]
        print(json.dumps([first.observation["text"], last.reward, last.done, seen]))"""
    done = subprocess.run(
        [peer("openenv"), "-c", script, ours, "5", json.dumps(by_oracle(5))],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    seen, reward, ended, metadata = json.loads(done.stdout.splitlines()[-1])
    assert seen == gymnasium.make("envs:KeyDoor-v0").unwrapped.reset(seed=5)[0]
    assert (reward, ended, metadata["truncated"]) == (1.0, True, False)
    assert metadata["signals"] == {"solved": 1.0, "key": 0.0, "door": 1.0}


def test_an_openenv_server_is_a_world_with_its_schema_its_refusals_and_its_end(ours: str) -> None:
    world = gymnasium.make("envs:OpenEnv-v0", url=ours).unwrapped
    world.reset(seed=3)
    for action in by_oracle(world.task):
        _, reward, terminated, truncated, info = world.step(action)
    assert (reward, terminated, truncated, info["signals"]) == (
        1.0,
        True,
        False,
        {"env_reward": 1.0},
    )
    world.reset(seed=3)
    seen, _, _, _, info = world.step('{"nonsense": 1}')
    assert "invalid_action" in info["signals"] and "Field required" in seen
    for _ in range(200):
        _, _, terminated, truncated, _ = world.step(json.dumps({"text": "up"}))
        if terminated or truncated:
            break
    assert truncated and not terminated, "cut off over there is cut off here"
    assert set(json.loads(world.random_action(np.random.default_rng(0)))) == {"text"}
    world.close()


def test_a_fresh_openenv_package_of_its_own_scaffold_is_a_world(tmp_path: Path) -> None:
    python, port = peer("openenv"), free_port()
    made = subprocess.run(
        [python, "-m", "openenv.cli", "init", "echoes"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PATH": f"{Path(python).parent}:{os.environ['PATH']}"},
    )
    assert made.returncode == 0, made.stderr + made.stdout
    process = served(
        [python, "-m", "uvicorn", "server.app:app", "--port", str(port)], port, tmp_path / "echoes"
    )
    try:
        world = gymnasium.make("envs:OpenEnv-v0", url=f"http://127.0.0.1:{port}").unwrapped
        world.reset(seed=0)
        seen, reward, *_ = world.step("hello")
        assert "hello" in seen and reward == pytest.approx(0.5), "its echo pays 0.1 a letter"
        world.close()
    finally:
        process.kill()
        process.wait()


def test_openenv_loads_our_graders_and_runs_them_on_a_running_subject(
    ours: str, tmp_path: Path
) -> None:
    script = """if True:
        import sys
        from pathlib import Path
        from types import SimpleNamespace
        from openenv.validation.graders import GraderRegistry, Subject
        from openenv.validation.report import CheckResult
        from openenv.validation.runtime.scheduler import execute_graders
        from openenv.validation.types import CheckStatus
        registry = GraderRegistry()
        assert registry.load_entry_points() == 5
        ids = ["runtime.seed_control", "runtime.episode_determinism", "runtime.episode_isolation",
               "semantic.replayability", "semantic.resource_envelope"]
        running, folder = SimpleNamespace(base_url=sys.argv[1]), Path(sys.argv[2])
        subject = Subject(folder, None, None, running, folder)
        up = CheckResult(check_id="runtime.startup", status=CheckStatus.PASS, duration_s=0)
        for found in execute_graders([registry.get(i) for i in ids], subject, prior=[up]):
            print(found.check_id, found.status.value, found.evidence)"""
    done = subprocess.run(
        [peer("openenv"), "-c", script, ours, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" pass ") == 5, done.stdout


def test_a_taskset_of_verifiers_is_a_world_and_its_own_reward_pays(tmp_path: Path) -> None:
    (tmp_path / "sums.py").write_text("""import verifiers.v1 as vf
class SumData(vf.TaskData):
    answer: str
class SumTask(vf.Task[SumData]):
    @vf.reward(weight=1.0)
    async def right(self, trace: vf.Trace) -> float:
        return float(trace.last_reply.strip() == self.data.answer)
class SumConfig(vf.TasksetConfig):
    most: int = 20
class SumTaskset(vf.Taskset[SumTask, SumConfig]):
    def load(self):
        for i in range(self.config.most):
            data = SumData(prompt=f"What is {i} + {i}?", answer=str(2 * i))
            yield SumTask(data, self.config.task)
__all__ = ["SumTaskset"]
""")
    world = gymnasium.make(
        "envs:Peer-v0",
        python=peer("verifiers"),
        package="verifiers",
        options={"taskset": "sums", "path": str(tmp_path), "config": {"most": 7}},
    ).unwrapped
    for seed in range(5):
        seen, _ = world.reset(seed=seed)
        number = int(seen.split()[2])
        assert number == world.task % 7
        assert world.step(str(2 * number))[1:4] == (1.0, True, False)
        world.reset(seed=seed)
        assert world.step(str(2 * number + 1))[1] == 0.0
    world.close()


class Model(BaseHTTPRequestHandler):
    """An OpenAI-compatible endpoint whose model says one action after another."""

    says: list[str] = []

    def do_POST(self) -> None:
        streamed = json.loads(self.rfile.read(int(self.headers["content-length"]))).get("stream")
        message = {"role": "assistant", "content": self.says.pop(0) if self.says else "up"}
        head = {
            "id": "1",
            "object": "chat.completion.chunk" if streamed else "chat.completion",
            "created": 0,
            "model": "scripted",
        }
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        choice = {"index": 0, "delta" if streamed else "message": message, "finish_reason": "stop"}
        body = json.dumps(head | {"choices": [choice], "usage": usage})
        sent = (f"data: {body}\n\ndata: [DONE]\n\n" if streamed else body).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if streamed else "application/json")
        self.send_header("content-length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_: Any) -> None: ...


def test_verifiers_rolls_out_our_world_with_a_model_behind_an_endpoint(tmp_path: Path) -> None:
    python = peer("verifiers")
    Model.says = by_oracle(0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        done = subprocess.run(
            [
                str(Path(python).parent / "vf-eval"),
                "xp-worlds",
                "-n",
                "1",
                "-r",
                "1",
                "--env.taskset.world",
                "envs:KeyDoor-v0",
                "--model",
                "scripted",
                "--client.base-url",
                f"http://127.0.0.1:{server.server_address[1]}/v1",
                "--env.player.harness.id",
                "null",
                "--env.player.runtime.type",
                "subprocess",
                "--output-dir",
                str(tmp_path / "out"),
                "--no-rich",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ | {"OPENAI_API_KEY": "none"},
        )
        traces = list((tmp_path / "out").rglob("traces.jsonl"))
        assert traces, done.stdout[-3000:] + done.stderr[-3000:]
        trace = json.loads(traces[0].read_text().splitlines()[0])["traces"][0]
        assert trace["rewards"]["xp_reward"]["score"] == 1.0, trace["errors"]
        assert trace["metrics"]["solved"] == 1.0
    finally:
        server.shutdown()


def test_browsergyms_environment_is_a_world_in_its_own_python() -> None:
    pytest.importorskip("miniwob", reason="./xp setup worlds")
    from envs.browser.chrome.chromium import find_browser
    from envs.browser.miniwob import html

    world = gymnasium.make(
        "envs:Peer-v0",
        python=peer("browsergym"),
        package="browser_gym",
        options={
            "id": "browsergym/miniwob.click-test",
            "miniwob": str(html() / "miniwob"),
            "browser": find_browser(),
            "delay": 0.0,
        },
    ).unwrapped
    try:
        seen, _ = world.reset(seed=0)
        assert "Click the button" in seen
        button = (
            next(line for line in seen.splitlines() if "] button" in line)
            .strip()
            .split("]")[0]
            .strip("[")
        )
        assert "! " in world.step("nonsense(")[0]
        _, reward, terminated, _, _ = world.step(f"click('{button}')")
        assert terminated and reward > 0
    finally:
        world.close()


def test_nemo_gyms_server_is_a_world_with_a_session_an_episode() -> None:
    world = gymnasium.make(
        "envs:Peer-v0", python=peer("nemo-gym"), package="nemo_gym", options={"server": COUNTER}
    ).unwrapped
    world.task = 0
    world.tasks = lambda split, rng: 0
    for right in (True, False, True):
        seen, _ = world.reset(seed=0)
        assert "add 1 then add 2" in seen and "increment_counter" in seen
        for count in (1, 2 if right else 3):
            assert (
                "true"
                in world.step(
                    json.dumps({"name": "increment_counter", "arguments": {"count": count}})
                )[0]
            )
        assert ("6" if right else "7") in world.step(
            '{"name": "get_counter_value", "arguments": {}}'
        )[0]
        assert "invalid_action" in world.step('{"name": "nonsense", "arguments": {}}')[4]["signals"]
        assert world.step("the count is 6")[1:4] == (float(right), True, False)
    world.close()


def test_a_peer_that_is_missing_dies_or_fails_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingPartError, match="no Python at"):
        gymnasium.make(
            "envs:Peer-v0", python=str(tmp_path / "none"), package="verifiers", options={}
        )
    with pytest.raises(EnvironmentFailure, match=r"verifiers .*ModuleNotFoundError"):
        gymnasium.make(
            "envs:Peer-v0", python=sys.executable, package="verifiers", options={"taskset": "x"}
        )
    dies = tmp_path / "python"
    dies.write_text("#!/bin/sh\necho broken wheel >&2\nexit 3\n")
    dies.chmod(0o755)
    with pytest.raises(
        EnvironmentFailure,
        match=r"(ended without an answer|Broken pipe|reset by peer).*: broken wheel",
    ):
        gymnasium.make("envs:Peer-v0", python=str(dies), package="verifiers", options={})
    dies.write_text("""#!/bin/sh
read begin; echo '{"instructions": "act"}'
read reset; exec <&-; echo half way >&2; echo '{"seen": "here"}'
""")
    world = gymnasium.make("envs:Peer-v0", python=str(dies), package="verifiers", options={})
    # It no longer reads: the step finds a broken pipe.
    world.reset(seed=0)
    with pytest.raises(
        EnvironmentFailure, match=r"(ended without an answer|Broken pipe|reset by peer).*: half way"
    ):
        world.step("go")
    with pytest.raises(EnvironmentFailure, match=r"verifiers .* has ended"):
        world.step("go on")
    world.close()
    with pytest.raises(ValueError, match="package 'gym': one of browser_gym, nemo_gym, verifiers"):
        gymnasium.make("envs:Peer-v0", python=sys.executable, package="gym", options={})
    with pytest.raises(EnvironmentFailure, match="no OpenEnv server"):
        gymnasium.make("envs:OpenEnv-v0", url=f"http://127.0.0.1:{free_port()}")


def test_a_peer_beside_us_records_tier_none_and_sees_no_variable_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XP_PLANTED", "a secret")
    says = tmp_path / "python"
    says.write_text("""#!/bin/sh
read begin; echo "{\\"instructions\\": \\"[$XP_PLANTED] $HOME\\"}"; read end
""")
    says.chmod(0o755)
    world = gymnasium.make(
        "envs:Peer-v0", python=str(says), package="verifiers", options={}, confined=False
    ).unwrapped
    assert world.instructions == "[] /nonexistent" and world.sandbox_tier == "none"
    world.close()
