"""JSON that every reader takes: a number that is not finite, which JSON does not have, is written as null.

The one place where this project makes JSON of values that a world, a model or a user may have computed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

_ENCODER = json.JSONEncoder(allow_nan=False)


def dumps(
    value: Any,
    *,
    indent: int | None = None,
    sort_keys: bool = False,
    ensure_ascii: bool = True,
    default: Callable[[Any], Any] | None = None,
) -> str:
    """`value` as RFC 8259 has it. NaN and infinity are null, keys that are no texts are written as texts.

    `default` turns what JSON does not know into what it does. Raises TypeError without one.
    """
    plain = indent is None and not sort_keys and ensure_ascii and default is None
    encoder = (
        _ENCODER
        if plain
        else json.JSONEncoder(
            allow_nan=False,
            indent=indent,
            sort_keys=sort_keys,
            ensure_ascii=ensure_ascii,
            default=default,
        )
    )
    try:
        return encoder.encode(value)
    except (ValueError, TypeError):  # a number that is not finite, or a key that is no text
        return encoder.encode(_finite(value))


def exact(number: float) -> float | str:
    """`number` as JSON may hold it without loss, for `float` to read back: an infinite one as a text."""
    return number if math.isfinite(number) else str(number)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {
            key if isinstance(key, str | int | None) else str(key): _finite(v)
            for key, v in value.items()
        }
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value
