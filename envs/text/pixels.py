"""Which arrays are pixels, and their pictures as PNG files.

Pixels are arrays of uint8 from 0 to 255 that are at least 24 wide and high, with 1, 3 or 4 numbers
a pixel, or at least 64 wide and high with one number a pixel and no axis for it. Smaller ones are
codes of cells more often than pictures (MiniGrid's are 7x7x3), and are written as numbers. Axes
before those of the picture are frames; there may be 16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from envs.text.parts import items_of
from experience.shards.storage.pictures import png

_CHANNELS = (1, 3, 4)
_LEAST_WITH_CHANNELS = 24
_LEAST_GREY = 64
_MOST_FRAMES = 16


def axes_of_picture(shape: tuple[int, ...]) -> int:
    """How many of the last axes are one picture; 0 if the array can be none."""
    if len(shape) >= 3 and shape[-1] in _CHANNELS and min(shape[-3:-1]) >= _LEAST_WITH_CHANNELS:
        axes = 3
    elif len(shape) >= 2 and min(shape[-2:]) >= _LEAST_GREY:
        axes = 2
    else:
        return 0
    frames = int(np.prod(shape[: len(shape) - axes]))
    return axes if 1 <= frames <= _MOST_FRAMES else 0


def is_pixels(space: spaces.Space[Any]) -> bool:
    """Whether the values of `space` are better seen than read."""
    return (
        isinstance(space, spaces.Box)
        and space.dtype == np.uint8
        and axes_of_picture(space.shape) > 0
        and int(space.low.min()) == 0
        and int(space.high.max()) == 255
    )


def has_pixels(space: spaces.Space[Any]) -> bool:
    """Whether `pictures_of` may find pictures in values of `space`."""
    match space:
        case spaces.Dict():
            return any(map(has_pixels, space.spaces.values()))
        case spaces.Tuple() | spaces.OneOf():
            return any(map(has_pixels, space.spaces))
        case spaces.Sequence():
            return has_pixels(space.feature_space)
    return is_pixels(space)


def said(space: spaces.Box, path: str) -> str:
    """The line of text that stands for pixels: their shape, and the names of their pictures."""
    size = "x".join(map(str, space.shape))
    names = _names(space.shape, path)
    if len(names) == 1:
        return f"(pixels {size}, shown as the picture {names[0]})"
    return f"(pixels {size}, shown as the {len(names)} pictures {names[0]} to {names[-1]})"


def _names(shape: tuple[int, ...], path: str) -> list[str]:
    frames = int(np.prod(shape[: len(shape) - axes_of_picture(shape)]))
    return [path] if frames == 1 else [f"{path}.{number}" for number in range(frames)]


def pictures_of(
    space: spaces.Space[Any], value: Any, path: str = "observation"
) -> dict[str, bytes]:
    """PNG files of all pixels in a value, by the names that its text gives them."""
    found = dict[str, bytes]()
    match space:
        case spaces.Box() if is_pixels(space):
            array = np.asarray(value, np.uint8)
            picture = array.shape[array.ndim - axes_of_picture(array.shape) :]
            frames = array.reshape(-1, *picture)
            names = _names(array.shape, path)
            found |= {name: png(frame) for name, frame in zip(names, frames, strict=True)}
        case spaces.Dict():
            for key, part in space.spaces.items():
                found |= pictures_of(part, value[key], f"{path}.{key}")
        case spaces.Tuple():
            for at, part in enumerate(space.spaces):
                found |= pictures_of(part, value[at], f"{path}.{at}")
        case spaces.OneOf():
            at = int(value[0])
            found |= pictures_of(space.spaces[at], value[1], f"{path}.{at}")
        case spaces.Sequence():
            for at, one in enumerate(items_of(space, value)):
                found |= pictures_of(space.feature_space, one, f"{path}.{at}")
    return found
