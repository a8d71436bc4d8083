"""Rows: what a slot has seen, done and been answered, as a step of its stream."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from actors.collecting.slot import Slot
from experience.answers import StepAnswer
from experience.policy import Decision
from experience.shards.journal import Journal
from experience.shards.storage.blobs import media_and_size
from experience.step import LATE_INFO, OTHERS, WORLD_STEP, Boundary, Source, Step, state_key
from experience.text.tools import ToolResult

Marks = tuple[int | None, int | None]
"""The option under way, and how many actions it has taken."""


def row(
    slot: Slot, decision: Decision | None, journal: Journal, marks: Marks, **answer: Any
) -> Step:
    """The next row of a slot's stream; takes its boundary marks and its late signals along.

    decision: None in a closing row. answer: the fields of the step that answer the decision.
    """
    work = slot.work
    assert work is not None
    source: Source = "demonstration" if work.lane == "demonstration" else "real"
    card = slot.cards.get(work.env_id)
    forks = decision is not None and slot.context.forks
    answer["info"] = _info(slot, decision, answer.get("info", {}))
    return Step(
        stream_id=slot.stream_id,
        t=journal.next_t(slot.stream_id),
        parent=(slot.stream_id, slot.last_t) if forks else None,
        env_id=work.env_id,
        obs_text=slot.observation,
        obs_blobs=tuple(
            journal.blobs.put(data, *media_and_size(data), role=role)
            for role, data in slot.images.items()
        ),
        source=source,
        episode=slot.episode,
        step_in_episode=slot.turn,
        work_id=work.work_id,
        group_id=work.group_id,
        env_version="" if card is None else card.env_version,
        task_id=slot.task_id,
        split=OTHERS if work.split == OTHERS else slot.info.get("split", work.split),
        seed=work.seed,
        sandbox_tier="" if card is None else card.sandbox_tier,
        t_start_ns=slot.t_start_ns,
        t_end_ns=time.time_ns(),
        state_key=state_key(slot.state),
        decision=decision,
        option_id=marks[0],
        option_step=marks[1],
        value_estimate=slot.option_stack.value_estimate,
        subject=slot.subject,
        agent_id=slot.agent or str(slot.info.get("agent_id", "")),
        boundary=_boundary(slot),
        **answer,
    )


def _boundary(slot: Slot) -> Boundary:
    """The marks of the slot's next row."""
    boundary, slot.boundary = slot.boundary, Boundary.NONE
    if slot.turn == 0:
        boundary |= Boundary.CONTINUES if slot.continues else Boundary.RESET
    return boundary


def _info(slot: Slot, decision: Decision | None, info: Mapping[str, Any]) -> dict[str, Any]:
    """`info`, with the late signals that wait for a row, and the world's step at a table."""
    found = dict(info)
    if slot.late:
        found[LATE_INFO] = slot.late
        slot.late = []
    if slot.table is not None and decision is not None:
        found[WORLD_STEP] = slot.acted_at
    return found


def tool_results(decision: Decision | None, answer: StepAnswer) -> tuple[ToolResult, ...]:
    """What the world says that each call gave, by the id of the call."""
    results = answer.info.get("tool_results", ())
    calls = () if decision is None else decision.tool_calls
    return tuple(ToolResult(c.id, result) for c, result in zip(calls, results, strict=False))
