"""The table of recipes. A new row is data: cells that differ from those of `Recipe`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experience.learning.recipes.recipe import CELLS, CHOICES, Recipe, recipe_of

ROWS: dict[str, dict[str, Any]] = {
    # The project's default: RLOO's baseline, DAPO's clip and token mean, a dual clip.
    "grpo": {"source": "Shao et al. 2024 with the baseline of rloo and the clip and mean of dapo"},
    "grpo_original": {
        "source": "Shao et al. 2024 (arXiv 2402.03300), eq. 3",
        "estimator": "mean",
        "scale": "group",
        "keep_flat": True,
        "over": "responses",
        "clip_above": 0.2,
        "clip_dual": 0.0,
        "kl_weight": 0.04,
    },
    "dr_grpo": {
        "source": "Liu et al. 2025 (arXiv 2503.20783)",
        "estimator": "mean",
        "scale": "none",
        "keep_flat": True,
        "over": "constant",
        "clip_above": 0.2,
        "clip_dual": 0.0,
    },
    "dapo": {
        "source": "Yu et al. 2025 (arXiv 2503.14476)",
        "estimator": "mean",
        "scale": "group",
        "clip_dual": 0.0,
    },
    "rloo": {
        "source": "Ahmadian et al. 2024 (arXiv 2402.14740)",
        "scale": "none",
        "surrogate": "none",
        "over": "responses",
        "keep_flat": True,
    },
    "reinforce": {
        "source": "Williams 1992, without a baseline",
        "estimator": "none",
        "scale": "none",
        "surrogate": "none",
        "keep_flat": True,
    },
    "reinforce_pp": {
        "source": "Hu 2025 (REINFORCE++, arXiv 2501.03262)",
        "estimator": "none",
        "scale": "batch",
        "clip_above": 0.2,
        "clip_dual": 0.0,
        "kl_weight": 0.01,
        "keep_flat": True,
    },
    "gspo": {
        "source": "Zheng et al. 2025 (arXiv 2507.18071)",
        "estimator": "mean",
        "scale": "group",
        "ratio": "sequence",
        "over": "responses",
        "clip_below": 3e-4,
        "clip_above": 4e-4,
        "clip_dual": 0.0,
        "keep_flat": True,
    },
    "cispo": {
        "source": "MiniMax-M1 2025 (arXiv 2506.13585)",
        "estimator": "mean",
        "scale": "group",
        "surrogate": "cispo",
        "is_cap": 5.0,
    },
    "decoupled": {
        "source": "Fu et al. 2025 (AReaL, arXiv 2505.24298)",
        "decoupled": True,
    },
    "truncated": {
        "source": "truncated importance sampling (Espeholt et al. 2018, c = 1)",
        "surrogate": "cispo",
        "is_cap": 1.0,
    },
    "gigpo": {
        "source": "Feng et al. 2025 (arXiv 2505.10978), with leave-one-out",
        "estimator": "state",
    },
    "turn_ppo": {
        "source": "Schulman et al. 2016 over turns; Turn-PPO (arXiv 2512.17008)",
        "estimator": "turn",
    },
    "vtrace": {
        "source": "Espeholt et al. 2018 (IMPALA) over turns",
        "estimator": "vtrace",
        "surrogate": "none",
    },
    "average_reward": {
        "source": "Sutton & Barto 2018, section 10.3; Naik et al. 2024",
        "estimator": "differential",
    },
    "self_play": {
        "source": "role-conditioned advantages, SPIRAL (arXiv 2506.24119)",
        "estimator": "role",
        "surrogate": "cispo",
    },
    "ppo_kl": {
        "source": "Ouyang et al. 2022 (InstructGPT) without a critic",
        "kl_weight": 0.04,
        "kl_to_go": True,
    },
    "dpo": {
        "source": "Rafailov et al. 2023, over all pairs of a group; kl_weight is β",
        "surrogate": "dpo",
        "kl_weight": 0.1,
    },
    "ipo": {
        "source": "Azar et al. 2023, likewise",
        "surrogate": "ipo",
        "kl_weight": 0.1,
    },
    "sft": {
        "source": "Peng et al. 2019 with a linear weight",
        "surrogate": "sft",
    },
}


def _table(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Recipe]:
    plain = {"grpo": Recipe()}
    return {
        name: recipe_of({"like": "grpo", "name": name, **row}, plain) for name, row in rows.items()
    }


RECIPES = _table(ROWS)


def recipe(given: str | Mapping[str, Any] | Recipe) -> Recipe:
    """The recipe that a configuration gives: see `recipe_of`."""
    return recipe_of(given, RECIPES)


def as_text(recipes: Mapping[str, Recipe] = RECIPES) -> str:
    """The table in Markdown: of each row the cells that differ from the default, and its source."""
    usual = Recipe().cells()
    lines = ["| recipe | cells that differ from grpo | published as |", "|---|---|---|"]
    for name, row in recipes.items():
        own = [
            f"{cell}: {_shown(value)}"
            for cell, value in row.cells().items()
            if value != usual[cell] and cell not in ("name", "source")
        ]
        lines.append(f"| `{name}` | {', '.join(own) or 'none: it is the default'} | {row.source} |")
    return "\n".join(lines)


def cells_as_text() -> str:
    """The cells of a row in Markdown: each with its default, what it takes, and what it means."""
    lines = ["| cell | default | takes | what it is |", "|---|---|---|---|"]
    for cell, default in Recipe().cells().items():
        taken = ", ".join(CHOICES.get(cell, (type(default).__name__,)))
        lines.append(f"| `{cell}` | {_shown(default) or '-'} | {taken} | {CELLS[cell]} |")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
