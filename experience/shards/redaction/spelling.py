"""Texts as they read once their escapes are undone: one word has many spellings, and a secret is looked for in all.

`fold` undoes the escapes of URLs, JSON, Python, HTML and mail, to some depth and mixed, drops what stands between
characters (blanks, line ends, quotes, commas, signs of joining), and makes letters small. `cover` hides the places in
the text itself. Does not cover: text that was compressed, encrypted or put into other words.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_DEPTH = 4
_HEX = "[0-9a-fA-F]"
_ESCAPE = re.compile(  # each alternative begins with a letter of its own: texts without them are passed over fast
    rf"%u(?P<a>{_HEX}{{4}})|%(?P<b>{_HEX}{{2}})|\\\\{{0,7}}[uU](?P<c>{_HEX}{{4}})|\\\\{{0,7}}u\{{(?P<d>{_HEX}{{1,6}})\}}|"
    rf"\\\\{{0,7}}[xX](?P<e>{_HEX}{{2}})|&#[xX](?P<f>{_HEX}{{1,6}});?|=(?P<g>{_HEX}{{2}})|&#(?P<decimal>\d{{1,7}});?|"
    rf"\\\\{{0,7}}(?P<octal>[0-3]?[0-7]{{2}})|&(?P<name>amp|lt|gt|quot|apos|AMP|LT|GT|QUOT);|\\\\{{0,7}}(?P<itself>[\"'\\/])|"
    rf"\\\\{{0,7}}[nrt\n]|=\r?\n|0[xX](?={_HEX}{{2}})"
)
_SIGNS = ("%", "\\", "&", "=", "0x", "0X")
_NAMES = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
_BETWEEN = " \t\r\n\0,;:\"'`+|-[]()\u200b\u200c\u200d\u2060\u00ad\ufeff"
_DROPPED = str.maketrans("", "", _BETWEEN)


def fold(text: str) -> str:
    """`text` without escapes, what stands between characters, and capitals."""
    for _ in range(_DEPTH):
        if not any(sign in text for sign in _SIGNS):
            break
        before, text = text, _ESCAPE.sub(_meant, text)
        if text == before:
            break
    return text.translate(_DROPPED).lower()


def _meant(found: re.Match[str]) -> str:
    """The character that an escape stands for; nothing for a line end or a number's prefix."""
    kind = found.lastgroup
    if kind is None:
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
            said = _meant(found)
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
