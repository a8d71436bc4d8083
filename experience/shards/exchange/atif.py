"""ATIF, Harbor's trajectory format: a file an episode."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from experience.policy import Decision, VersionSpan
from experience.shards.exchange.episodes import Exchanged, checked, stream_named, whole
from experience.shards.exchange.plain import as_plain, from_plain
from experience.shards.replay import Episode
from experience.step import Boundary, Step

ATIF_VERSION = "ATIF-v1.7"


def to_atif(store: Path, out: Path) -> Exchanged:
    done = Exchanged()
    for episode in whole(store, done):
        assert episode.closing is not None
        name = f"{episode.first.stream_id.hex()}-{episode.first.t}.json"
        (out / name).write_text(json.dumps(_trajectory(episode, episode.closing), indent=1))
        done.files.append(name)
        done.rows += len(episode.steps) + 1
        done.episodes += 1
    return done


def _trajectory(episode: Episode, closing: Step) -> dict[str, Any]:
    first = episode.first
    rows = [*episode.steps, closing]
    steps = [{"step_id": 1, "timestamp": _stamp(first.t_start_ns), "source": "user", "message": first.obs_text}]
    for number, (step, after) in enumerate(pairwise(rows), 2):
        rest = as_plain(step)
        decision = rest["decision"]
        turn = {"step_id": number, "timestamp": _stamp(step.t_end_ns), "source": "agent",
                "message": decision.pop("text"), "observation": {"results": [{"content": after.obs_text}]}}
        tokens = {"prompt_token_ids": decision.pop("prompt_ids"), "completion_token_ids": decision.pop("action_ids"),
                  "logprobs": decision.pop("logprobs")}
        if tokens["completion_token_ids"]:
            turn["model_name"] = decision["behaviour_id"] or "unknown"
            turn["metrics"] = {"prompt_tokens": len(tokens["prompt_token_ids"]),
                               "completion_tokens": len(tokens["completion_token_ids"]), **tokens}
            turn["llm_call_count"] = 1
        del rest["obs_text"]
        steps.append(turn | {"extra": {"xp": rest}})
    last = as_plain(closing)
    del last["obs_text"]
    total = episode.total_reward
    return {"schema_version": ATIF_VERSION, "session_id": first.stream_id.hex(),
            "trajectory_id": f"{first.stream_id.hex()}-{first.t}",
            "agent": {"name": "xp", "version": "1", "model_name": first.decision.behaviour_id if first.decision and
                      first.decision.behaviour_id else "unknown"},
            "steps": steps, "extra": {"xp": {"closing": last}, "env_id": first.env_id, "task_id": first.task_id,
                                      "total_reward": total, "ending": closing.ending}}


def _stamp(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).isoformat()


def from_atif(source: Path) -> Iterator[Step]:
    """Trajectories of ours come back exactly; of others, messages, observations, tokens and log-probabilities."""
    found = [(path, checked(str(path), lambda path=path: _read_atif(path)))  # type: ignore[misc]
             for path in (sorted(source.glob("*.json")) if source.is_dir() else [source])]
    for _, steps in sorted(found, key=lambda item: (item[1][0].stream_id, item[1][0].t)):
        yield from steps


def _read_atif(path: Path) -> list[Step]:
    whole = json.loads(path.read_text())
    ours = (whole.get("extra") or {}).get("xp")
    return _ours(whole, ours["closing"]) if ours else _theirs(whole)


def _ours(whole: Mapping[str, Any], closing: dict[str, Any]) -> list[Step]:
    seen, steps = whole["steps"][0]["message"], []
    for turn in whole["steps"][1:]:
        rest, tokens = turn["extra"]["xp"], turn.get("metrics") or {}
        decision = rest["decision"] | {"text": turn["message"], "prompt_ids": tokens.get("prompt_token_ids", []),
                                       "action_ids": tokens.get("completion_token_ids", []),
                                       "logprobs": tokens.get("logprobs", [])}
        steps.append(from_plain(rest | {"obs_text": seen, "decision": decision}))
        seen = turn["observation"]["results"][0]["content"]
    return [*steps, from_plain(closing | {"obs_text": seen})]


def _theirs(whole: Mapping[str, Any]) -> list[Step]:
    """A stranger's trajectory: what was said since the agent's last turn is what it saw. Rewards are unknown."""
    stream = stream_named(str(whole.get("trajectory_id") or whole.get("session_id") or json.dumps(whole["steps"][0])))
    seen: list[str] = []
    steps: list[Step] = []
    for turn in whole["steps"]:
        if turn["source"] != "agent":
            seen.append(_words(turn["message"]))
            continue
        tokens = turn.get("metrics") or {}
        ids, logprobs = tokens.get("completion_token_ids") or [], tokens.get("logprobs") or []
        exact = bool(ids) and len(ids) == len(logprobs)
        calls = [f"{c['function_name']} {json.dumps(c['arguments'])}" for c in turn.get("tool_calls") or ()]
        decision = Decision(
            "\n".join([w for w in (_words(turn["message"]), *calls) if w]), 0,
            np.array(tokens.get("prompt_token_ids") or [], np.int32), np.array(ids if exact else [], np.int32),
            np.array(logprobs if exact else [], np.float32), (VersionSpan(0, len(ids)),) if exact else (), exact,
            behaviour_id=str(turn.get("model_name") or whole["agent"].get("model_name") or whole["agent"]["name"]))
        t = len(steps)
        steps.append(Step(stream, t, "atif", "\n".join(seen), "demonstration", step_in_episode=t, decision=decision,
                          boundary=Boundary.RESET if t == 0 else Boundary.NONE))
        seen = [_words(r.get("content")) for r in (turn.get("observation") or {}).get("results", ())]
    if not steps:
        raise ValueError("no step of an agent")
    steps[-1] = replace(steps[-1], ending="truncated")
    return [*steps, Step(stream, len(steps), "atif", "\n".join(seen), "demonstration", step_in_episode=len(steps),
                         ending="truncated", boundary=Boundary.TRUNCATED)]


def _words(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(part.get("text") or f"[{part['type']}]" for part in content)
    return content or ""
