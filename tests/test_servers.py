"""A model server that cannot answer is named before anything is lived, within seconds, in the run
and in `show`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from actors.config.schema import Policy
from actors.engines.engine import Situation
from actors.engines.openai_engine import OpenAIServer
from actors.engines.registry import check_engine, make_engine
from experience.errors import EngineError
from tests.test_house import ROOT


@contextmanager
def server(
    status: int = 200, body: str = "", kind: str = "application/json", models: str = ""
) -> Iterator[str]:
    """Answers each request with the same, and a list of models with `models` where there is one."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say(200 if models else status, models or body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._say(status, body)

        def _say(self, code: int, text: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None: ...

    found = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{found.server_port}/v1"
    found.shutdown()


@contextmanager
def silent() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"


def policy(url: str) -> Policy:
    return Policy(engine="openai", base_url=url, model="m", learns=False, timeout_seconds=3)


ANSWER = json.dumps(
    {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "yes"},
            }
        ],
    }
)
MODELS = json.dumps(
    {
        "object": "list",
        "data": [{"id": "the-other", "object": "model", "created": 1, "owned_by": "x"}],
    }
)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"status": 500, "body": "{}"}, "InternalServerError"),
        ({"status": 404, "body": "{}"}, "NotFoundError"),
        (
            {"status": 404, "body": '{"error": "no such model"}', "models": MODELS},
            "it serves the-other; set policy.model",
        ),
        ({"status": 401, "body": "{}"}, "AuthenticationError"),
        ({"body": "<html>hello</html>", "kind": "text/html"}, "no chat completion"),
        ({"body": "not json"}, "no chat completion"),
        ({"body": '{"choices": []}'}, "no chat completion"),
        ({"body": "[1, 2]"}, "no chat completion"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_server_that_answers_something_else_is_named_with_what_it_said(
    how: dict[str, str], says: str
) -> None:
    with server(**how) as url, pytest.raises(EngineError) as told:  # type: ignore[arg-type]
        check_engine(policy(url))
    assert url in str(told.value) and says in str(told.value)


def test_a_server_that_takes_connections_and_never_answers_is_told_from_one_that_is_not_there() -> (
    None
):
    with silent() as url, pytest.raises(EngineError, match="does not answer in time"):
        check_engine(policy(url))
    with pytest.raises(EngineError, match="no connection"):
        check_engine(policy(url))


@pytest.mark.parametrize("models", ["", MODELS])
def test_a_server_that_answers_is_let_be_whether_it_lists_its_models_or_not(models: str) -> None:
    with server(body=ANSWER, models=models) as url:
        check_engine(policy(url))


def test_a_run_with_a_dead_server_ends_at_once_and_show_says_why(tmp_path: Path) -> None:
    with silent() as url:
        pass
    started = time.monotonic()
    words = [sys.executable, "-m", "actors"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [*words, "run", "-c", str(ROOT / "configs/openai-server.yaml"), f"policy.base_url={url}"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    spent = time.monotonic() - started
    assert (
        run.returncode == 1 and "no connection" in run.stderr and "is the server up" in run.stderr
    ), run.stderr
    assert "Traceback" not in run.stderr and spent < 120, (
        "far below the half hour that the run is given"
    )
    shown = subprocess.run(
        [*words, "show"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert "failed" in shown.stdout and "no connection" in shown.stdout, shown.stdout


TOLD = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "prompt_token_ids": [5, 6, 7],
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "left"},
            "token_ids": [8, 9],
            "logprobs": {
                "content": [
                    {"token": "le", "logprob": -0.5, "bytes": [], "top_logprobs": []},
                    {"token": "ft", "logprob": -0.25, "bytes": [], "top_logprobs": []},
                ]
            },
        }
    ],
}


def engine_at(url: str) -> OpenAIServer:
    policy = Policy(engine="openai", model="m", base_url=url, learns=False, retries=0)
    made = make_engine(policy, 0)
    assert isinstance(made, OpenAIServer)
    return made


@pytest.mark.parametrize("temperature, sampled", [(1.0, True), (0.5, False), (0.0, False)])
def test_a_server_that_tells_its_tokens_gives_exact_steps_and_samples_at_temperature_1(
    temperature: float, sampled: bool
) -> None:
    with server(body=json.dumps(TOLD)) as url:
        (decision,) = engine_at(url).act([Situation("seen")], temperature)
    assert decision.token_exact and decision.sampled is sampled
    assert (decision.prompt_ids.tolist(), decision.action_ids.tolist()) == ([5, 6, 7], [8, 9])
    assert decision.logprobs.tolist() == [-0.5, -0.25]
    assert [(span.version, span.tokens) for span in decision.version_spans] == [(0, 2)]


def test_a_server_that_tells_a_part_of_its_tokens_is_believed_for_its_text_alone() -> None:
    told = json.loads(json.dumps(TOLD))
    del told["choices"][0]["logprobs"]["content"][0]
    with server(body=json.dumps(told)) as url:
        (decision,) = engine_at(url).act([Situation("seen")], 1.0)
    assert decision.text == "left" and not decision.token_exact


def test_a_server_that_refuses_to_be_asked_for_tokens_is_asked_without() -> None:
    refused = []

    class Strict(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            strange = "return_token_ids" in asked
            refused.append(strange)
            body = json.dumps({"error": {"message": "unknown"}} if strange else TOLD).encode()
            self.send_response(400 if strange else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    found = ThreadingHTTPServer(("127.0.0.1", 0), Strict)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    engine = engine_at(f"http://127.0.0.1:{found.server_port}/v1")
    decisions = [engine.act([Situation("seen")], 1.0)[0] for _ in range(3)]
    found.shutdown()
    assert [d.text for d in decisions] == ["left"] * 3
    assert not any(d.token_exact for d in decisions), "it was asked for text alone"
    assert refused == [True, False, False, False], "it is asked for its tokens once"
