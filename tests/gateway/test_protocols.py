"""The gateway speaks its protocols to their official clients, and keeps what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from tests.gateway.serving_gateway import SMALL, TELLING, Served, gateway, post

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds.",
            "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
        },
    }
]
CALL = 'say:{"name": "add", "arguments": {"a": 2}}'


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with gateway(tmp_path_factory.mktemp("gateway") / "store", TELLING) as served:
        yield served


def client(url: str) -> Any:
    return openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60)


def test_a_chat_is_answered_and_kept_with_its_exact_tokens(served: Served) -> None:
    url, rollout = served.rollout()
    chat: list[Any] = [{"role": "user", "content": "say:hello"}]
    first = client(url).chat.completions.create(model="m", messages=chat)
    assert first.choices[0].message.content == "hello"
    chat += [first.choices[0].message.model_dump(), {"role": "user", "content": "say:bye"}]
    second = client(url).chat.completions.create(model="m", messages=chat)
    assert second.usage.completion_tokens == len("bye") + 1
    one, two = served.rows(rollout)
    assert one.decision and two.decision and two.decision.token_exact
    whole = np.concatenate([one.decision.prompt_ids, one.decision.action_ids])
    assert np.array_equal(two.decision.prompt_ids[: len(whole)], whole)
    assert two.obs_text == "[user]\nsay:bye"
    assert two.decision.seconds is not None


@pytest.mark.parametrize("streams", [False, True])
def test_tools_are_called_and_their_results_go_on_from_the_same_tokens(
    served: Served, streams: bool
) -> None:
    url, rollout = served.rollout()
    chat: list[Any] = [{"role": "user", "content": CALL}]
    asked: dict[str, Any] = {"model": "m", "tools": TOOLS, "stream": streams}
    answer = client(url).chat.completions.create(messages=chat, **asked)
    if streams:
        deltas = [chunk.choices[0].delta for chunk in answer]
        (call,) = next(delta.tool_calls for delta in deltas if delta.tool_calls)
    else:
        assert answer.choices[0].finish_reason == "tool_calls"
        (call,) = answer.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("add", {"a": 2})
    function = {"name": "add", "arguments": '{"a":2}'}  # printed differently, as programs do
    chat += [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": call.id, "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": call.id, "content": "4 say:fine"},
    ]
    client(url).chat.completions.create(messages=chat, model="m", tools=TOOLS)
    one, two = served.rows(rollout)
    assert one.decision and two.decision and one.decision.tool_calls[0].name == "add"
    whole = np.concatenate([one.decision.prompt_ids, one.decision.action_ids])
    assert np.array_equal(two.decision.prompt_ids[: len(whole)], whole)
    assert (two.parent, two.agent_id, two.obs_text) == (None, "0", "[tool]\n4 say:fine")


def test_responses_carry_texts_and_calls(served: Served) -> None:
    url, _ = served.rollout()
    tool = {"type": "function", **TOOLS[0]["function"]}
    said = client(url).responses.create(model="m", input="say:hello")
    assert said.output_text == "hello"
    with client(url).responses.stream(model="m", input=CALL, tools=[tool]) as stream:
        (called,) = stream.get_final_response().output
    assert (called.type, called.name) == ("function_call", "add")
    history: list[Any] = [
        {"role": "user", "content": CALL},
        called.model_dump(include={"type", "call_id", "name", "arguments"}),
        {"type": "function_call_output", "call_id": called.call_id, "output": "say:two"},
    ]
    assert client(url).responses.create(model="m", input=history, tools=[tool]).output_text == "two"


def test_anthropic_messages_carry_texts_and_calls(served: Served) -> None:
    anthropic = pytest.importorskip("anthropic", reason="pip install anthropic")
    url, _ = served.rollout()
    speaks = anthropic.Anthropic(base_url=url.removesuffix("/v1"), api_key="none", max_retries=0)
    asked: dict[str, Any] = {"model": "m", "max_tokens": 99}
    hello = [{"role": "user", "content": "say:hello"}]
    assert speaks.messages.create(**asked, messages=hello).content[0].text == "hello"
    tool = {"name": "add", "input_schema": TOOLS[0]["function"]["parameters"]}
    chat: list[Any] = [{"role": "user", "content": CALL}]
    with speaks.messages.stream(**asked, messages=chat, tools=[tool]) as stream:
        answer = stream.get_final_message()
    assert (answer.stop_reason, answer.content[0].input) == ("tool_use", {"a": 2})
    result = {"type": "tool_result", "tool_use_id": answer.content[0].id, "content": "say:two"}
    chat += [
        {"role": "assistant", "content": answer.content},
        {"role": "user", "content": [result]},
    ]
    assert speaks.messages.create(**asked, messages=chat, tools=[tool]).content[0].text == "two"


def test_anthropic_messages_are_plain_http(served: Served) -> None:
    url, rollout = served.rollout()
    body = {"model": "m", "max_tokens": 9, "system": "s", "messages": []}
    status, wrong = post(f"{url}/messages", body)
    assert (status, wrong["type"], wrong["error"]["type"]) == (
        400,
        "error",
        "invalid_request_error",
    )
    body["messages"] = [{"role": "user", "content": [{"type": "text", "text": "say:hi"}]}]
    status, said = post(f"{url}/messages", body)
    assert (said["content"], said["stop_reason"]) == ([{"type": "text", "text": "hi"}], "end_turn")
    assert served.rows(rollout)[0].obs_text == "[system]\ns\n\n[user]\nsay:hi"


def test_the_gateway_is_a_token_exact_server_of_our_own_engine(
    tmp_path: Path, served: Served
) -> None:
    url, upstream = served.rollout()
    there = (
        "policy.engine=openai",
        f"policy.base_url={url}",
        "policy.model=m",
        "policy.learns=false",
    )
    with gateway(tmp_path / "forwarded", *there) as forwarding:
        own, rollout = forwarding.rollout()
        body = {"model": "m", "temperature": 1, "messages": [{"role": "user", "content": "say:hi"}]}
        assert post(f"{own}/chat/completions", body)[1]["choices"][0]["message"]["content"] == "hi"
        (row,) = forwarding.rows(rollout)
    (kept,) = served.rows(upstream)
    assert row.decision and kept.decision and row.decision.token_exact
    assert np.array_equal(row.decision.action_ids, kept.decision.action_ids)
    assert np.array_equal(row.decision.prompt_ids, kept.decision.prompt_ids)


def test_what_the_small_engine_samples_is_what_the_store_holds(tmp_path: Path) -> None:
    with gateway(tmp_path / "sampled", *SMALL, "policy.max_tokens=8") as served:
        url, rollout = served.rollout()
        body = {
            "messages": [{"role": "user", "content": "hi"}],
            "temperature": 0.7,
            "return_token_ids": True,
            "stop": ["\x00never"],
        }
        _, said = post(f"{url}/chat/completions", body)
        (row,) = served.rows(rollout)
    assert row.decision and row.decision.sampled and row.decision.temperature == 0.7
    assert said["choices"][0]["token_ids"] == row.decision.action_ids.tolist()
    told = [token["logprob"] for token in said["choices"][0]["logprobs"]["content"]]
    assert np.allclose(told, row.decision.logprobs)
