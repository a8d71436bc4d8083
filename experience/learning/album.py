"""Pictures of turns, read from a store's blobs when a learner needs their pixels."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

import numpy as np

from experience.learning.batch import Turn
from experience.models.sight import read_picture

_MOST_BYTES = 256 << 20


class Album:
    """Reads each picture once while it is among the last used ones, 256 MiB of pixels in all.

    read: the bytes of a blob by its hash, such as `BlobReader.read`, which checks them. pixels: the
    side that pictures are scaled to.
    """

    def __init__(self, read: Callable[[bytes], bytes], pixels: int) -> None:
        self._read, self._pixels = read, pixels
        self._known: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._most = max(_MOST_BYTES // (3 * pixels * pixels), 1)
        self._blank = np.zeros((pixels, pixels, 3), np.uint8)

    def pictures(self, turns: Iterable[Turn]) -> np.ndarray:
        """The picture of every turn, black where it had none: uint8 [B, S, S, 3]."""
        return np.stack([self._of(turn) for turn in turns])

    def _of(self, turn: Turn) -> np.ndarray:
        if not turn.pictures:
            return self._blank
        # one a turn: an engine of one picture refuses worlds that show several
        digest = turn.pictures[0]
        found = self._known.pop(digest, None)
        if found is None:
            found = read_picture(self._read(digest), self._pixels)
        self._known[digest] = found  # as the last used one
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return found
