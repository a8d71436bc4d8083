"""What to write for an action of a space, in words."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.text.parts import Composed
from envs.text.writing import label_of, written

_MOST = 600
"""The most characters of a description; a refusal of an action repeats it."""
_EACH = 8
"""The most numbers whose bounds are told one by one."""


def described(space: spaces.Space[Any]) -> str:
    """What to write for an action of `space`; a composed one with an example."""
    if not isinstance(space, Composed):
        return _one(space)
    line = f"one line of JSON, for example {example(space)} ({_one(space)})"
    return line if len(line) <= _MOST else f"{line[: _MOST - 1]}…"


def example(space: spaces.Space[Any]) -> str:
    """An action of `space` as it is written; the same one each time."""
    copy = deepcopy(space)  # whose random numbers are its own
    copy.seed(0)
    return written(copy, copy.sample())


def _one(space: spaces.Space[Any]) -> str:
    match space:
        case spaces.Discrete():
            return f"one whole number from {space.start} to {space.start + space.n - 1}"
        case spaces.Box():
            return _box(space)
        case spaces.MultiDiscrete():
            low = np.broadcast_to(space.start, space.nvec.shape)
            return _numbers("whole number", space.shape, low, low + space.nvec - 1)
        case spaces.MultiBinary():
            return f"{int(np.prod(space.shape))} numbers, each 0 or 1"
        case spaces.Text():
            return f"a text of {space.min_length} to {space.max_length} characters"
        case spaces.Dict():
            parts = [f"{label_of(key)}: {_one(part)}" for key, part in space.spaces.items()]
            return "; ".join(parts)
        case spaces.Tuple():
            return f"a list of {'; '.join(map(_one, space.spaces))}"
        case spaces.OneOf():
            parts = [f"{at} with {_one(part)}" for at, part in enumerate(space.spaces)]
            return f"a list of a number and its value: {'; '.join(parts)}"
        case spaces.Sequence():
            return f"a list of any length, each {_one(space.feature_space)}"
        case spaces.Graph():
            nodes = f"nodes: a list, each {_one(space.node_space)}"
            if space.edge_space is None:
                return nodes
            return f"{nodes}; edges: a list of [from, to, {_one(space.edge_space)}]"
    return str(space)[:200]


def _box(space: spaces.Box) -> str:
    kind = "whole number" if np.issubdtype(space.dtype, np.integer) else "number"
    return _numbers(kind, space.shape, space.low, space.high)


def _numbers(kind: str, shape: tuple[int, ...], low: Any, high: Any) -> str:
    count = int(np.prod(shape))
    counted = f"{count} {kind}{'' if count == 1 else 's'}"
    if len(shape) > 1:
        counted += f" in {'x'.join(map(str, shape))}"
    if not count:
        return counted
    bounds = [_within(a, b) for a, b in zip(low.ravel(), high.ravel(), strict=True)]
    if len(set(bounds)) == 1:
        return f"{counted} {bounds[0]}"
    if count <= _EACH:
        return f"{counted}: {', '.join(bounds)}"
    return f"{counted} {_within(low.min(), high.max())}, some within narrower bounds"


def _within(low: Any, high: Any) -> str:
    if np.isinf(low) and np.isinf(high):
        return "of any size"
    if np.isinf(high):
        return f"from {_short(low)} up"
    return f"up to {_short(high)}" if np.isinf(low) else f"from {_short(low)} to {_short(high)}"


def _short(number: Any) -> str:
    return str(int(number)) if isinstance(number, np.integer) else f"{number:g}"
