"""How rollouts end, what is measured of them, and what survives a gateway that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experience.episode import EpisodeReader
from experience.replay.lineages import continues
from experience.shards.amend import follow_amended
from tests.gateway.serving_gateway import SMALL, ask, gateway, post, rows_of

ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 120


def test_what_was_measured_is_the_reward_of_the_last_row(tmp_path: Path) -> None:
    with gateway(tmp_path / "store", *SMALL) as served:
        found = served.begin(task="t1", group="g1")
        ask(found["OPENAI_BASE_URL"], ("user", "hi"))
        told = {"signals": {"success": 1.0}, "evidence": "ran it"}
        assert post(found["end"], told)[0] == 200
        call, end, closing = served.rows(found["rollout"])
        assert (call.reward, end.reward, closing.reward) == (0.0, 2.0, None)
        assert (end.ending, end.discount, closing.ending) == ("terminated", 0.0, "terminated")
        assert (end.signals[0].name, end.signals[0].evidence) == ("success", "ran it")
        assert (call.task_id, call.group_id, call.split) == ("t1", "g1", "train")
        status, wrong = post(
            f"{found['OPENAI_BASE_URL']}/chat/completions",
            {"messages": [{"role": "user", "content": "?"}]},
        )
        assert (status, wrong["error"]["code"]) == (410, "rollout_ended")


def test_a_reward_that_comes_later_is_an_amendment(tmp_path: Path) -> None:
    with gateway(tmp_path / "store", *SMALL) as served:
        found = served.begin()
        ask(found["OPENAI_BASE_URL"], ("user", "hi"))
        assert post(found["end"], {})[0] == 200
        assert served.rows(found["rollout"])[1].reward is None  # unknown is never zero
        assert post(found["end"], {"signals": {"env_reward": 0.5}})[1]["amended"] == ["env_reward"]
        assert post(found["end"], {})[0] == 409
        read = follow_amended(served.directory.shards, None)
        _, end, _ = [step for steps in read for step in steps]
    assert [(s.name, s.value) for s in end.signals] == [("env_reward", 0.5)]
    assert end.reward == 0.5


@pytest.mark.parametrize("ending", ["timeout", "env_error", "cancelled"])
def test_a_failure_has_a_type_and_no_reward(tmp_path: Path, ending: str) -> None:
    with gateway(tmp_path / "store", *SMALL) as served:
        found = served.begin()
        ask(found["OPENAI_BASE_URL"], ("user", "hi"))
        both = {"ending": ending, "signals": {"env_reward": 0.0}}
        assert post(found["end"], both)[0] == 400
        assert post(found["end"], {"ending": ending})[0] == 200
        *_, closing = rows = served.rows(found["rollout"])
    assert (closing.ending, closing.reward, len(rows)) == (ending, None, 2)


def test_a_gateway_that_starts_again_goes_on_with_what_had_not_ended(tmp_path: Path) -> None:
    with gateway(tmp_path / "store", *SMALL) as served:
        found, ended = served.begin(), served.begin()
        path = found["OPENAI_BASE_URL"].partition("/r/")[2]
        chat = [("user", "one"), ("assistant", ask(found["OPENAI_BASE_URL"], ("user", "one")))]
        post(ended["end"], {"signals": {"env_reward": 1.0}})
    with gateway(tmp_path / "store", *SMALL) as served:
        ask(f"{served.recording.url}/r/{path}", *chat, ("user", "two"))
        one, two = served.rows(found["rollout"])
        again = ended["end"].partition("/r/")[2]
        assert post(f"{served.recording.url}/r/{again}", {})[0] == 409
    assert one.decision and two.decision
    whole = np.concatenate([one.decision.prompt_ids, one.decision.action_ids])
    assert continues(whole, two.decision.prompt_ids) and two.obs_text == "[user]\ntwo"
    reader = EpisodeReader()
    assert not [e for row in (one, two) for e in reader.take(row)]  # one episode, not cut in two


def _start(store: Path) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    command = [sys.executable, "-m", "actors", "gateway", *SMALL, "policy.max_tokens=4"]
    command += ["policy.context=8192", "--port", "0", "--store", str(store), "--json"]
    command += ["--record-only"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=store.parent, env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    late = threading.Timer(_START_SECONDS, process.kill)
    late.start()
    said = json.loads(process.stdout.readline())
    late.cancel()
    return process, json.loads(Path(said["addresses"]).read_text())


def test_a_gateway_that_is_killed_has_lost_no_answer_that_a_program_got(tmp_path: Path) -> None:
    process, addresses = _start(tmp_path / "store")
    url, rollout = addresses["first"]["OPENAI_BASE_URL"], addresses["first"]["rollout"]
    got: list[str] = []

    def talk(name: str) -> None:
        chat = [("user", name)]
        try:
            while True:
                said = ask(url, *chat)
                got.append(said)
                chat += [("assistant", said), ("user", "on")]
        except (OSError, ValueError):  # it was killed
            return

    talkers = [threading.Thread(target=talk, args=(f"talker {n}",)) for n in range(3)]
    for talker in talkers:
        talker.start()
    until = time.monotonic() + _START_SECONDS
    while len(got) < 12 and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    for talker in talkers:
        talker.join(60)
    assert len(got) >= 12
    rows = rows_of(tmp_path / "store/shards", rollout)
    assert [row.t for row in rows] == list(range(len(rows)))
    kept = [row.decision.text for row in rows if row.decision is not None]
    for said in got:
        kept.remove(said)  # each answer once
    assert len(kept) <= 3  # at most one call of each talker was kept and never answered
    tokens = [addresses["token"], url.partition("/r/")[2].partition("/")[0]]
    for path in (tmp_path / "store").rglob("*"):
        if path.is_file() and path.name not in ("gateway.json", "gateway.key"):
            assert not any(token.encode() in path.read_bytes() for token in tokens), path
