# mypy: ignore-errors
"""The program of the document judge: reads documents with LibreOffice over its bridge UNO.

It runs in a place of its own, with the system's Python, which has the module `uno`; nothing of this
project is there. A line of stdin is a question in JSON (`kind`, `document` in base64, `changed`
cells); a line of stdout is its answer, null for a document that cannot be read.
"""

import base64
import json
import subprocess
import sys
import time

import uno
from com.sun.star.beans import PropertyValue

_FILTERS = {".ods": "calc8", ".odt": "writer8"}
_MOST_ROWS = 200
_MOST_COLUMNS = 26
_NO_MACROS = 0
_NO_LINK_UPDATES = 0
_NUMBER = 1
"""com.sun.star.sheet.FormulaResult.VALUE: a formula gave a number, not a text."""


def start():
    """Starts LibreOffice without a display; returns its desktop service."""
    subprocess.Popen(
        [
            "soffice",
            "--headless",
            "--norestore",
            "--nologo",
            "--nodefault",
            "--nolockcheck",
            "--accept=pipe,name=judge;urp;",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    context = uno.getComponentContext()
    resolver = context.ServiceManager.createInstanceWithContext(
        "com.sun.star.bridge.UnoUrlResolver", context
    )
    while True:
        try:
            office = resolver.resolve("uno:pipe,name=judge;urp;StarOffice.ComponentContext")
            break
        except Exception:  # noqa: BLE001 (UNO raises several while LibreOffice starts)
            time.sleep(0.05)
    return office.ServiceManager.createInstanceWithContext("com.sun.star.frame.Desktop", office)


def opened(desktop, data, ending):
    path = "/tmp/judged" + ending
    with open(path, "wb") as file:
        file.write(data)
    # The filter is named, so that LibreOffice does not take another one by the file's contents.
    properties = {
        "Hidden": True,
        "MacroExecutionMode": _NO_MACROS,
        "UpdateDocMode": _NO_LINK_UPDATES,
        "ReadOnly": False,
        "FilterName": _FILTERS[ending],
    }
    arguments = tuple(PropertyValue(Name=n, Value=v) for n, v in properties.items())
    return desktop.loadComponentFromURL("file://" + path, "_blank", 0, arguments)


def value_of(cell):
    kind = cell.Type.value
    if cell.getError():
        return "#error"
    if kind == "VALUE" or (kind == "FORMULA" and cell.FormulaResultType2 == _NUMBER):
        return cell.Value
    return cell.String


def cells(sheet):
    """Cell name -> its value, for the cells in use."""
    cursor = sheet.createCursor()
    cursor.gotoEndOfUsedArea(False)
    found = {}
    for row in range(min(cursor.RangeAddress.EndRow + 1, _MOST_ROWS)):
        for column in range(min(cursor.RangeAddress.EndColumn + 1, _MOST_COLUMNS)):
            cell = sheet.getCellByPosition(column, row)
            if cell.Type.value != "EMPTY":
                found[chr(ord("A") + column) + str(row + 1)] = value_of(cell)
    return found


def paragraphs(text):
    # A text also holds tables, which are no paragraphs.
    return [p.String for p in text if p.supportsService("com.sun.star.text.Paragraph")]


def answer(desktop, question):
    ending = ".ods" if question["kind"] == "cells" else ".odt"
    document = opened(desktop, base64.b64decode(question["document"]), ending)
    if document is None:
        return None
    try:
        if question["kind"] == "paragraphs":
            return paragraphs(document.Text)
        sheet = document.Sheets.getByIndex(0)
        for name, value in question["changed"].items():
            sheet.getCellRangeByName(name).Value = value
        document.calculateAll()
        return cells(sheet)
    finally:
        document.close(True)


def main():
    desktop = start()
    print("{}", flush=True)  # the judge may now be asked
    for line in sys.stdin:
        try:
            found = answer(desktop, json.loads(line))
        except Exception:  # noqa: BLE001 (an agent's document may make LibreOffice raise anything)
            found = None
        print(json.dumps({"answer": found}), flush=True)


main()
