"""A world's data sheet."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from experience.text.strict_json import dumps
from experience.world import WorldCard, instructions_of


def data_sheet(env_id: str, world: Any, checks: Sequence[Any]) -> str:
    """Markdown: what the world says of itself, and what its checks found."""
    module = inspect.getmodule(type(world))
    about = inspect.cleandoc(type(world).__doc__ or (module.__doc__ if module else "") or "")
    lines = [f"# {env_id}", "", about, "", "| | |", "|---|---|"]
    lines += [
        f"| {name.replace('_', ' ')} | {getattr(world, name, '—')} |"
        for name in ("env_version", "sandbox_tier", "max_turns", "goes_back", "oracle_target")
    ]
    lines += [
        f"| observation space | `{world.observation_space}`"[:120] + " |",
        "",
        "## Actions",
        "",
        instructions_of(world),
    ]
    for tool in getattr(world, "tools", {}).values():
        lines += ["", f"```json\n{dumps(tool.schema()['function'])}\n```"]
    lines += ["", "## Signals", "", "| signal | unit | measured by | weight |", "|---|---|---|---|"]
    offered = WorldCard.of(world)
    for name, kind in offered.signals.items():
        lines.append(f"| {name} | {kind.unit} | {kind.source} | {offered.rewards.get(name, 0):g} |")
    lines += ["", "## Checks", "", "| check | | what was seen |", "|---|---|---|"]
    lines += [f"| {c.id} | {c.outcome} | {c.detail.replace('|', '/')} |" for c in checks]
    return "\n".join(lines)
