"""Prompt refs: which earlier rows a prompt continues, so that it is read without all before it.

A prompt is stored as what is new since its stream's last context in the same file (see prompts).
Its first tokens may lie many rows back, e.g. a system prompt in the first row of the file. A stack
for each stream says which row each run of the last context's tokens comes from.
"""

from __future__ import annotations

from collections.abc import Sequence

Ref = tuple[int, int, int]
"""(t, row of its file, end): the row whose context gives the tokens up to `end`."""


class PromptRefs:
    """The stacks of the streams of one file, whose rows come in order."""

    def __init__(self) -> None:
        self._stacks: dict[bytes, list[Ref]] = {}

    def take(self, stream: bytes, t: int, row: int, kept: int, length: int) -> None:
        """Takes an acted row: it keeps `kept` tokens of the last context; its own has `length`."""
        stack = self._stacks.setdefault(stream, [])
        cut(stack, kept)
        if length > kept:
            stack.append((t, row, length))

    def streams(self) -> list[bytes]:
        return list(self._stacks)

    def all_of(self, stream: bytes) -> list[Ref]:
        """Where the whole last context of a stream lies."""
        return list(self._stacks.get(stream, ()))

    def of(self, stream: bytes, kept: int) -> list[Ref]:
        """Where the first `kept` tokens of the stream's last context lie."""
        stack = list(self._stacks.get(stream, ()))
        cut(stack, kept)
        return stack


def cut(stack: list[Ref], kept: int) -> None:
    """Shortens a context to its first `kept` tokens."""
    while stack and _begin(stack) >= kept:
        stack.pop()
    if stack and stack[-1][2] > kept:
        t, row, _ = stack[-1]
        stack[-1] = (t, row, kept)


def _begin(stack: Sequence[Ref]) -> int:
    """The first token that the last ref gives."""
    return stack[-2][2] if len(stack) > 1 else 0
