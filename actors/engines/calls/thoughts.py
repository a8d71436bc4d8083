"""Thoughts apart from what is said: marked in many ways, and often not closed, or not opened."""

from __future__ import annotations

import re

_NAMES = "think|thinking|thought|thoughts|reasoning|reason|seed:think|analysis|scratchpad"
_PAIR = re.compile(rf"<({_NAMES})>(.*?)</\1>", re.DOTALL | re.IGNORECASE)
_OTHER_PAIRS = (
    re.compile(r"\[THINK\](.*?)\[/THINK\]", re.DOTALL),
    re.compile(r"\u25c1think\u25b7(.*?)\u25c1/think\u25b7", re.DOTALL),
    re.compile(r"<\|begin_of_thought\|>(.*?)<\|end_of_thought\|>", re.DOTALL),
    re.compile(r"<\|START_THINKING\|>(.*?)<\|END_THINKING\|>", re.DOTALL),
    # Harmony: a message of the channel `analysis`
    re.compile(
        r"(?:<\|start\|>assistant)?<\|channel\|>analysis<\|message\|>(.*?)"
        r"(?:<\|end\|>|(?=<\|start\|>|<\|channel\|>)|$)",
        re.DOTALL,
    ),
)
_OPENING = re.compile(rf"<(?:{_NAMES})>|\[THINK\]|\u25c1think\u25b7", re.IGNORECASE)
_CLOSING = re.compile(
    rf"</(?:{_NAMES})>|\[/THINK\]|\u25c1/think\u25b7|<\|end_of_thought\|>", re.IGNORECASE
)

NO_MARKS = re.compile("(?!)")
"""Of calls, in a world where nothing can be called."""


def apart(text: str, marks: re.Pattern[str]) -> tuple[str, str]:
    """(thoughts, what is said) of a model's answer.

    A thought that was opened in the prompt has an end only: all before the last end is thought. A
    thought without an end goes on to the first of `marks`, such as those that begin a call; without
    one, all that follows is thought. A call in a closed thought is thought of, and not made.
    """
    # A mark of a thought within a call is part of its arguments, such as a text to be written.
    begins = marks.search(text)
    opens = _OPENING.search(text) or _CLOSING.search(text)
    is_within = begins is not None and (opens is None or begins.start() < opens.start())
    if is_within and not _only_closes_first(text):
        return "", text
    thoughts: list[str] = []

    def take(found: re.Match[str]) -> str:
        thoughts.append(found[found.lastindex or 1])
        return " "

    if not _only_closes_first(text):
        text = _PAIR.sub(take, text)
    for pair in _OTHER_PAIRS:
        text = pair.sub(take, text)
    closing = list(_CLOSING.finditer(text))
    if closing:
        last = closing[-1]
        thoughts.append(text[: last.start()])
        text = text[last.end() :]
    opening = _OPENING.search(text)
    if opening:
        call = marks.search(text, opening.end())
        end = call.start() if call else len(text)
        thoughts.append(text[opening.end() : end])
        text = text[: opening.start()] + text[end:]
    thought = "\n".join(_CLOSING.sub("", _OPENING.sub("", t)).strip() for t in thoughts)
    return thought.strip(), text.strip()


def _only_closes_first(text: str) -> bool:
    """Whether the first mark is an end: the thought was opened in the prompt."""
    opens, closes = _OPENING.search(text), _CLOSING.search(text)
    return closes is not None and (opens is None or closes.start() < opens.start())
