"""ATIF, Harbor's trajectory format: a file an episode."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from experience.episode import Episode
from experience.policy import Decision, VersionSpan
from experience.shards.exchange.rows.episodes import (
    Exchanged,
    Placed,
    Rows,
    checked,
    stream_named,
    whole_text,
)
from experience.shards.exchange.rows.json_steps import as_plain, from_plain
from experience.shards.exchange.rows.pictures import Pictures
from experience.step import Boundary, Step
from experience.text.strict_json import dumps

NAME = "atif"

ATIF_VERSION = "ATIF-v1.7"
_MEDIA = ("image/png", "image/jpeg", "image/gif", "image/webp")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def export(rows: Rows, out: Path) -> Exchanged:
    done, pictures = Exchanged(), Pictures(rows.store, out)
    for episode in rows.whole(done):
        assert episode.closing is not None
        name = f"{episode.first.stream_id.hex()}-{episode.first.t}.json"
        (out / name).write_text(dumps(_trajectory(episode, episode.closing, pictures), indent=1))
        done.files.append(name)
        done.rows += len(episode.steps) + 1
        done.episodes += 1
    return done


def _trajectory(episode: Episode, closing: Step, pictures: Pictures) -> dict[str, Any]:
    first = episode.first
    rows = [*episode.steps, closing]
    steps: list[dict[str, Any]] = [
        {
            "step_id": 1,
            "timestamp": _stamp(first.t_start_ns),
            "source": "user",
            "message": _content(first, pictures),
        }
    ]
    for number, (step, after) in enumerate(pairwise(rows), 2):
        rest = as_plain(step)
        decision = rest["decision"]
        turn = {
            "step_id": number,
            "timestamp": _stamp(step.t_end_ns),
            "source": "agent",
            "message": decision.pop("text"),
            "observation": {"results": [{"content": _content(after, pictures)}]},
        }
        tokens = {
            "prompt_token_ids": decision.pop("prompt_ids"),
            "completion_token_ids": decision.pop("action_ids"),
            "logprobs": decision.pop("logprobs"),
        }
        if any(tokens.values()):
            turn["model_name"] = decision["behaviour_id"] or "unknown"
            turn["metrics"] = {
                "prompt_tokens": len(tokens["prompt_token_ids"]),
                "completion_tokens": len(tokens["completion_token_ids"]),
                **tokens,
            }
            turn["llm_call_count"] = 1
        del rest["obs_text"]
        steps.append(turn | {"extra": {"xp": rest}})
    last = as_plain(closing)
    del last["obs_text"]
    total = episode.total_reward
    return {
        "schema_version": ATIF_VERSION,
        "session_id": first.stream_id.hex(),
        "trajectory_id": f"{first.stream_id.hex()}-{first.t}",
        "agent": {
            "name": "xp",
            "version": "1",
            "model_name": first.decision.behaviour_id
            if first.decision and first.decision.behaviour_id
            else "unknown",
        },
        "steps": steps,
        "extra": {
            "xp": {"closing": last},
            "env_id": first.env_id,
            "task_id": first.task_id,
            "total_reward": total,
            "ending": closing.ending,
        },
    }


def _content(step: Step, pictures: Pictures) -> str | list[dict[str, Any]]:
    """The observation: text, or text and pictures by their paths.

    Pictures of a media type that ATIF lacks are files beside the trajectory only.
    """
    saved = [(blob, pictures.save(blob)) for blob in step.obs_blobs]
    shown = [
        {"type": "image", "source": {"media_type": blob.media, "path": path}}
        for blob, path in saved
        if blob.media in _MEDIA
    ]
    return [{"type": "text", "text": step.obs_text}, *shown] if shown else step.obs_text


def _stamp(ns: int) -> str:
    return (_EPOCH + timedelta(microseconds=ns // 1000)).isoformat()


def import_from(source: Path) -> Iterator[Placed]:
    """The steps of trajectories. Ours come back exactly.

    Of others': messages, observations, tokens, log-probabilities, times, and in `info` all else
    that they say (reasoning, tool calls, ids, costs).
    """
    paths = sorted(source.glob("*.json")) if source.is_dir() else [source]
    named = [(checked(str(path), lambda path=path: _read(path)[0]), path) for path in paths]  # type: ignore[misc]
    next_t, shifts = defaultdict[bytes, int](int), defaultdict[bytes, int](int)
    for _, path in sorted(named, key=lambda item: (item[0].stream_id, item[0].t)):
        steps = checked(str(path), lambda path=path: _read(path))  # type: ignore[misc]
        stream = steps[0].stream_id
        shift = max(steps[0].t - next_t[stream], 0)
        if shift > shifts[stream]:  # episodes that no trajectory tells of: counted on, and marked
            steps[0] = replace(steps[0], boundary=steps[0].boundary | Boundary.GAP)
        shifts[stream] = shift
        for step in steps:
            next_t[stream] = step.t - shift + 1
            yield str(path), replace(step, t=step.t - shift) if shift else step


def _read(path: Path) -> list[Step]:
    whole = json.loads(whole_text(path))
    ours = (whole.get("extra") or {}).get("xp")
    return _ours(whole, ours["closing"]) if ours else _theirs(whole, path.name)


def _ours(whole: Mapping[str, Any], closing: dict[str, Any]) -> list[Step]:
    seen, steps = _text(whole["steps"][0]["message"]), []
    for turn in whole["steps"][1:]:
        rest, tokens = turn["extra"]["xp"], turn.get("metrics") or {}
        decision = rest["decision"] | {
            "text": turn["message"],
            "prompt_ids": tokens.get("prompt_token_ids", []),
            "action_ids": tokens.get("completion_token_ids", []),
            "logprobs": tokens.get("logprobs", []),
        }
        steps.append(from_plain(rest | {"obs_text": seen, "decision": decision}))
        seen = _text(turn["observation"]["results"][0]["content"])
    return [*steps, from_plain(closing | {"obs_text": seen})]


def _text(content: Any) -> Any:
    """Of ours: text, or a list whose first part is the text and whose others are its pictures."""
    return content[0]["text"] if isinstance(content, list) else content


def _theirs(whole: Mapping[str, Any], file: str) -> list[Step]:
    """A stranger's trajectory: an agent sees what was said since its last turn; no rewards.

    `info["atif"]` holds, in their words, what has no column: `turn` of a turn, and in `seen` the
    messages before it; of the trajectory, on the closing row.
    """
    stream = stream_named(str(whole.get("trajectory_id") or f"{whole.get('session_id')}/{file}"))
    seen: list[str] = []
    about: list[dict[str, Any]] = []
    steps: list[Step] = []
    now = 0
    for turn in whole["steps"]:
        began, now = now, max(_nanoseconds(turn.get("timestamp")), now)
        if turn["source"] != "agent":
            seen.append(_words(turn["message"]))
            about.append(_rest(turn))
            continue
        t, (decision, rest) = len(steps), _decision(turn, whole["agent"])
        steps.append(
            Step(
                stream,
                t,
                "atif",
                "\n".join(seen),
                "demonstration",
                step_in_episode=t,
                decision=decision,
                t_start_ns=began or now,
                t_end_ns=now,
                info={"atif": {"seen": about, "turn": rest}},
                boundary=Boundary.RESET if t == 0 else Boundary.NONE,
            )
        )
        seen, about = (
            [_words(r.get("content")) for r in (turn.get("observation") or {}).get("results", ())],
            [],
        )
    if not steps:
        raise ValueError("no step of an agent")
    steps[-1] = replace(steps[-1], ending="truncated")
    info = {
        "seen": about,
        "trajectory": {name: value for name, value in whole.items() if name != "steps"},
    }
    rows = [
        *steps,
        Step(
            stream,
            len(steps),
            "atif",
            "\n".join(seen),
            "demonstration",
            step_in_episode=len(steps),
            t_start_ns=now,
            t_end_ns=now,
            ending="truncated",
            boundary=Boundary.TRUNCATED,
            info={"atif": info},
        ),
    ]
    return [
        from_plain(as_plain(step)) for step in rows
    ]  # a stranger's numbers are held against their columns


def _decision(turn: Mapping[str, Any], agent: Mapping[str, Any]) -> tuple[Decision, dict[str, Any]]:
    """What the agent did, and what the turn says beside it."""
    tokens = turn.get("metrics") or {}
    ids, logprobs = tokens.get("completion_token_ids") or [], tokens.get("logprobs") or []
    exact = bool(ids) and len(ids) == len(logprobs)
    calls = [f"{c['function_name']} {dumps(c['arguments'])}" for c in turn.get("tool_calls") or ()]
    rest = _rest(turn)
    if exact and "metrics" in rest:
        for name in ("prompt_token_ids", "completion_token_ids", "logprobs"):
            rest["metrics"].pop(name, None)
    decision = Decision(
        "\n".join([w for w in (_words(turn["message"]), *calls) if w]),
        0,
        np.array(tokens.get("prompt_token_ids") or [] if exact else [], np.int32),
        np.array(ids if exact else [], np.int32),
        np.array(logprobs if exact else [], np.float32),
        (VersionSpan(0, len(ids)),) if exact else (),
        exact,
        behaviour_id=str(turn.get("model_name") or agent.get("model_name") or agent["name"]),
    )
    return decision, rest


def _rest(turn: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the turn without the texts that are columns: its message, and tools' answers."""
    rest: dict[str, Any] = json.loads(dumps({k: v for k, v in turn.items() if k != "message"}))
    if not isinstance(turn.get("message"), str):
        rest["message"] = turn.get("message")
    for result in (rest.get("observation") or {}).get("results", ()):
        if isinstance(result.get("content"), str):
            del result["content"]
    return rest


def _nanoseconds(stamp: Any) -> int:
    """Nanoseconds since the epoch; 0 where no time is given.

    Computed from whole microseconds, without a float between. A time without an offset is UTC.
    """
    if stamp is None:
        return 0
    at = datetime.fromisoformat(stamp)
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max((at - _EPOCH) // timedelta(microseconds=1) * 1000, 0)


def _words(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(
            str(part["text"]) if part.get("text") is not None else f"[{part['type']}]"
            for part in content
        )
    if content is not None and not isinstance(content, str):
        raise TypeError(f"a message is {type(content).__name__}, not text")
    return content or ""
