"""`xp config explain`: keys and whole sections in words, with their values and who set them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from actors.config.schema import Config
from actors.config.words import keys, takes
from experience.errors import ConfigError
from experience.text.near import did_you_mean


def explained(wanted: str, config: Config, origins: Mapping[str, str]) -> Iterator[str]:
    """One paragraph for the key `wanted`, for each key of a section, or (if empty) for every key.

    Raises ConfigError for a name that is neither a key nor a section.
    """
    # `worlds[].id` is written `worlds.id`: what is asked about is the key, not one world's value.
    known = {name.replace("[]", ""): field for name, field in keys(Config)}
    found = [
        name for name in known if not wanted or name == wanted or name.startswith(wanted + ".")
    ]
    if not found:
        sections = {name.rpartition(".")[0] for name in known} - {""}
        hint = (
            did_you_mean(wanted, [*known, *sections], 0.4)
            or f"sections are: {', '.join(sorted(sections))}"
        )
        raise ConfigError(f"{wanted}: unknown key", hint)
    values = config.model_dump(mode="json")
    for name in found:
        field = known[name]
        lines = [
            f"{name} = {_value(values, name)!r}",
            field.description or "",
            f"takes {taken}" if (taken := takes(field)) else "",
            f"default {_default(field)}, set by {_origin(name, origins)}",
        ]
        yield "\n  ".join(line for line in lines if line)


def _default(field: Any) -> str:
    return (
        "none: it must be given"
        if field.is_required()
        else repr(field.get_default(call_default_factory=True))
    )


def _value(values: Any, name: str) -> Any:
    """The value of a dotted key; of a key of the worlds, one a world."""
    for part in name.split("."):
        values = [v[part] for v in values] if isinstance(values, list) else values[part]
    return values


def _origin(name: str, origins: Mapping[str, str]) -> str:
    """Who set `name`: the key itself, else the section around it, else the keys inside it."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if place := origins.get(".".join(parts[:length])):
            return place
    inner = [place for key, place in origins.items() if key.startswith(name + ".")]
    return ", ".join(dict.fromkeys(inner)) or "the default"
