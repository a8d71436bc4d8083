"""Changes of a run's config.yaml since its store was made, and which ones the store cannot take.

The rows of a store, its checkpoints and its remaining work follow from the configuration that the
store was made with. Most keys may change between two attempts, and the change is reported; a few
may not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from experience.errors import ConfigError

_FIXED = (
    (re.compile(r"seed"), "names the tasks that were lived"),
    (
        re.compile(r"worlds\[.*\](\.arguments.*)?"),
        "rows of other worlds would stand under the same name",
    ),
    (re.compile(r"collecting\.group_size"), "groups that were begun would never be whole"),
    (
        re.compile(r"policy\.(engine|model|layers|width|heads|context|pixels|learns)"),
        "the checkpoint's weights do not fit it",
    ),
    (re.compile(r"policy\.arguments\.lora_.*"), "the checkpoint's adapter does not fit it"),
    (
        re.compile(r"planning\.(model|layers|width|retrieve)"),
        "the checkpoint's world model does not fit it",
    ),
    (
        re.compile(r"learning\.recipe(\.(like|estimator))?"),
        "the checkpoint's learner does not fit it",
    ),
)
"""Keys whose value an existing store fixes, and why."""
# A run may be renamed and moved; nothing in its rows tells of either.
_OF_NO_MATTER = ("name", "runs_dir")
_MISSING = "not set"


@dataclass(frozen=True)
class Change:
    """One key that differs; `why_not` is empty where the run may go on with the new value."""

    key: str
    was: Any
    now: Any
    why_not: str = ""

    def __str__(self) -> str:
        return f"{self.key}: was {self.was!r}, is {self.now!r}"


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """The keys that differ, those of the worlds by the worlds' ids."""
    old = dict(_leaves(before))
    new = dict(_leaves(now))
    keys = [key for key in {**old, **new} if old.get(key, _MISSING) != new.get(key, _MISSING)]
    return [
        Change(key, old.get(key, _MISSING), new.get(key, _MISSING), _why_not(key))
        for key in keys
        if key not in _OF_NO_MATTER
    ]


def refuse(found: list[Change], where: str) -> None:
    """Raises ConfigError naming the changes that the store cannot take."""
    if wrong := [change for change in found if change.why_not]:
        listed = "\n".join(f"  {change}: {change.why_not}" for change in wrong)
        raise ConfigError(
            f"{where} is not what this run's store was made with:\n{listed}",
            f"put the old values back, or begin another run: ./xp run -c {where}",
        )


def _why_not(key: str) -> str:
    return next((why for form, why in _FIXED if form.fullmatch(key)), "")


def _leaves(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        here = f"{path}.{key}" if path else key
        if here == "worlds" and isinstance(value, list):
            for world in (w for w in value if isinstance(w, dict)):
                # By id, not by number: a world that was added first moves all the others.
                name = f"worlds[{world.get('id')}]"
                yield name, "listed"
                for part, inner in world.items():
                    yield f"{name}.{part}", inner
        elif isinstance(value, dict):
            yield from _leaves(value, here)
        else:
            yield here, value
