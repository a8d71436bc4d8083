"""Texts with their escapes undone, so that a secret is found in every spelling.

`fold` undoes the escapes of URLs, JSON, Python, HTML and mail, to some depth and mixed. It drops
separators (blanks, line ends, quotes, commas, operators), and makes letters small. `cover` hides
the places in the original text. Text that was compressed, encrypted or paraphrased is not found.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection

_DEPTH = 4
_HEX = "[0-9a-fA-F]"
# Each alternative begins with a fixed character, so that a text without it is passed over fast.
_ESCAPE = re.compile(
    rf"%u(?P<a>{_HEX}{{4}})|%(?P<b>{_HEX}{{2}})|"
    rf"\\\\{{0,7}}[uU](?P<c>{_HEX}{{4}})|\\\\{{0,7}}u\{{(?P<d>{_HEX}{{1,6}})\}}|"
    rf"\\\\{{0,7}}[xX](?P<e>{_HEX}{{2}})|&#[xX](?P<f>{_HEX}{{1,6}});?|=(?P<g>{_HEX}{{2}})|"
    rf"&#(?P<decimal>\d{{1,7}});?|\\\\{{0,7}}(?P<octal>[0-3]?[0-7]{{2}})|"
    rf"&(?P<name>amp|lt|gt|quot|apos|AMP|LT|GT|QUOT);|\\\\{{0,7}}(?P<itself>[\"'\\/])|"
    rf"\\\\{{0,7}}[nrt\n]|=\r?\n|0[xX](?={_HEX}{{2}})"
)
_ESCAPES = re.compile("(" + re.sub(r"\(\?P<\w+>", "(?:", _ESCAPE.pattern) + ")")
"""The same as one group: `split` by it gives texts and escapes in turn."""
_SIGNS = ("%", "\\", "&", "=")
_NAMES = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
_BETWEEN = " \t\r\n\0,;:\"'`+|-[]()\u200b\u200c\u200d\u2060\u00ad\ufeff"
_DROPPED = str.maketrans("", "", _BETWEEN)
_DROPPED_ASCII = "".join(filter(str.isascii, _BETWEEN)).encode()
_DROPPED_BEYOND = [c for c in _BETWEEN if not c.isascii()]
_SMALL_ASCII = bytes(range(256)).lower()
_CAPITALS_BEYOND = ("\u212a", "\u0130")
"""Non-ASCII characters whose lower case holds an ASCII letter: the Kelvin sign, I with a dot."""


def fold(text: str) -> str:
    """`text` without escapes, what stands between characters, and capitals."""
    return unescaped(text).translate(_DROPPED).lower()


def squeezed(text: str) -> bytes:
    """`text` in UTF-8 without separators and with ASCII letters small.

    Where an ASCII word stands in `text`, the squeezed word stands in the result. Like `fold`, but
    escapes stay; much faster.
    """
    if not text.isascii():
        if any(c in text for c in _CAPITALS_BEYOND):
            text = text.lower()
        for c in _DROPPED_BEYOND:
            text = text.replace(c, "")
    return text.encode(errors="surrogatepass").translate(_SMALL_ASCII, _DROPPED_ASCII)


def may_be_escaped(text: str) -> bool:
    """False: `unescaped` would return `text` as it is."""
    return any(sign in text for sign in _SIGNS) or (
        "0" in text and (("x" in text and "0x" in text) or ("X" in text and "0X" in text))
    )


def unescaped(text: str) -> str:
    """`text`, its escapes undone to some depth."""
    for _ in range(_DEPTH):
        if not may_be_escaped(text):
            break
        parts = _ESCAPES.split(text)
        if len(parts) == 1:
            break
        parts[1::2] = map(_meaning, parts[1::2])
        text = "".join(parts)
    return text


@functools.lru_cache(1 << 14)
def _meaning(escape: str) -> str:
    """The character that an escape stands for; nothing for a line end or a number's prefix."""
    found = _ESCAPE.fullmatch(escape)
    kind = found and found.lastgroup
    if found is None or kind is None:
        return ""
    said = found[kind]
    if kind == "name":
        return _NAMES[said.lower()]
    if kind == "itself":
        return said
    code = int(said, {"decimal": 10, "octal": 8}.get(kind, 16))
    return chr(code) if 0 < code < 0x110000 else ""


def cover(text: str, folded: Collection[str], mark: str) -> str:
    """`text` with `mark` in place of whatever reads, folded, as one of `folded`."""
    characters, spans = _read(text)
    whole = "".join(characters)
    hidden: list[tuple[int, int]] = []
    for word in folded:
        at = whole.find(word)
        while at >= 0:
            hidden.append((spans[at][0], spans[at + len(word) - 1][1]))
            at = whole.find(word, at + 1)
    kept, end = [], 0
    for first, last in sorted(hidden):
        if first >= end:
            kept += [text[end:first], mark]
        end = max(end, last)
    return "".join([*kept, text[end:]])


def _read(text: str) -> tuple[list[str], list[tuple[int, int]]]:
    """The characters of `fold(text)`, and where in `text` each is spelled."""
    characters, spans = list(text), [(i, i + 1) for i in range(len(text))]
    for _ in range(_DEPTH):
        whole, at = "".join(characters), 0
        characters, then = [], []
        for found in _ESCAPE.finditer(whole):
            said = _meaning(found[0])
            characters += [*whole[at : found.start()], *said]
            then += [
                *spans[at : found.start()],
                *[(spans[found.start()][0], spans[found.end() - 1][1])] * len(said),
            ]
            at = found.end()
        characters += whole[at:]
        spans = then + spans[at:]
    told = [
        (small, span)
        for character, span in zip(characters, spans, strict=True)
        if character not in _BETWEEN
        for small in character.lower()
    ]
    return [character for character, _ in told], [span for _, span in told]
