"""Prompts as deltas: of each prompt only the tokens that the last context does not have."""

from __future__ import annotations

import numpy as np

from experience.errors import ShardError


def common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    """How many leading tokens two int32 arrays share."""
    n = min(len(a), len(b))
    different = np.flatnonzero(a[:n] != b[:n])
    return int(different[0]) if len(different) else n


class PromptDeltas:
    """Stores a prompt as the number of tokens kept of the stream's last context, and the rest.

    A context is a row's whole prompt followed by its action. Without deltas the prompts of a stream
    would grow with the square of its length. One object serves one direction, in stream order.
    """

    def __init__(self) -> None:
        self._context: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}

    def shrink(
        self, stream: bytes, prompt: np.ndarray, action: np.ndarray
    ) -> tuple[int, np.ndarray]:
        """How many tokens are kept of the last context, and the tokens after them, int32."""
        context = self._context.get(stream)
        kept = 0
        # An empty prompt is that of an engine that cannot tell its tokens: it shares nothing.
        if context is not None and len(prompt):
            kept = common_prefix(np.concatenate(context), prompt)
        self._context[stream] = prompt, action
        return kept, prompt[kept:]

    def expand(self, stream: bytes, kept: int, new: np.ndarray, action: np.ndarray) -> np.ndarray:
        """The whole prompt, int32. Raises ShardError if the rows before it were not expanded."""
        context = np.concatenate(self._context.get(stream, (new[:0],)))
        if kept > len(context):
            raise ShardError(
                f"stream {stream.hex()}: a prompt keeps {kept} tokens of a context of "
                f"{len(context)}",
                "read the stream's rows in order, from the start of a segment",
            )
        prompt = np.concatenate([context[:kept], new])
        self._context[stream] = prompt, action
        return prompt

    def begin(self, stream: bytes, context: np.ndarray) -> None:
        """Goes on after a context, int32, whose rows this object was not given."""
        self._context[stream] = context, context[:0]

    def forget(self) -> None:
        """Starts a new segment: each segment can be read on its own."""
        self._context.clear()
