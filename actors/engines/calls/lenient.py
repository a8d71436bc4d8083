"""JSON as language models write it: with Python's words, single quotes, commas too many, no end.

Strict JSON is read as such. What follows an object is not looked at. A text that could mean two
things is read as the first; a text that means nothing raises ValueError.
"""

from __future__ import annotations

import json
import re
from typing import Any

_DEEPEST = 60
_WORDS = {"true": True, "false": False, "null": None, "None": None, "none": None}
_WORDS |= {"True": True, "False": False, "undefined": None, "NaN": None}
_QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d", "\u2018": "\u2019", "`": "`"}
_BARE = re.compile(r"[^\s,:{}\[\]\"']+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_SKIPPED = re.compile(r"(\s|//[^\n]*|/\*.*?\*/|#[^\n]*)*", re.DOTALL)
_STRICT = json.JSONDecoder(strict=False)


def read_json(text: str, at: int = 0) -> tuple[Any, int]:
    """(value, end) of the object or list that begins at `at`.

    Raises ValueError where no object or list begins, or what begins cannot be read.
    """
    if text[at : at + 1] not in ("{", "["):
        raise ValueError("no JSON begins here")
    try:
        return _STRICT.raw_decode(text, at)
    except (ValueError, RecursionError):
        reader = _Reader(text, at)
        value = reader.value(0)
        return value, reader.at


def unwrapped(value: Any) -> Any:
    """An object that was written as a text, or as a text in a text."""
    for _ in range(3):
        if not isinstance(value, str):
            break
        inner = value.strip()
        if inner[:1] not in ("{", "[", '"'):
            break
        try:
            found = json.loads(inner) if inner[0] == '"' else read_json(inner)[0]
        except (ValueError, RecursionError):
            break
        value = found
    return value


class _Reader:
    """Reads one value, character by character; `at` is the place of the next character."""

    def __init__(self, text: str, at: int) -> None:
        self.text = text
        self.at = at

    def value(self, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("objects in objects, too many")
        self._skip()
        begins = self._here()
        if begins == "{":
            return self._object(depth)
        if begins == "[":
            return self._list(depth)
        if begins in _QUOTES and begins:
            return self._string()
        return self._bare()

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self.at += 1
        while self._goes_on("}"):
            key = self._string() if self._here() in _QUOTES else self._bare()
            self._skip()
            if self._here() not in (":", "="):
                raise ValueError(f"no colon after {str(key)[:20]!r}")
            self.at += 1
            found[str(key)] = self.value(depth + 1)
        return found

    def _list(self, depth: int) -> list[Any]:
        found = []
        self.at += 1
        while self._goes_on("]"):
            found.append(self.value(depth + 1))
        return found

    def _goes_on(self, closing: str) -> bool:
        """Whether a further member follows; passes the commas, and the end, which may be absent."""
        self._skip()
        while self._here() == ",":
            self.at += 1
            self._skip()
        here = self._here()
        if here == closing:
            self.at += 1
            return False
        # closed by another bracket or by a mark, or not closed at all
        return here not in ("", "}", "]", "<")

    def _string(self) -> str:
        closing = _QUOTES[self._here()]
        self.at += 1
        parts: list[str] = []
        while here := self._here():
            if here == "\\" and self.at + 1 < len(self.text):
                parts.append(self._escape())
                continue
            self.at += 1
            if here == closing and self._ends_a_string(closing):
                return "".join(parts)
            parts.append(here)
        return "".join(parts)

    def _escape(self) -> str:
        letter = self.text[self.at + 1]
        if letter == "u":
            digits = self.text[self.at + 2 : self.at + 6]
            if re.fullmatch(r"[0-9a-fA-F]{4}", digits):
                self.at += 6
                return chr(int(digits, 16))
        self.at += 2
        if letter in _ESCAPED:
            return _ESCAPED[letter]
        return letter if letter in "\"'\\/`" else "\\" + letter

    def _ends_a_string(self, closing: str) -> bool:
        """Whether this quote ends its string: a quote that was not escaped is followed by text."""
        after = _SKIPPED.match(self.text, self.at)
        next_one = self.text[after.end() : after.end() + 1] if after else ""
        return not next_one or next_one in ",:}]=<"

    def _bare(self) -> Any:
        found = _BARE.match(self.text, self.at)
        if found is None:
            raise ValueError("a value is missing")
        self.at = found.end()
        word = found[0]
        if word in _WORDS:
            return _WORDS[word]
        if _NUMBER.match(word):
            return float(word) if re.search(r"[.eE]", word) else int(word)
        return word

    def _here(self) -> str:
        return self.text[self.at : self.at + 1]

    def _skip(self) -> None:
        found = _SKIPPED.match(self.text, self.at)
        self.at = found.end() if found else self.at
