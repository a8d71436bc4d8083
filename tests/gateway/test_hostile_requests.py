"""Requests that nobody should send: refused in the protocol's own words, and nothing else happens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from actors.gateway.tokens import SHAPE, Signer, Ticket
from tests.gateway.serving_gateway import TELLING, Served, ask, gateway, post

CHAT = {"messages": [{"role": "user", "content": "say:hi"}]}
DEEP = b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
MALFORMED: list[tuple[str, Any, str]] = [
    ("chat/completions", b"{", "no JSON"),
    ("chat/completions", b"\xff\xfe", "no JSON"),
    ("chat/completions", DEEP, "no JSON"),
    ("chat/completions", b'{"temperature": NaN}', "no number"),
    ("chat/completions", [], "no JSON object"),
    ("chat/completions", {}, "messages: nothing"),
    ("chat/completions", {"messages": "hi"}, "messages: this is of type str"),
    ("chat/completions", {"messages": [7]}, "messages[0]: this is of type int"),
    ("chat/completions", {"messages": [{"role": "robot"}]}, "messages[0].role: 'robot'"),
    ("chat/completions", {"messages": [{"role": "assistant", "content": "x"}]}, "the assistant's"),
    (
        "chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "text",
    ),
    ("chat/completions", {**CHAT, "n": 2}, "n: 2 cannot be done here"),
    ("chat/completions", {**CHAT, "temperature": "hot"}, "temperature: 'hot' is no number"),
    ("chat/completions", {**CHAT, "tools": [{}]}, "tools[0].function: nothing"),
    ("chat/completions", {**CHAT, "response_format": {"type": "json_object"}}, "response_format"),
    ("responses", {"input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
    ("responses", {"input": [{"type": "web"}]}, "input[0]"),
    ("responses", {"input": "x", "tools": [{"type": "web_search"}]}, "tools[0]"),
    ("messages", {"messages": [{"role": "system", "content": "x"}]}, "messages[0].role"),
    ("messages", {"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "only text"),
    (
        "messages",
        {"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "bash"}]},
        "tools",
    ),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    path = tmp_path_factory.mktemp("hostile") / "store"
    with gateway(path, TELLING, "policy.context=700") as served:
        yield served


def test_malformed_requests_are_told_what_is_wrong_in_the_protocols_form(served: Served) -> None:
    url, rollout = served.rollout()
    for path, body, said in MALFORMED:
        status, answer = post(f"{url}/{path}", body)
        assert status == 400 and said in answer["error"]["message"], (path, body, answer)
        assert answer["error"]["type"] == "invalid_request_error"
        assert (path == "messages") == (answer.get("type") == "error")
    assert served.rows(rollout) == []
    assert ask(url, ("user", "say:still here")) == "still here"


def test_a_stream_of_a_malformed_request_is_an_error_before_it_begins(served: Served) -> None:
    url, _ = served.rollout()
    status, answer = post(f"{url}/chat/completions", {"messages": [], "stream": True})
    assert status == 400 and "messages" in answer["error"]["message"]


def test_a_prompt_without_room_is_refused_as_programs_expect_it(served: Served) -> None:
    url, rollout = served.rollout()
    long = {"messages": [{"role": "user", "content": "x" * 600}]}
    status, answer = post(f"{url}/chat/completions", long)
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert served.rows(rollout) == []


def test_a_body_beyond_the_bound_is_refused(served: Served) -> None:
    url, _ = served.rollout()
    status, answer = post(f"{url}/chat/completions", b" " * ((16 << 20) + 1))
    assert (status, answer["error"]["code"]) == (413, "request_too_large")


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Host": ""}, {"Origin": "http://evil.example"}]
)
def test_only_loopback_names_are_answered(served: Served, headers: dict[str, str]) -> None:
    url, rollout = served.rollout()
    status, answer = post(f"{url}/chat/completions", CHAT, **headers)
    assert (status, answer["error"]["code"]) == (403, "not_allowed")
    assert served.rows(rollout) == []


def test_a_token_that_was_not_given_out_here_opens_nothing(served: Served) -> None:
    url, rollout = served.rollout()
    base, _, rest = url.partition("/r/")
    token = rest.partition("/")[0]
    stranger = Signer().sign(Ticket(rollout))
    flipped = token[:-1] + ("A" if token[-1] != "A" else "B")
    for wrong in (stranger, flipped[:30], SHAPE, "", "x" * 5000, "%00", token.upper()):
        status, _ = answered(f"{base}/r/{wrong}/v1/chat/completions")
        assert status == 404, wrong
    assert answered(f"{base}/v1/chat/completions")[0] == 404
    assert served.rows(rollout) == []


def answered(url: str) -> tuple[int, Any]:
    try:
        return post(url, CHAT)
    except json.JSONDecodeError:  # the address itself is unknown: plain text
        return 404, None


def test_only_the_gateways_own_token_begins_rollouts(served: Served) -> None:
    address = f"{served.recording.url}/rollouts"
    url, _ = served.rollout()
    rollouts_own = url.partition("/r/")[2].partition("/")[0]
    for token in ("", "Bearer", f"Bearer {rollouts_own}", "Bearer \xe9"):
        status, answer = post(address, {}, Authorization=token)
        assert (status, answer["error"]["code"]) == (401, "unauthorized")
    given = f"Bearer {served.recording.signer.master}"
    status, found = post(address, {"task": "t"}, Authorization=given)
    assert status == 200 and ask(found["OPENAI_BASE_URL"], ("user", "say:yes")) == "yes"


def test_a_token_in_a_prompt_never_reaches_the_store(served: Served) -> None:
    url, rollout = served.rollout()
    token = url.partition("/r/")[2].partition("/")[0]
    ask(url, ("user", f"env: OPENAI_API_KEY={token} say:ok"))
    (row,) = served.rows(rollout)
    assert row.decision is not None and token not in row.obs_text
    assert not row.decision.token_exact and not len(row.decision.prompt_ids)


def test_undeclared_signals_and_endings_are_refused(served: Served) -> None:
    found = served.begin()
    for body, said in (
        ({"signals": {"luck": 1}}, "signals.luck"),
        ({"signals": {"env_reward": "much"}}, "no number"),
        ({"signals": {"env_reward": 1e300}}, "no number"),
        ({"ending": "none"}, "ending"),
        ({"signals": [1]}, "signals"),
    ):
        status, answer = post(found["end"], body)
        assert status == 400 and said in answer["error"]["message"]
