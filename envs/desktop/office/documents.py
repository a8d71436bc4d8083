"""Documents in LibreOffice's format (OpenDocument), made from plain values."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from xml.sax.saxutils import escape

Cell = str | float

_URN = "urn:oasis:names:tc:opendocument:xmlns"
_NAMESPACES = " ".join(
    (
        f'xmlns:office="{_URN}:office:1.0"',
        f'xmlns:table="{_URN}:table:1.0"',
        f'xmlns:text="{_URN}:text:1.0"',
        f'xmlns:of="{_URN}:of:1.2"',
    )
)
_MEDIA = "application/vnd.oasis.opendocument."
_XML = '<?xml version="1.0" encoding="UTF-8"?>'
_MODIFIED = (2026, 1, 1, 0, 0, 0)
"""The same time for all documents, so that equal contents make equal bytes."""


def sheet(rows: Sequence[Sequence[Cell]]) -> bytes:
    """An .ods with those cells from A1 on.

    An empty string is an empty cell; a string that starts with "of:=" is a formula.
    """
    body = "".join(_row(row) for row in rows)
    return _document(
        "spreadsheet",
        f'<office:spreadsheet><table:table table:name="Sheet1">{body}</table:table>'
        "</office:spreadsheet>",
    )


def letter(paragraphs: Sequence[str]) -> bytes:
    """An .odt with those paragraphs."""
    body = "".join(f"<text:p>{escape(p)}</text:p>" for p in paragraphs)
    return _document("text", f"<office:text>{body}</office:text>")


def _row(cells: Sequence[Cell]) -> str:
    return "<table:table-row>" + "".join(map(_cell, cells)) + "</table:table-row>"


def _cell(value: Cell) -> str:
    if value == "":
        return "<table:table-cell/>"
    if isinstance(value, float | int):
        return (
            f'<table:table-cell office:value-type="float" office:value="{value:g}">'
            f"<text:p>{value:g}</text:p></table:table-cell>"
        )
    if value.startswith("of:="):
        return f'<table:table-cell table:formula="{escape(value)}"/>'
    return (
        '<table:table-cell office:value-type="string">'
        f"<text:p>{escape(value)}</text:p></table:table-cell>"
    )


def _document(kind: str, body: str) -> bytes:
    # The order matters: OpenDocument wants `mimetype` as the first member of the archive.
    parts = {
        "mimetype": _MEDIA + kind,
        "content.xml": _content(body),
        "META-INF/manifest.xml": _manifest(_MEDIA + kind),
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in parts.items():
            archive.writestr(zipfile.ZipInfo(name, _MODIFIED), text)
    return out.getvalue()


def _content(body: str) -> str:
    return (
        f'{_XML}<office:document-content {_NAMESPACES} office:version="1.3">'
        f"<office:body>{body}</office:body></office:document-content>"
    )


def _manifest(media: str) -> str:
    return (
        f'{_XML}<manifest:manifest xmlns:manifest="{_URN}:manifest:1.0" manifest:version="1.3">'
        f'<manifest:file-entry manifest:full-path="/" manifest:version="1.3"'
        f' manifest:media-type="{media}"/>'
        '<manifest:file-entry manifest:full-path="content.xml" manifest:media-type="text/xml"/>'
        "</manifest:manifest>"
    )
