"""An episode as data for a page: its facts, a strip of all its turns, and whole turns by pages.

Nothing is shortened: a page of turns holds every character that the store has of them.
"""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from actors.reading.viewer.turns.drawings import Drawer
from actors.reading.viewer.turns.marks import marks
from actors.reading.viewer.turns.terms import Terms
from experience.episode import Episode
from experience.policy import Decision
from experience.signal import Signal
from experience.step import Boundary, Step

TURNS_A_PAGE = 40
_HEAD = 96
"""Characters of an action in the strip of turns, where each has one line."""


def strip(episode: Episode) -> list[dict[str, Any]]:
    """All rows of an episode, a few values each: what one needs to walk through it."""
    return [
        {
            "t": step.t,
            "action": None if step.decision is None else _first_line(step.decision.text),
            "reward": step.reward,
            "answered": step.decision is not None,
            "aside": step.is_aside,
            "pictures": len(step.obs_blobs),
            "option": step.option_id,
            "version": None if step.decision is None else step.decision.policy_version,
            "ending": step.ending,
            "calls": 0 if step.decision is None else len(step.decision.tool_calls),
        }
        for step in episode.rows
    ]


def page(
    episode: Episode, first: int, count: int, terms: Terms, drawer: Drawer
) -> list[dict[str, Any]]:
    """Rows `first` to `first + count` of an episode, whole."""
    rows = episode.rows
    return [
        turn(rows[at], rows[at + 1] if at + 1 < len(rows) else None, at, terms, drawer)
        for at in range(max(first, 0), min(first + count, len(rows)))
    ]


def turn(
    step: Step, after: Step | None, number: int, terms: Terms, drawer: Drawer
) -> dict[str, Any]:
    """One row, whole, with what a page draws of it."""
    seen = step.obs_blobs
    return {
        "number": number,
        "t": step.t,
        "seen": step.obs_text,
        "pictures": [
            {
                "hash": blob.hash.hex(),
                "media": blob.media,
                "bytes": blob.nbytes,
                "w": blob.w,
                "h": blob.h,
                "role": blob.role,
            }
            for blob in seen
        ],
        "marks": [] if step.decision is None else marks(step.decision),
        "drawn": drawer.draw(step),
        "done": None if step.decision is None else _done(step.decision, step),
        "results": [{"id": r.id, "result": r.result} for r in step.tool_results],
        "next_seen": None if after is None else after.obs_text,
        "signals": [_signal(s) for s in step.signals],
        "reward": step.reward,
        "reward_version": step.reward_version,
        "terms": terms.of(step),
        "discount": step.discount,
        "ending": step.ending,
        "marks_in_stream": [flag.name for flag in Boundary if flag and flag in step.boundary],
        "option": step.option_id,
        "option_step": step.option_step,
        "plan": step.plan_id,
        "value": step.value_estimate,
        "uncertainty": step.uncertainty,
        "parent": None if step.parent is None else f"{step.parent[0].hex()}:{step.parent[1]}",
        "started_ns": step.t_start_ns,
        "ended_ns": step.t_end_ns,
        "info": dict(step.info),
    }


def _signal(signal: Signal) -> dict[str, Any]:
    return {
        "name": signal.name,
        "value": signal.value,
        "unit": signal.unit,
        "source": signal.source,
        "evidence": signal.evidence,
        "awaited": signal.is_awaited,
    }


def _done(decision: Decision, step: Step) -> dict[str, Any]:
    return {
        "text": decision.text,
        "reasoning": decision.reasoning,
        "content": decision.content,
        "refusal": decision.refusal,
        "calls": [
            {"id": call.id, "name": call.name, "arguments": call.arguments}
            for call in decision.tool_calls
        ],
        "aside": step.is_aside,
        "behaviour": decision.behaviour_id,
        "version": decision.policy_version,
        "versions": [[span.version, span.tokens] for span in decision.version_spans],
        "decoder": decision.decoder,
        "model": decision.model,
        "finish": decision.finish_reason,
        "tokens_read": _count(decision.prompt_tokens, decision.prompt_ids),
        "tokens_written": _count(decision.answer_tokens, decision.action_ids),
        "logprob": float(decision.logprobs.sum()) if len(decision.logprobs) else None,
        "exact": decision.token_exact,
        "prompt_cut": decision.prompt_cut,
        "action_cut": decision.action_cut,
        "seconds": decision.seconds,
    }


def _count(told: int | None, ids: Sized) -> int | None:
    if told is not None:
        return told
    return len(ids) or None


def _first_line(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return line if len(line) <= _HEAD else line[:_HEAD] + "…"
