"""The engine `vllm`: what it asks, what it holds, and what it does where a server fails.

The errors are those of a small HTTP server that speaks as vLLM does; what vLLM itself answers is
tested against vLLM (./xp setup vllm).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors import ROOT
from actors.config.schema import Policy, load
from actors.engines import vllm_engine
from actors.engines.engine import Exchange, Situation
from actors.engines.registry import make_engine, make_model
from actors.engines.servers.program import OWN
from actors.engines.vllm_engine import VllmEngine
from experience.errors import ConfigError, EngineError, WeightsError
from experience.learning.advantages import of_decision
from experience.learning.batch import TokenBatch
from experience.learning.sequences.scoring import token_logprobs
from experience.models.weights import Weights
from tests.test_lora import changed
from tests.tiny_hugging_face import write_tiny_model

ASKED = Situation("go?", "Say yes.", draw=7)


class Server:
    """Answers every completion with two tokens, and keeps what it was asked. `fault` may answer
    in its place: (path, body) -> (status, body), or None."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.adapters: list[str] = []
        self.fault: Callable[[str, Any], tuple[int, Any] | None] = lambda path, body: None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                self._say(200, {"data": [{"id": "base", "parent": None}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.asked.append((self.path, body))
                self._say(*(outer.fault(self.path, body) or outer.answer(self.path, body)))

            def _say(self, status: int, body: Any) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        if path.endswith("/load_lora_adapter") and "unload" not in path:
            self.adapters.append(body["lora_name"])
            return 200, "Success"
        if path.endswith("unload_lora_adapter"):
            self.adapters.remove(body["lora_name"])
            return 200, "Success"
        if body["model"] not in ("base", *self.adapters):
            return 404, {"error": {"message": "does not exist"}}
        choice = {
            "prompt_token_ids": body["prompt"],
            "token_ids": [40, body["stop_token_ids"][0]],
            "logprobs": {"token_logprobs": [-0.5, -0.25]},
        }
        return 200, {"choices": [choice]}

    def completions(self) -> list[Any]:
        return [body for path, body in self.asked if path.endswith("/completions")]


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


def settings(tiny: str, url: str, **arguments: Any) -> Policy:
    given = {"lora_rank": 4, **arguments}
    return Policy(engine="vllm", model=tiny, base_url=url, context=128, max_tokens=8,
                  retries=2, timeout_seconds=5, arguments=given)  # fmt: skip


def engine_of(policy: Policy) -> VllmEngine:
    engine = make_engine(policy, 0)
    assert isinstance(engine, VllmEngine)
    return engine


def versions(policy: Policy, *numbers: int) -> list[Weights]:
    trained = make_model(policy, 0)
    assert trained is not None
    first = Weights.of(trained.model, 0)
    later = Weights.of(changed(trained.model), 0)
    return [first if number == 0 else later.as_version(number) for number in numbers]


def test_each_request_names_its_version_and_the_step_says_which(tiny: str, server: Server) -> None:
    policy = settings(tiny, server.url)
    engine = engine_of(policy)
    before = engine.act([ASKED], 1.0)[0]
    for weights in versions(policy, 3, 4):
        engine.load(weights)
    after = engine.act([ASKED], 1.0)[0]
    names = [body["model"] for body in server.completions()]
    assert names[0] == "base" and "-v4-" in names[1]
    assert (before.policy_version, after.policy_version) == (0, 4)
    assert [span.version for span in after.version_spans] == [4]


def held(server: Server) -> list[str]:
    return [name.split("-")[2] for name in server.adapters]


def test_a_version_leaves_the_server_when_nobody_holds_it(tiny: str, server: Server) -> None:
    """The one before the newest stays until the next: its requests may be under way."""
    policy = settings(tiny, server.url)
    acting, pinned = engine_of(policy), engine_of(policy)
    first, *later = versions(policy, 1, 2, 3, 4)
    pinned.load(first)
    acting.load(first)
    for weights in later:
        acting.load(weights)
    assert held(server) == ["v1", "v3", "v4"]
    pinned.close()
    acting.load(later[-1])
    assert held(server) == ["v4"]


def test_a_request_under_way_keeps_its_version_while_a_new_one_comes(
    tiny: str, server: Server
) -> None:
    policy = settings(tiny, server.url)
    engine = engine_of(policy)
    first, second, third = versions(policy, 1, 2, 3)
    engine.load(first)
    begun, go_on = threading.Event(), threading.Event()

    def slow(path: str, body: Any) -> None:
        if path.endswith("/completions"):
            begun.set()
            assert go_on.wait(20)

    server.fault = slow
    found: list[Any] = []
    asking = threading.Thread(target=lambda: found.append(engine.act([ASKED], 1.0)[0]))
    asking.start()
    assert begun.wait(20)
    engine.load(second)
    engine.load(third)
    assert held(server) == ["v1", "v2", "v3"]
    go_on.set()
    asking.join(20)
    assert found[0].policy_version == 1


def test_a_history_is_appended_tokens_and_never_rendered_again(tiny: str, server: Server) -> None:
    engine = engine_of(settings(tiny, server.url))
    first = engine.act([ASKED], 1.0)[0]
    before = np.concatenate([first.prompt_ids, first.action_ids])
    earlier = (Exchange("go?", first.text, first.action_ids),)
    second = engine.act([Situation("and now?", "Say yes.", earlier=earlier, before=before)], 1.0)[0]
    assert np.array_equal(second.prompt_ids[: len(before)], before)
    assert server.completions()[1]["prompt"] == second.prompt_ids.tolist()


def test_a_server_that_began_again_is_given_its_adapter_back(tiny: str, server: Server) -> None:
    policy = settings(tiny, server.url)
    engine = engine_of(policy)
    engine.load(versions(policy, 5)[0])
    server.adapters.clear()
    assert engine.act([ASKED], 1.0)[0].policy_version == 5
    assert len(server.adapters) == 1


def test_a_passing_error_is_asked_again_and_a_lasting_one_is_named(
    tiny: str, server: Server
) -> None:
    engine = engine_of(settings(tiny, server.url))
    faults = iter([(503, "busy")])
    server.fault = lambda path, body: next(faults, None)
    assert engine.act([ASKED], 1.0)[0].token_exact
    server.fault = lambda path, body: (400, "the prompt is too long")
    with pytest.raises(EngineError, match=r"400.*too long"):
        engine.act([ASKED], 1.0)
    with pytest.raises(EngineError, match="is the server up"):
        engine_of(settings(tiny, "http://127.0.0.1:9/v1")).act([ASKED], 1.0)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"choices": [{"token_ids": [1], "logprobs": {"token_logprobs": []}}]}, "no completion"),
        ({"choices": [{"token_ids": [1], "logprobs": None}]}, "no completion"),
        ({"choices": []}, "no completion"),
        ("hello", "no completion"),
        (
            {"choices": [{"prompt_token_ids": [1], "token_ids": [1],
                          "logprobs": {"token_logprobs": [-1.0]}}]},
            "other tokens than it was given",
        ),
        (
            {"choices": [{"token_ids": [1], "logprobs": {"token_logprobs": [float("nan")]}}]},
            "no completion",
        ),
    ],
)  # fmt: skip
def test_an_answer_that_is_no_completion_is_an_error_of_its_request(
    answer: Any, said: str, tiny: str, server: Server
) -> None:
    engine = engine_of(settings(tiny, server.url))
    server.fault = lambda path, body: (200, answer)
    with pytest.raises(EngineError, match=said):
        engine.act([ASKED], 1.0)


def test_damaged_weights_are_refused_and_the_old_ones_stay(tiny: str, server: Server) -> None:
    policy = settings(tiny, server.url)
    engine = engine_of(policy)
    good, later = versions(policy, 1, 2)
    engine.load(good)
    with pytest.raises(WeightsError, match="SHA-256"):
        engine.load(Weights(2, later.data[:-1] + b"\7", later.sha256))
    assert engine.act([ASKED], 1.0)[0].policy_version == 1


def test_at_other_temperatures_an_unknown_server_gives_no_samples(
    tiny: str, server: Server
) -> None:
    engine = engine_of(settings(tiny, server.url))
    decisions = [engine.act([ASKED], temperature)[0] for temperature in (0.0, 0.5, 1.0)]
    assert [d.sampled for d in decisions] == [False, False, True]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("{lora_rnk: 3}", "lora_rnk: vllm knows none\n  did you mean 'lora_rank'"),
        ("{lora_rank: many}", "valid integer, not 'many'"),
        ("{placement: moon}", "'inside' or 'node'"),
        ("{adapters: 1}", "greater than or equal to 2"),
    ],
)
def test_a_wrong_argument_is_named_with_its_place(arguments: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load([ROOT / "configs/vllm.yaml"], [f"policy.arguments={arguments}"])
    assert said in str(caught.value)


def test_a_server_in_each_of_several_collectors_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"set policy\.arguments\.placement=node"):
        load([ROOT / "configs/vllm.yaml"], ["workers=2"])
    load([ROOT / "configs/vllm.yaml"], ["workers=2", "policy.arguments.placement=node"])


def test_an_engine_without_arguments_says_so() -> None:
    with pytest.raises(ConfigError, match="the engine table takes none"):
        load([], ["policy.engine=table", "policy.arguments={device: cpu}"])


def test_a_whole_model_is_not_trained_for_a_vllm_server(tiny: str) -> None:
    with pytest.raises(ConfigError, match="lora_rank: 0 trains a whole model"):
        make_model(settings(tiny, "http://127.0.0.1:9", lora_rank=0), 0)


def test_a_server_that_is_not_installed_is_named_with_the_line_to_type() -> None:
    policy = Policy(engine="vllm", model="smollm2", arguments={"server": "/nowhere/vllm"})
    with pytest.raises(Exception, match="xp setup vllm"):
        vllm_engine.check(policy)


def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """However it ends: here it is killed, so that nothing of its own can run."""
    beat = tmp_path / "beat"
    child = f"import time, pathlib\nwhile True: pathlib.Path({str(beat)!r}).write_text(str(time.time())); time.sleep(0.05)"
    code = (
        "import sys, time; from pathlib import Path\n"
        "from actors.engines.servers import child\n"
        "import subprocess\n"
        f"subprocess.Popen([sys.executable, str(child._WATCHED), sys.executable, '-c', {child!r}],"
        " stdin=subprocess.PIPE)\n"
        "time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    until = time.monotonic() + 60
    while not beat.exists() and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    while time.time() - beat.stat().st_mtime < 2 and time.monotonic() < until:
        time.sleep(0.1)
    assert time.time() - beat.stat().st_mtime >= 2


@pytest.mark.long
def test_vllm_serves_versions_as_the_learner_scores_them(tiny: str) -> None:
    """Against vLLM itself: prompts, tokens, versions side by side, and log-probabilities."""
    if not OWN.exists():
        pytest.skip("no vLLM here: ./xp setup vllm")
    policy = settings(tiny, "", served_dtype="float32", stream=True)
    trained = make_model(policy, 0)
    assert trained is not None
    engine, pinned = engine_of(policy), engine_of(policy)
    try:
        pinned.load(Weights.of(trained.model, 1))
        old = [pinned.act([Situation("go?", draw=n)], 1.0)[0] for n in range(4)]
        found = _differences(trained.model, old)
        engine.load(Weights.of(changed(trained.model), 2))
        new = [engine.act([Situation("go?", draw=n)], 0.7)[0] for n in range(4)]
        again = [pinned.act([Situation("go?", draw=n)], 1.0)[0] for n in range(4)]
        found += _differences(trained.model, new)
    finally:
        engine._service.close()
    assert max(found) < 1e-3
    assert [d.policy_version for d in new] == [2] * 4
    assert [d.action_ids.tolist() for d in again] == [d.action_ids.tolist() for d in old]
    assert all(d.first_token_seconds is not None for d in new)
    assert all(d.sampled for d in new)


def _differences(model: Any, decisions: list[Any]) -> list[float]:
    """For each decision the largest difference between the server's and our log-probabilities."""
    found = []
    for decision in decisions:
        batch = TokenBatch.of([of_decision(decision)])
        logp = token_logprobs(model(batch.tokens), batch.tokens, batch.temperature)
        found.append(float((logp - batch.logp_behaviour)[batch.mask > 0].detach().abs().max()))
    return found
