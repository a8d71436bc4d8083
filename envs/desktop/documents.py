"""Documents as LibreOffice reads and writes them: made here from plain values, judged by
LibreOffice itself elsewhere.

The judge is a second, headless LibreOffice in a place of its own, with macros off and links not
followed. It opens what the agent saved, tells what is in it, and recalculates it with other inputs,
so that a number typed where a formula was asked for is found out. Does not cover: a document that
takes over LibreOffice; it would then judge its own kind.
"""

from __future__ import annotations

import base64
import io
import json
import os
import selectors
import subprocess
import tempfile
import threading
import time
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from xml.sax.saxutils import escape

from envs.sandbox import confine
from envs.sandbox.limits import DESKTOP
from experience.errors import EnvironmentFailure

Cell = str | float
_ANSWER_SECONDS, _START_SECONDS = 20.0, 60.0
_NAMESPACES = " ".join(
    f'xmlns:{short}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
    for short, name in (("office", "office"), ("table", "table"), ("text", "text"))
) + (' xmlns:of="urn:oasis:names:tc:opendocument:xmlns:of:1.2"')
_MEDIA = "application/vnd.oasis.opendocument."


def sheet(rows: Sequence[Sequence[Cell]]) -> bytes:
    """An .ods with those cells from A1 on; an empty string is an empty cell, one from "of:=" on is
    a formula."""
    body = "".join(
        "<table:table-row>" + "".join(map(_cell, row)) + "</table:table-row>" for row in rows
    )
    return _document(
        "spreadsheet",
        f'<office:spreadsheet><table:table table:name="Sheet1">{body}</table:table>'
        "</office:spreadsheet>",
    )


def letter(paragraphs: Sequence[str]) -> bytes:
    """An .odt with those paragraphs."""
    body = "".join(f"<text:p>{escape(p)}</text:p>" for p in paragraphs)
    return _document("text", f"<office:text>{body}</office:text>")


def _cell(value: Cell) -> str:
    if value == "":
        return "<table:table-cell/>"
    if isinstance(value, str) and value.startswith("of:="):
        return f'<table:table-cell table:formula="{escape(value)}"/>'
    if isinstance(value, str):
        return f'<table:table-cell office:value-type="string"><text:p>{escape(value)}</text:p></table:table-cell>'
    return (
        '<table:table-cell office:value-type="float" '
        f'office:value="{value:g}"><text:p>{value:g}</text:p>'
        "</table:table-cell>"
    )


def _document(kind: str, body: str) -> bytes:
    out = io.BytesIO()
    parts = {
        "mimetype": _MEDIA + kind,
        "content.xml": '<?xml version="1.0" encoding="UTF-8"?><office:document-content '
        f"{_NAMESPACES} "
        f'office:version="1.3"><office:body>{body}</office:body></office:document-content>',
        "META-INF/manifest.xml": '<?xml version="1.0" encoding="UTF-8"?><manifest:manifest '
        "xmlns:manifest="
        '"urn:oasis:names:tc:opendocument:xmlns:manifest:1.0" '
        'manifest:version="1.3"><manifest:file-entry'
        f' manifest:full-path="/" manifest:version="1.3" manifest:media-type="{_MEDIA}{kind}"/>'
        '<manifest:file-entry manifest:full-path="content.xml" manifest:media-type="text/xml"/>'
        "</manifest:manifest>",
    }
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in parts.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), text)
    return out.getvalue()


class Judge:
    """A caged LibreOffice that reads documents, started on first use and again if it died.

    Safe from many threads.
    """

    _shared: ClassVar[Judge | None] = None
    _guard: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    def shared(cls) -> Judge:
        with cls._guard:
            if cls._shared is None:
                cls._shared = cls()
            return cls._shared

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""

    def cells(
        self, document: bytes, changed: Mapping[str, float] | None = None
    ) -> dict[str, Cell] | None:
        """Cell -> its value in the first sheet of an .ods, after `changed` cells got those numbers
        and all was calculated anew; None if LibreOffice cannot read the document."""
        found: dict[str, Cell] | None = self._asked(
            {"kind": "cells", "changed": dict(changed or {})}, document
        )
        return found

    def paragraphs(self, document: bytes) -> list[str] | None:
        """The text of an .odt; None if LibreOffice cannot read it."""
        found: list[str] | None = self._asked({"kind": "paragraphs"}, document)
        return found

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _asked(self, question: Mapping[str, Any], document: bytes) -> Any:
        """A document that ends or stalls the judge cannot be read, if the judge then reads a good
        one."""
        with self._lock:
            try:
                return self._ask(question, document)
            except EnvironmentFailure:
                self._stop()
                self._ask({"kind": "paragraphs"}, letter(["well"]))
                return None

    def _ask(self, question: Mapping[str, Any], document: bytes) -> Any:
        process = self._start()
        assert process.stdin is not None
        said = (
            json.dumps({**question, "document": base64.b64encode(document).decode()}).encode()
            + b"\n"
        )
        try:
            view = memoryview(said)
            while view:
                view = view[process.stdin.write(view) :]
        except OSError as gone:
            raise EnvironmentFailure(f"the document judge is gone: {gone}") from gone
        return json.loads(self._line(_ANSWER_SECONDS))["answer"]

    def _line(self, seconds: float) -> bytes:
        assert self._process is not None and self._process.stdout is not None
        until = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(max(until - time.monotonic(), 0)):
                    raise EnvironmentFailure(
                        f"the document judge did not answer within {seconds:g} s"
                    )
                read = os.read(self._process.stdout.fileno(), 1 << 20)
                if not read:
                    raise EnvironmentFailure("the document judge ended; is python3-uno installed?")
                self._rest += read
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        with tempfile.TemporaryFile() as users, tempfile.TemporaryFile() as program:
            users.write(confine.account())
            program.write(_PROGRAM.encode())
            users.seek(0)
            program.seek(0)
            self._process = confine.start(
                [
                    "/usr/bin/python3",
                    "-I",
                    "-c",
                    "import sys; sys.path.append('/usr/lib/python3/dist-packages'); "
                    "exec(open('/judge.py').read())",
                ],
                chdir="/home",
                limits=DESKTOP,
                data={"/etc/passwd": users.fileno(), "/judge.py": program.fileno()},
                pipes={
                    "stdin": subprocess.PIPE,
                    "stdout": subprocess.PIPE,
                    "stderr": subprocess.DEVNULL,
                },
            )
        self._rest = b""
        self._line(_START_SECONDS)
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe:
                    pipe.close()
            self._process.wait()
            self._process = None


_PROGRAM = r"""
import base64, json, subprocess, sys, time
import uno
from com.sun.star.beans import PropertyValue

started = subprocess.Popen(["soffice", "--headless", "--norestore", "--nologo", "--nodefault", "--nolockcheck",
                            "--accept=pipe,name=judge;urp;"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
context = uno.getComponentContext()
resolver = context.ServiceManager.createInstanceWithContext("com.sun.star.bridge.UnoUrlResolver", context)
while True:
    try:
        far = resolver.resolve("uno:pipe,name=judge;urp;StarOffice.ComponentContext")
        break
    except Exception:
        time.sleep(0.05)
desktop = far.ServiceManager.createInstanceWithContext("com.sun.star.frame.Desktop", far)

def opened(data, ending):
    with open("/tmp/judged" + ending, "wb") as file:
        file.write(data)
    filters = {".ods": "calc8", ".odt": "writer8"}
    return desktop.loadComponentFromURL("file:///tmp/judged" + ending, "_blank", 0, tuple(
        PropertyValue(Name=n, Value=v) for n, v in (("Hidden", True), ("MacroExecutionMode", 0), ("UpdateDocMode", 0),
                                                    ("ReadOnly", False), ("FilterName", filters[ending]))))

def cells(sheet):
    cursor = sheet.createCursor()
    cursor.gotoEndOfUsedArea(False)
    found = {}
    for row in range(min(cursor.RangeAddress.EndRow + 1, 200)):
        for column in range(min(cursor.RangeAddress.EndColumn + 1, 26)):
            cell = sheet.getCellByPosition(column, row)
            kind = cell.Type.value
            if kind == "EMPTY":
                continue
            said = "#error" if cell.getError() else cell.Value if (
                kind == "VALUE" or kind == "FORMULA" and cell.FormulaResultType2 == 1) else cell.String
            found[chr(65 + column) + str(row + 1)] = said
    return found

def answer(question):
    document = opened(base64.b64decode(question["document"]), ".ods" if question["kind"] == "cells" else ".odt")
    if document is None:
        return None
    try:
        if question["kind"] == "paragraphs":
            return [p.String for p in document.Text if p.supportsService("com.sun.star.text.Paragraph")]
        sheet = document.Sheets.getByIndex(0)
        for name, value in question["changed"].items():
            sheet.getCellRangeByName(name).Value = value
        document.calculateAll()
        return cells(sheet)
    finally:
        document.close(True)

print("{}", flush=True)
for line in sys.stdin:
    try:
        said = answer(json.loads(line))
    except Exception:
        said = None
    print(json.dumps({"answer": said}), flush=True)
"""
