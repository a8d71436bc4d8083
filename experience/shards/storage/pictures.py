"""Pictures that a world gives as arrays, as the PNG files that a store keeps."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}
"""Channels -> colour type: grey, RGB, RGBA (PNG, ISO/IEC 15948, 11.2.2)."""


def is_picture(value: Any) -> bool:
    """Whether a value can only mean a picture: uint8 [H, W], or [H, W, 1, 3 or 4]."""
    return (
        isinstance(value, np.ndarray)
        and value.dtype == np.uint8
        and value.size > 0
        and (value.ndim == 2 or (value.ndim == 3 and value.shape[2] in _COLOUR_TYPES))
    )


def png(picture: np.ndarray) -> bytes:
    """A PNG file without loss. picture: uint8 [H, W], or [H, W, C] with C = 1, 3 or 4."""
    height, width = picture.shape[:2]
    rows = np.ascontiguousarray(picture).reshape(height, -1)
    colour = _COLOUR_TYPES[rows.shape[1] // width]
    # each row is preceded by its filter: 0, none
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(filtered.tobytes(), 3))
        + _chunk(b"IEND", b"")
    )


def _chunk(name: bytes, data: bytes) -> bytes:
    checked = name + data
    return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))
