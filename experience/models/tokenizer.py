"""Bytes as tokens: every text has exactly one encoding, and no text is out of vocabulary."""

from __future__ import annotations

import numpy as np


class ByteTokenizer:
    """UTF-8 bytes, then three marks: BEGIN opens a prompt, ACT asks for an action, END ends one."""

    BEGIN, ACT, END = 256, 257, 258
    size = 259

    def prompt(self, text: str) -> np.ndarray:
        """int32 [P]: BEGIN, the bytes of `text`, ACT."""
        body = np.frombuffer(text.encode(), np.uint8).astype(np.int32)
        return np.concatenate([[self.BEGIN], body, [self.ACT]]).astype(np.int32)

    def action(self, text: str) -> np.ndarray:
        """int32 [A]: the bytes of `text`, END."""
        body = np.frombuffer(text.encode(), np.uint8).astype(np.int32)
        return np.concatenate([body, [self.END]]).astype(np.int32)

    def text(self, ids: np.ndarray) -> str:
        # Sampled bytes need not be UTF-8. The exact ids are stored beside this text.
        return bytes(int(i) for i in ids if i < 256).decode("utf-8", "replace")
