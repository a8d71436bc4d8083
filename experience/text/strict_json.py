"""JSON that every reader accepts: numbers that are not finite are written as null.

JSON has no NaN and no infinity, but Python's encoder writes them. All JSON of this project with
values that a world, a model or a user may have computed is written here.
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
    """Writes `value` as JSON of RFC 8259. NaN and infinity become null; keys become strings.

    `default` converts objects of types that JSON lacks. Raises TypeError for them if it is None.
    """
    encoder = _ENCODER
    if indent is not None or sort_keys or not ensure_ascii or default is not None:
        encoder = json.JSONEncoder(
            allow_nan=False,
            indent=indent,
            sort_keys=sort_keys,
            ensure_ascii=ensure_ascii,
            default=default,
        )
    # Nearly all values are finite: only one that is refused is walked through and mended.
    try:
        return encoder.encode(value)
    # A number that is not finite, or a key that is no string.
    except (ValueError, TypeError):
        return encoder.encode(_finite(value))


def exact(number: float) -> float | str:
    """`number` as a value that JSON holds without loss and `float` reads back.

    A number that is not finite becomes a string.
    """
    return number if math.isfinite(number) else str(number)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_key(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value


def _key(key: Any) -> Any:
    """A key that the encoder takes: it turns numbers and None into strings itself."""
    return key if isinstance(key, str | int | None) else str(key)
