"""Characters: which of Unicode's a text may hold, and how all others are written instead.

A text keeps every character but two kinds. Control characters (C0, DEL and C1; tab and the two
characters of line ends stay) move a terminal's cursor or break a page. A lone surrogate is half of
a character: no file and no other program can hold it.
"""

from __future__ import annotations

import re

_REFUSED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_LONE = re.compile("[\ud800-\udfff]")


def is_readable(text: str) -> bool:
    """Whether `text` holds no control characters and no lone surrogates."""
    return _REFUSED.search(text) is None


def readable(text: str) -> str:
    r"""`text` with control characters and lone surrogates as Python writes them: `\x1b`, `\ud800`.

    All other characters stay as they are, in any script.
    """
    # isascii and isprintable are quick, and true for nearly every text of a bundled world's line
    if text.isascii() and text.isprintable():
        return text
    return _REFUSED.sub(_escaped, text)


def without_lone_surrogates(text: str) -> str:
    r"""`text` with lone surrogates as escapes, `\ud800`: all that UTF-8 cannot hold."""
    return _LONE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]
