"""Sight of small models: a picture as the vectors of its patches, which stand before the text."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from experience.errors import MissingPartError, RecordError

GRID = 8
"""Patches along each side of a picture."""
PATCHES = GRID * GRID
_MOST_BYTES = 256 << 20
_SCALE = 3.0
"""Makes what new weights see as large as where they see it."""


def open_picture(data: bytes) -> Any:
    """A PNG, JPEG or WebP file as a picture of Pillow in RGB.

    Raises RecordError for bytes that are no such picture.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ModuleNotFoundError as error:
        raise MissingPartError("pictures are read by pillow", "pip install pillow") from error
    try:
        # three formats only: each further decoder is one more that a world could attack
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as picture:
            return picture.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise RecordError(
            f"{len(data)} bytes that are no picture: {error}",
            "a world's info['images'] holds the bytes of PNG, JPEG or WebP files",
        ) from error


def read_picture(data: bytes, pixels: int) -> np.ndarray:
    """A picture as uint8 [pixels, pixels, 3], scaled by the mean over areas."""
    from PIL import Image

    scaled = open_picture(data).resize((pixels, pixels), Image.Resampling.BOX)
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


class Album:
    """Pictures in a store's blobs, decoded when a learner needs their pixels. The last used ones,
    256 MiB of pixels in all, are kept.

    read: the bytes of a blob by its hash, such as `BlobReader.read`, which checks them. pixels: the
    side that pictures are scaled to.
    """

    def __init__(self, read: Callable[[bytes], bytes], pixels: int) -> None:
        self._read, self._pixels = read, pixels
        self._known: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._most = max(_MOST_BYTES // (3 * pixels * pixels), 1)

    def pictures(self, seen: Sequence[Sequence[bytes]]) -> Tensor:
        """The picture of every turn, of the hashes that it saw; black where it saw none: uint8
        [B, S, S, 3]."""
        found = np.zeros((len(seen), self._pixels, self._pixels, 3), np.uint8)
        for row, hashes in enumerate(seen):
            for digest in hashes[:1]:  # the engine refuses worlds that show several
                found[row] = self._of(digest)
        return torch.from_numpy(found)

    def _of(self, digest: bytes) -> np.ndarray:
        found = self._known.pop(digest, None)
        if found is None:
            found = read_picture(self._read(digest), self._pixels)
        self._known[digest] = found  # as the last used one
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return found
