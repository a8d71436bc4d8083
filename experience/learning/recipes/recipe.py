"""A recipe: one row of the table of algorithms, and how a configuration names and overrides it.

This file imports nothing heavy, so that the configuration can be checked by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_type_hints

from experience.errors import ConfigError
from experience.text.near import did_you_mean

WHOLE = ("none", "mean", "rloo", "role")
"""Estimators that give all turns of an episode the same advantage."""
NEED_VALUES = ("turn", "vtrace", "differential")
"""Estimators that read a value function, which the run then learns."""
ESTIMATORS = (*WHOLE, "state", *NEED_VALUES)
CHOICES = {
    "estimator": ESTIMATORS,
    "scale": ("world", "group", "batch", "none"),
    "ratio": ("token", "turn", "sequence"),
    "over": ("tokens", "responses", "constant"),
    "mask": ("none", "stale_negatives", "icepop"),
    "surrogate": ("none", "clip", "cispo", "sft", "dpo", "ipo"),
}
"""What cells of words take. A surrogate may also be a loss of one's own, as package:Class."""


def _cell(default: Any, meaning: str) -> Any:
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True)
class Recipe:
    """One algorithm: L = Σ_j c_j · Σℓ_j / Σn_j, with what its policy-gradient term is made of."""

    name: str = _cell("grpo", "of the row")
    source: str = _cell("", "where it was published")
    estimator: str = _cell("rloo", "what a turn or an episode is compared with")
    scale: str = _cell("world", "what advantages are divided by")
    keep_flat: bool = _cell(False, "groups whose returns are all equal count in denominators")
    negative_weight: float = _cell(1.0, "multiplies advantages below 0")
    trace: float = _cell(0.95, "λ of returns that end in values")
    surrogate: str = _cell("clip", "what is maximised; or your own as package:Class")
    ratio: str = _cell("token", "whose probability a ratio compares")
    over: str = _cell("tokens", "what the sum is divided by")
    constant_tokens: int = _cell(64, "over: constant: tokens that a response is divided by")
    clip_below: float = _cell(0.2, "ratio clip, lower side")
    clip_above: float = _cell(0.28, "ratio clip, upper side")
    clip_dual: float = _cell(3.0, "bound of the loss where Â < 0; 0 is none")
    is_cap: float = _cell(5.0, "cispo: largest importance weight")
    decoupled: bool = _cell(False, "clip around the policy at the update's start, and weigh by μ")
    weight_cap: float = _cell(5.0, "decoupled: largest π_prox/μ; 0 is none")
    mask: str = _cell("none", "sequences or tokens that are left out")
    mask_limit: float = _cell(2.0, "mask: nats (stale_negatives) or ratio (icepop)")
    kl_weight: float = _cell(0.0, "β of KL(π‖reference)")
    kl_to_go: bool = _cell(False, "a token answers for the divergence of those after it, too")
    most_tokens: int = _cell(0, "responses this long earn 1 less; 0 is off (DAPO's overlong)")
    soft_tokens: int = _cell(0, "most_tokens: over so many tokens before it, the loss rises to 1")

    @property
    def needs_values(self) -> bool:
        return self.estimator in NEED_VALUES

    def cells(self) -> dict[str, Any]:
        """The cells by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


_KINDS = get_type_hints(Recipe)
CELLS = {f.name: f.metadata["meaning"] for f in fields(Recipe)}


def recipe_of(given: str | Mapping[str, Any] | Recipe, table: Mapping[str, Recipe]) -> Recipe:
    """The recipe that a configuration gives.

    given: a row's name; a mapping of cells, where `like` names the row that other cells are taken
    from (grpo if it is left out); or "package:Class", a loss of one's own with the cells of grpo.
    Raises ConfigError for an unknown row or cell, and for a value that a cell cannot take.
    """
    if isinstance(given, Recipe):
        return checked(given)
    if isinstance(given, str):
        given = {"like": given}
    cells = dict(given)
    like = cells.pop("like", "grpo")
    if isinstance(like, str) and ":" in like:
        cells = {"surrogate": like, "name": like, **cells}
        like = "grpo"
    row = table.get(like) if isinstance(like, str) else None
    if row is None:
        raise ConfigError(
            f"learning.recipe: {like!r} is not a recipe",
            did_you_mean(str(like), [*table])
            or f"there are: {', '.join(table)}; or name your own loss as package:Class",
        )
    for name, value in cells.items():
        _check_cell(name, value)
    return checked(replace(row, **{name: _as(name, value) for name, value in cells.items()}))


def _as(name: str, value: Any) -> Any:
    return float(value) if _KINDS[name] is float else value


def _check_cell(name: str, value: Any) -> None:
    if name not in CELLS:
        raise ConfigError(
            f"learning.recipe.{name}: unknown cell",
            did_you_mean(name, [*CELLS]) or f"cells are: like, {', '.join(CELLS)}",
        )
    kind = _KINDS[name]
    allowed = (int, float) if kind is float else (kind,)
    is_wrong_bool = isinstance(value, bool) and kind is not bool
    if not isinstance(value, allowed) or is_wrong_bool:
        raise ConfigError(
            f"learning.recipe.{name}: {value!r} is no {kind.__name__}", f"it is: {CELLS[name]}"
        )


def checked(recipe: Recipe) -> Recipe:
    """`recipe`. Raises ConfigError for a cell outside its range, or cells that exclude others."""
    for name, choices in CHOICES.items():
        value = getattr(recipe, name)
        is_own = name == "surrogate" and ":" in value
        if value not in choices and not is_own:
            raise ConfigError(
                f"learning.recipe.{name}: {value!r} is not one of {', '.join(choices)}",
                did_you_mean(value, choices, 0.5),
            )
    for name, kind in _KINDS.items():
        value = getattr(recipe, name)
        if kind in (int, float) and not 0 <= value < float("inf"):
            raise ConfigError(
                f"learning.recipe.{name}: {value} is out of range", "give a number from 0"
            )
    _check_together(recipe)
    return recipe


def _check_together(recipe: Recipe) -> None:
    if recipe.trace > 1 or recipe.clip_below >= 1:
        raise ConfigError(
            f"learning.recipe: trace {recipe.trace:g}, clip_below {recipe.clip_below:g}",
            "give trace from 0 to 1, and clip_below below 1",
        )
    if recipe.decoupled and recipe.surrogate not in ("clip", "cispo"):
        raise ConfigError(
            f"learning.recipe: decoupled needs a ratio, and surrogate {recipe.surrogate} has none",
            "set surrogate: clip, or decoupled: false",
        )
    if recipe.scale == "group" and recipe.estimator not in WHOLE:
        raise ConfigError(
            f"learning.recipe: scale: group needs one return an episode, and estimator "
            f"{recipe.estimator} gives each turn its own",
            "set scale: world",
        )
    if recipe.over == "constant" and not recipe.constant_tokens:
        raise ConfigError("learning.recipe: over: constant divides by 0", "set constant_tokens")
    if recipe.mask == "icepop" and recipe.mask_limit < 1:
        raise ConfigError(
            f"learning.recipe.mask_limit: {recipe.mask_limit:g} leaves out every ratio",
            "icepop keeps ratios from 1/limit to limit: give 1 or more",
        )
    if recipe.soft_tokens > recipe.most_tokens:
        raise ConfigError(
            "learning.recipe.soft_tokens: more than most_tokens",
            "the soft zone is the end of most_tokens: give fewer",
        )
