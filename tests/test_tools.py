"""A world's tools reach the model, its calls reach the world, and both reach the record."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from actors.config.schema import Policy, load
from actors.engines.calls.telling import in_words
from actors.engines.engine import Exchange, Situation, answer_fields, with_calls
from actors.engines.hugging_face_engine import ChatTurns
from actors.engines.openai_engine import make_engine
from actors.pool.pool import all_new
from experience.errors import ConfigError
from experience.policy import Decision
from experience.shards.catalog import Catalog
from experience.shards.exchange.rows.json_steps import as_plain, from_plain
from experience.shards.journal import Journal
from experience.shards.redaction.redact import Redactor
from experience.step import Boundary, Step
from experience.text.tools import ToolCall, ToolResult
from experience.world import WorldCard
from tests.alone import SMALLEST_POLICY, Alone
from tests.calling_world import Shelf, Speaker
from tests.conftest import CATALOGUE, make_step
from tests.tiny_hugging_face import TEMPLATE, write_tiny_model

TOOLS = tuple(Shelf().tool_schemas)
PUT = '{"name": "put", "arguments": {"books": ["a"]}}'
WITH_TOOLS = (
    "{% if tools %}<|system|>{% for t in tools %}{{ t | tojson }}{% endfor %}<|end|>{% endif %}"
    "{% for m in messages %}<|{{ 'user' if m.role == 'tool' else m.role }}|>"
    "{% if m.role == 'tool' %}<result>{{ m.content }}</result>"
    "{% else %}{{ m.content }}{% endif %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    folder = write_tiny_model(tmp_path_factory.mktemp("tiny"))
    return AutoTokenizer.from_pretrained(folder)


class Ends:
    """What the end tokens of a model are read from."""

    class config:
        eos_token_id = None

    generation_config = config


def turns(tokenizer: Any, template: str, tools: str = "auto") -> ChatTurns:
    tokenizer.chat_template = template
    return ChatTurns(tokenizer, Ends(), tools)


def prompt(chat: ChatTurns, situation: Situation) -> str:
    return str(chat._tokenizer.decode(chat.prompt(situation, 100_000).ids))


ASKED = Situation("an empty shelf", "Fill it.", tools=TOOLS)


def test_tools_are_told_by_the_models_own_template(tokenizer: Any) -> None:
    read = prompt(turns(tokenizer, WITH_TOOLS), ASKED)
    assert json.dumps(TOOLS[0]) in read and "You can call" not in read
    assert json.dumps(TOOLS[0]) in prompt(turns(tokenizer, WITH_TOOLS, "template"), ASKED)


def test_tools_are_told_in_words_where_a_template_has_no_place_for_them(tokenizer: Any) -> None:
    read = prompt(turns(tokenizer, TEMPLATE), ASKED)
    assert read.startswith(f"<|system|>Fill it.\n\n{in_words(TOOLS)}<|end|>")
    assert "- put(books: array, labels?: object): Put books on the shelf." in read
    assert "You can call" in prompt(turns(tokenizer, WITH_TOOLS, "text"), ASKED)
    plain = Situation("an empty shelf", "Fill it.")
    assert prompt(turns(tokenizer, TEMPLATE, "none"), ASKED) == prompt(
        turns(tokenizer, TEMPLATE), plain
    )
    with pytest.raises(ConfigError, match=r"policy\.tools.*no place for tools"):
        turns(tokenizer, TEMPLATE, "template")


def test_what_follows_a_call_is_its_result_and_what_follows_a_line_is_the_users(
    tokenizer: Any,
) -> None:
    chat = turns(tokenizer, WITH_TOOLS)
    ends = "<|assistant|>"
    for said, after in [
        (f"<tool_call>{PUT}</tool_call>", "<|user|><result>full</result><|end|>"),
        (PUT, "<|user|><result>full</result><|end|>"),
        ("put a", "<|user|>full<|end|>"),
        ("<tool_call>put", "<|user|>full<|end|>"),  # it was refused: there is no result
    ]:
        answer = chat.action(said)
        assert tokenizer.decode(chat.further(answer, "full")) == after + ends
        assert tokenizer.decode(chat.further(answer[:-1], "full")) == "<|end|>" + after + ends
    old = turns(tokenizer, TEMPLATE)
    called = old.further(old.action(PUT), "full")
    assert tokenizer.decode(called) == "<|user|>full<|end|><|assistant|>"


def test_the_card_of_a_tool_world_has_its_tools_and_that_of_others_has_none() -> None:
    assert WorldCard.of(Shelf()).tools == TOOLS
    assert WorldCard.of(gymnasium.make("CartPole-v1").unwrapped).tools == ()
    assert WorldCard.of(gymnasium.make("envs:KeyDoor-v0").unwrapped).tools == ()


def test_lists_objects_null_and_async_methods_are_actions() -> None:
    world = Shelf()
    world.reset(seed=0)
    assert TOOLS[0]["function"]["parameters"]["properties"] == {
        "books": {"type": "array", "items": {"type": "string"}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    }
    seen, reward, *_ = world.step(
        '{"name": "put", "arguments": {"books": ["a", "b"], "labels": {"a": "x"}}}'
    )
    assert seen.endswith(": a, b") and reward == 2.0 and world.labels == {"a": "x"}
    world.step('{"name": "put", "arguments": {"books": "[\\"c\\"]", "labels": null}}')
    assert world.books == ["a", "b", "c"] and world.labels is None
    seen, *_ = world.step('{"name": "put", "arguments": {"books": 3}}')
    assert "! books is an array, not '3'" in seen and world.books == ["a", "b", "c"]


def test_several_calls_a_turn_are_done_in_order_and_those_beyond_are_refused() -> None:
    world = Shelf()
    world.reset(seed=0)
    seen, reward, _, _, info = world.step(f"[{PUT}, {PUT}, {PUT}]")
    assert world.books == ["a", "a"] and info["signals"]["books"] == 2.0
    assert seen.endswith("! call 3 was not done: 2 calls a turn")
    assert reward == pytest.approx(2.0 - 0.1)
    assert [json.loads(result) for result in info["tool_results"]] == [
        {"books": 1.0},
        {"books": 1.0},
        {"error": "not done: 2 calls a turn"},
    ]
    four = json.dumps([{"name": "put", "arguments": {"books": ["x"] * 4}}])
    seen, *_, info = world.step(four)
    assert "three books at most" in seen and info["signals"]["invalid_action"][0] == 1.0


def lived(folder: Path, says: list[str], *words: str) -> list[Step]:
    """The rows of an episode on the shelf, of a model that says `says`."""
    Speaker.says[:], Speaker.asked[:] = says, []
    config, _ = load(
        [],
        [
            "worlds=[{id: 'tests.calling_world:Shelf-v0', isolation: inside}]",
            *SMALLEST_POLICY,
            "policy.engine=tests.calling_world:Speaker",
            "policy.learns=false",
            "planning.enabled=false",
            "collecting.slots=1",
            "collecting.group_size=2",
            *words,
        ],
    )
    one = Alone(config, folder)
    one.load(None, 1)
    while one.closed < 1:
        one.pump()
    one.close()
    catalog = Catalog(folder)
    rows: list[Step] = []
    while new := all_new(catalog):
        rows += new
    return sorted((r for r in rows if r.episode == 0), key=lambda step: step.t)


@pytest.mark.parametrize("history", ["none", "full"])
def test_what_cannot_be_read_goes_back_to_the_model_and_never_into_the_world(
    tmp_path: Path, history: str
) -> None:
    broken = "<tool_call>put it there</tool_call>"
    says = [broken, f"I try.\n<tool_call>{PUT}</tool_call>", "put b,c", "close", *["close"] * 4]
    rows = lived(tmp_path, says, f"agent.history={history}")
    refused, called, line, closed, _ = rows
    assert refused.boundary & Boundary.CONTEXT_COMPACTED and refused.is_aside
    assert refused.reward == 0.0 and called.obs_text == refused.obs_text
    again = Speaker.asked[1].observation
    assert "! your call could not be read: write {" in again
    assert (refused.obs_text in again) == (history == "none"), "it is read again before"
    assert called.decision is not None and line.decision is not None
    assert called.decision.content == "I try."
    assert [(c.name, c.arguments) for c in called.decision.tool_calls] == [
        ("put", '{"books": ["a"]}')
    ]
    assert line.obs_text.endswith(": a") and line.decision.text == "put b,c"
    assert closed.obs_text.endswith(": a, b, c") and closed.ending == "terminated"


def test_an_agent_that_never_calls_anything_acts_in_the_world_in_the_end(tmp_path: Path) -> None:
    rows = lived(tmp_path, ["What?", "Hm.", "No."] * 8)
    acted = [row for row in rows if row.decision]
    assert [row.is_aside for row in acted] == [True, True, False] * 3
    assert [s.value for s in acted[2].signals if s.name == "invalid_action"] == [1.0]
    assert acted[2].decision is not None and acted[2].decision.text == "No."


def test_results_stand_in_the_record_by_the_id_of_their_call(tmp_path: Path) -> None:
    both = f"<think>two</think><tool_call>{PUT}</tool_call><tool_call>{PUT}</tool_call>"
    first = lived(tmp_path, [both, *["close"] * 4])[0]
    assert first.decision is not None and first.decision.reasoning == "two"
    ids = [call.id for call in first.decision.tool_calls]
    assert len(set(ids)) == 2
    assert [(r.id, json.loads(r.result)) for r in first.tool_results] == [
        (name, {"books": 1.0}) for name in ids
    ]


def full_step() -> Step:
    decision = Decision(
        "put a",
        0,
        tool_calls=(ToolCall("1", "put", '{"books": ["a"]}'),),
        reasoning="a thought",
        content="some words",
        finish_reason="tool_calls",
        model="m",
        prompt_tokens=7,
        answer_tokens=2,
        seconds=0.5,
        first_token_seconds=0.25,
    )
    results = (ToolResult("1", "done"),)
    step = make_step(0, b"s" * 16)
    return Step(
        step.stream_id, 0, "w", "seen", decision=decision, tool_results=results, agent_id="a"
    )


def test_everything_about_the_model_is_read_back_from_shards_and_from_json(tmp_path: Path) -> None:
    step = full_step()
    journal = Journal(tmp_path / "w", CATALOGUE)
    journal.append(step)
    journal.append(make_step(1, step.stream_id))
    journal.close()
    (found, plain) = [s for block in Catalog(tmp_path).follow() for s in block]
    again = from_plain(json.loads(json.dumps(as_plain(step))))
    for other in (found, again):
        assert as_plain(other) == as_plain(step)
    assert plain.decision is not None and plain.decision.seconds is None
    table = Catalog(tmp_path).table(["tool_calls", "tool_results", "seconds", "agent_id"])
    assert [column.null_count for column in table.columns] == [1] * 4


def test_secrets_in_thoughts_calls_and_results_are_taken_out() -> None:
    secret = "hunter2-hunter2-hunter2"
    step = full_step()
    plain = json.dumps(as_plain(step)).replace("a thought", f"think {secret}")
    plain = plain.replace("done", f"done {secret}").replace('\\"a\\"', f'\\"{secret}\\"')
    clean = Redactor((secret,)).step(from_plain(json.loads(plain)))
    assert plain.count(secret) == 3 and secret not in json.dumps(as_plain(clean))


class Server(BaseHTTPRequestHandler):
    """Keeps its requests; answers with a call, or refuses tools as a server does that has none."""

    requests: list[dict[str, Any]]
    refuses: bool

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.requests.append(request)
        refused = self.refuses and "tools" in request
        call = {"id": "x", "type": "function"} | {
            "function": {"name": "put", "arguments": '{"books": ["<b>"]}'}
        }
        message = {"role": "assistant", "content": "put b"}
        if "tools" in request:
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
            message |= {"reasoning_content": "I think."}
        ending = "tool_calls" if "tools" in request else "stop"
        answer = {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "finish_reason": ending, "message": message}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
        }
        body = json.dumps({"error": "no tools"} if refused else answer).encode()
        self.send_response(400 if refused else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(params=[False, True])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, type[Server]]]:
    handler = type("Handler", (Server,), {"requests": [], "refuses": request.param})
    one = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=one.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{one.server_port}/v1", handler
    one.shutdown()
    one.server_close()


def test_a_server_is_told_of_tools_and_in_words_where_it_refuses_them(
    server: tuple[str, type[Server]],
) -> None:
    url, handler = server
    policy = Policy(engine="openai", model="m", base_url=url, learns=False, retries=0)
    engine = make_engine(policy, 0, None)
    (decision,) = engine.act([ASKED], 0.5)
    assert handler.requests[0]["tools"] == json.loads(json.dumps(TOOLS))
    assert (decision.prompt_tokens, decision.answer_tokens, decision.model) == (9, 3, "m")
    assert decision.seconds is not None and decision.seconds > 0
    if handler.refuses:
        assert (decision.text, decision.finish_reason) == ("put b", "stop")
        told = handler.requests[-1]["messages"][0]["content"]
        assert "tools" not in handler.requests[-1] and in_words(TOOLS) in told
        engine.act([ASKED], 0.5)
        assert "tools" not in handler.requests[-1], "it is not asked again"
    else:
        assert json.loads(decision.text) == {"name": "put", "arguments": {"books": ["<b>"]}}
        assert (decision.reasoning, decision.finish_reason) == ("I think.", "tool_calls")


def test_a_servers_chat_gives_every_call_its_result() -> None:
    calls = (ToolCall("1", "put", "{}"), ToolCall("2", "close", "{}"))
    earlier = (
        Exchange("one", "…", np.empty(0, np.int32), calls=calls),
        Exchange("two", "close", np.empty(0, np.int32)),
    )
    chat = with_calls(Situation("three", "Rules.", earlier=earlier, tools=TOOLS))
    assert [m["role"] for m in chat] == "system user assistant tool tool assistant user".split()
    assert [m.get("tool_call_id") for m in chat if m["role"] == "tool"] == ["1", "2"]
    assert chat[3]["content"] == "two" and chat[-1]["content"] == "three"


def test_a_summary_is_no_call_whatever_it_says() -> None:
    fields = answer_fields(f"I wrote {PUT}", Situation("", tools=TOOLS, is_free=True))
    assert fields["text"] == f"I wrote {PUT}" and "refusal" not in fields
