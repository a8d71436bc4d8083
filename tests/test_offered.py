"""Our worlds in verifiers, with its own command and package: the model gets the world's tools and
no other, and what is unknown or failed is no reward of 0."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.served_worlds import Jars
from tests.test_bridges import peer

ROOT = Path(__file__).resolve().parent.parent
Reply = str | tuple[str, dict[str, Any]]
"""A text, or a tool call: (name, arguments)."""


class Model(BaseHTTPRequestHandler):
    """An OpenAI-compatible endpoint whose model says one reply after another."""

    replies: list[Reply]
    asked: list[dict[str, Any]]

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append(asked)
        reply = self.replies.pop(0)
        message: dict[str, Any] = {"role": "assistant", "content": reply}
        if not isinstance(reply, str):
            called = {"name": reply[0], "arguments": json.dumps(reply[1])}
            call = {"index": 0, "id": f"c{len(self.asked)}", "type": "function", "function": called}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        self._send(message, bool(asked.get("stream")))

    def _send(self, message: dict[str, Any], streamed: bool) -> None:
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        reason = "tool_calls" if "tool_calls" in message else "stop"
        choice = {
            "index": 0,
            "delta" if streamed else "message": message,
            "finish_reason": reason,
        }
        body = json.dumps(
            {
                "id": "1",
                "object": "chat.completion.chunk" if streamed else "chat.completion",
                "created": 0,
                "model": "scripted",
                "choices": [choice],
                "usage": usage,
            }
        )
        sent = (f"data: {body}\n\ndata: [DONE]\n\n" if streamed else body).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if streamed else "application/json")
        self.send_header("content-length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_: Any) -> None: ...


def documented() -> list[str]:
    """The words of the command in docs/environments.md, after its program."""
    page = (ROOT / "docs/environments.md").read_text()
    (line,) = re.findall(r"^ +\.peers/verifiers/bin/vf-eval (.*)$", page, re.MULTILINE)
    return shlex.split(line.partition("#")[0])


def rolled_out(
    world: str, replies: list[Reply], folder: Path, *options: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(the records of the episodes by seed, what the model was asked), with the documented command
    for another world."""
    program = Path(peer("verifiers")).parent / "vf-eval"
    words = [world if word == "envs:KeyDoor-v0" else word for word in documented()]
    model = type("Scripted", (Model,), {"replies": list(replies), "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    more = ["-r", "1", "-c", "1", "--model", "scripted", "--client.base-url", url]
    more += ["--output-dir", str(folder / "out"), "--no-rich", *options]
    try:
        done = subprocess.run(
            [str(program), *words, *more],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ | {"OPENAI_API_KEY": "none"},
        )
    finally:
        server.shutdown()
    found = list((folder / "out").rglob("traces.jsonl"))
    assert found, done.stdout[-3000:] + done.stderr[-3000:]
    episodes = [json.loads(line) for line in found[0].read_text().splitlines()]
    return sorted(episodes, key=lambda e: e["task"]["data"]["seed"]), model.asked  # type: ignore[attr-defined]


def right_jar(seed: int) -> int:
    world = Jars()
    world.reset(seed=seed)
    return world.task


@pytest.fixture(scope="module")
def jars(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    replies: list[Reply] = [
        ("open", {"jar": (right_jar(0) + 1) % 50}),
        ("open", {"jar": right_jar(0)}),
        ("weigh", {}),
        ("open", {"jar": right_jar(1)}),
        ("wait", {"seconds": 60.0}),
        f"open {right_jar(3)}",
    ]
    folder = tmp_path_factory.mktemp("jars")
    options = ["-n", "4", "--env.taskset.deadline-seconds", "3"]
    return rolled_out("tests.served_worlds:Jars-v0", replies, folder, *options)


Rolled = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def test_the_documented_command_gives_the_model_the_worlds_tools_and_no_shell(jars: Rolled) -> None:
    episodes, asked = jars
    for request in asked:
        names = {tool["function"]["name"] for tool in request["tools"]}
        assert names == {"open", "look", "weigh", "wait", "fall"}
    (trace,) = episodes[0]["traces"]
    assert trace["agent"]["config"]["harness"]["id"] == "null"
    assert trace["rewards"]["xp_reward"]["score"] == 1.0 and trace["ok"], trace["errors"]
    assert trace["metrics"]["right"] == 1.0
    assert trace["stop_condition"] == "world_is_over", "no reply is asked for after the end"
    prompt = json.dumps(asked[0]["messages"])
    assert "Open the right jar of 50." in prompt and "nothing is known" in prompt
    assert "too " in json.dumps(asked[1]["messages"]), "the tool's answer is what is seen"
    (written,) = episodes[3]["traces"]
    assert written["rewards"]["xp_reward"]["score"] == 1.0, "a line of text is an action too"


def test_an_unknown_reward_fails_the_rollout_and_is_no_reward_of_0(jars: Rolled) -> None:
    episode = jars[0][1]
    (trace,) = episode["traces"]
    assert trace["rewards"]["xp_reward"] is None and not trace["ok"] and not episode["ok"]
    assert trace["metrics"] == {"weight": None, "right": 1.0}
    (error,) = trace["errors"]
    assert error["type"] == "RewardUnknown" and error["message"].endswith("unknown: weight")


def test_a_world_that_hangs_fails_the_rollout_in_words(jars: Rolled) -> None:
    episode = jars[0][2]
    assert not episode["ok"]
    errors = [*episode["errors"], *(e for t in episode["traces"] for e in t["errors"])]
    assert any("step did not answer within 3 s" in error["message"] for error in errors)
    assert not any(trace["rewards"].get("xp_reward") for trace in episode["traces"])
