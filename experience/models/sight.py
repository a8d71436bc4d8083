"""Sight of small models: a picture as the vectors of its patches, which stand before the text."""

from __future__ import annotations

import io

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from experience.errors import MissingPartError, RecordError

GRID = 8
"""Patches along each side of a picture."""
PATCHES = GRID * GRID
_SCALE = 3.0
"""Makes what new weights see as large as where they see it."""


def read_picture(data: bytes, pixels: int) -> np.ndarray:
    """A PNG, JPEG or WebP file as uint8 [pixels, pixels, 3], scaled by the mean over areas.

    Raises RecordError for bytes that are no picture.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ModuleNotFoundError as error:
        raise MissingPartError("pictures are read by pillow", "pip install pillow") from error
    try:
        with Image.open(io.BytesIO(data)) as picture:
            scaled = picture.convert("RGB").resize((pixels, pixels), Image.Resampling.BOX)
    except (UnidentifiedImageError, OSError) as error:
        raise RecordError(
            f"{len(data)} bytes that are no picture: {error}",
            "a world's info['images'] holds the bytes of PNG, JPEG or WebP files",
        ) from error
    return np.asarray(scaled, np.uint8)


class Sight(nn.Module):
    """pictures uint8 [B, S, S, 3] -> float32 [B, PATCHES, width], S a multiple of GRID."""

    def __init__(self, pixels: int, width: int) -> None:
        super().__init__()
        side = pixels // GRID
        self.pixels = pixels
        self.look = nn.Conv2d(3, width, side, stride=side)
        # A row and a column are learned apart: what is seen in one place helps in all places.
        self.rows = nn.Parameter(torch.zeros(GRID, width))
        self.columns = nn.Parameter(torch.zeros(GRID, width))
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, pictures: Tensor) -> Tensor:
        # from −1 to 1, so that plain grey is nothing
        light = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
        places = (self.rows[:, None] + self.columns).flatten(0, 1)
        seen = places + _SCALE * self.look(light).flatten(2).transpose(1, 2)
        patches: Tensor = seen + self.down(functional.gelu(self.up(seen)))
        return patches

    def blank(self, rows: int) -> Tensor:
        """Black pictures: what is seen where none is shown."""
        return torch.zeros(rows, self.pixels, self.pixels, 3, dtype=torch.uint8)
