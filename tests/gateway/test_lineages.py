"""Conversations of one rollout: what goes on from what, whatever is interleaved, edited or redone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from experience.replay.lineages import continues
from experience.step import Step
from tests.gateway.serving_gateway import Served, ask, gateway


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    path = tmp_path_factory.mktemp("lineages") / "store"
    with gateway(path, "policy.max_tokens=6") as served:
        yield served


def whole(step: Step) -> np.ndarray:
    assert step.decision is not None and step.decision.token_exact
    return np.concatenate([step.decision.prompt_ids, step.decision.action_ids])


def goes_on_from(rows: list[Step], t: int) -> int | None:
    """The row whose tokens the prompt of row t goes on from, as a reader of the store finds it."""
    row = rows[t]
    assert row.decision is not None
    named = row.parent[1] if row.parent else t - 1
    if named >= 0 and continues(whole(rows[named]), row.decision.prompt_ids):
        return named
    return None


def lived(url: str, name: str, turns: int) -> None:
    """A conversation of several turns."""
    chat = [("system", "you are one of many"), ("user", f"i am {name}")]
    for turn in range(turns):
        chat += [("assistant", ask(url, *chat)), ("user", f"{name} {turn}")]


def test_subagents_that_speak_at_the_same_time_are_never_mixed(served: Served) -> None:
    url, rollout = served.rollout()
    names = [f"agent{n}" for n in range(6)]
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda name: lived(url, name, 4), names))
    rows = served.rows(rollout)
    assert [row.t for row in rows] == list(range(24))
    speaker: dict[str, str] = {}
    for row in rows:
        (name,) = [name for name in names if name in row.obs_text]
        assert speaker.setdefault(row.agent_id, name) == name
    assert len(speaker) == 6
    before = [goes_on_from(rows, t) for t in range(24)]
    assert before.count(None) == 6  # each conversation's first call, and no other
    for t, found in enumerate(before):
        assert found is None or rows[found].agent_id == rows[t].agent_id


def test_what_the_program_inserts_is_the_new_part_of_a_prompt(served: Served) -> None:
    url, rollout = served.rollout()
    chat = [("user", "one")]
    chat += [("assistant", ask(url, *chat)), ("user", "two")]
    ask(url, *chat)
    one, two = served.rows(rollout)
    assert two.decision is not None
    new = two.decision.prompt_ids[len(whole(one)) :]
    assert bytes(int(t) for t in new if t < 256).decode().endswith("two")
    assert two.obs_text == "[user]\ntwo"


def test_an_edited_history_begins_anew_and_names_the_row_it_comes_from(served: Served) -> None:
    url, rollout = served.rollout()
    chat = [("user", "task"), ("assistant", ask(url, ("user", "task"))), ("user", "a long screen")]
    chat.append(("assistant", ask(url, *chat)))
    ask(url, chat[0], chat[1], ("user", "(left out)"), chat[3], ("user", "and now?"))
    rows = served.rows(rollout)
    assert goes_on_from(rows, 1) == 0
    # its first answer is read as the very tokens that were sampled: only what follows is new
    assert goes_on_from(rows, 2) == 0 and rows[2].parent == (rows[2].stream_id, 0)
    assert {row.agent_id for row in rows} == {"0"}
    ask(url, ("user", "task"), ("user", "without any answer"))
    rows = served.rows(rollout)
    assert goes_on_from(rows, 3) is None and rows[3].parent is not None
    assert rows[3].agent_id == "0"


def test_a_conversation_that_is_gone_on_with_twice_branches(served: Served) -> None:
    url, rollout = served.rollout()
    chat = [("user", "q"), ("assistant", ask(url, ("user", "q")))]
    for way in ("left", "right"):
        ask(url, *chat, ("user", way))
    rows = served.rows(rollout)
    assert [goes_on_from(rows, t) for t in (1, 2)] == [0, 0]
    assert rows[1].parent is None and rows[2].parent == (rows[2].stream_id, 0)


def test_rollouts_are_kept_apart(served: Served) -> None:
    two = [served.rollout() for _ in range(2)]
    for number, (url, _) in enumerate(two):
        ask(url, ("user", f"from {number}"))
    for number, (_, rollout) in enumerate(two):
        (row,) = served.rows(rollout)
        assert row.obs_text == f"[user]\nfrom {number}" and row.t == 0
