"""Judges documents with a LibreOffice of its own, in another place than the agent's desktop.

The judge opens what the agent saved, with macros off and links not followed, and recalculates it
with other inputs. Covers: a number typed where a formula was asked for. Does not cover: a document
that takes over LibreOffice could then answer for the judge.
"""

from __future__ import annotations

import base64
import json
import os
import selectors
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from envs.desktop.office.documents import Cell, letter
from envs.sandbox import confine
from envs.sandbox.limits import DESKTOP
from experience.errors import EnvironmentFailure

_PROGRAM = Path(__file__).with_name("libreoffice_reader.py")
_ANSWER_SECONDS = 20.0
_START_SECONDS = 60.0
# The system's Python, for which python3-uno is built; -I, so that no file in the place is imported.
_COMMAND = (
    "/usr/bin/python3",
    "-I",
    "-c",
    "import sys; sys.path.append('/usr/lib/python3/dist-packages'); exec(open('/judge.py').read())",
)


class Judge:
    """A LibreOffice in a place, started on first use and again if it died.

    Safe from many threads.
    """

    _shared: ClassVar[Judge | None] = None
    _guard: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    def shared(cls) -> Judge:
        """The judge of this process: a LibreOffice is too dear for one a world."""
        with cls._guard:
            if cls._shared is None:
                cls._shared = cls()
            return cls._shared

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""

    def cells(
        self, document: bytes, changed: Mapping[str, float] | None = None
    ) -> dict[str, Cell] | None:
        """The values of the first sheet of an .ods, by cell name; empty cells are left out.

        The cells `changed` first get those numbers, and all is calculated anew. None if LibreOffice
        cannot read the document.
        """
        question = {"kind": "cells", "changed": dict(changed or {})}
        found: dict[str, Cell] | None = self._ask(question, document)
        return found

    def paragraphs(self, document: bytes) -> list[str] | None:
        """The paragraphs of an .odt; None if LibreOffice cannot read it."""
        found: list[str] | None = self._ask({"kind": "paragraphs"}, document)
        return found

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _ask(self, question: Mapping[str, Any], document: bytes) -> Any:
        with self._lock:
            try:
                return self._answer(question, document)
            except EnvironmentFailure:
                # The document may have ended or stalled the judge, or the machine may be at fault.
                # If a new judge reads a good document, it was the document: it cannot be read.
                # Otherwise this raises, and the episode is a failure, not a zero.
                self._stop()
                self._answer({"kind": "paragraphs"}, letter(["well"]))
                return None

    def _answer(self, question: Mapping[str, Any], document: bytes) -> Any:
        process = self._started()
        assert process.stdin is not None
        whole = {**question, "document": base64.b64encode(document).decode()}
        try:
            left = memoryview(json.dumps(whole).encode() + b"\n")
            while left:  # an unbuffered pipe takes only a part of a large write
                left = left[process.stdin.write(left) :]
        except OSError as gone:
            raise EnvironmentFailure(f"the document judge is gone: {gone}") from gone
        return json.loads(self._line(_ANSWER_SECONDS))["answer"]

    def _line(self, seconds: float) -> bytes:
        """The next line that the judge writes."""
        assert self._process is not None and self._process.stdout is not None
        until = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(until - time.monotonic(), 0)):
                    raise EnvironmentFailure(
                        f"the document judge did not answer within {seconds:g} s"
                    )
                read = os.read(self._process.stdout.fileno(), 1 << 20)
                if not read:
                    raise EnvironmentFailure("the document judge ended; is python3-uno installed?")
                self._unread += read
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _started(self) -> subprocess.Popen[bytes]:
        """The running process, started if there is none."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        with tempfile.TemporaryFile() as users, tempfile.TemporaryFile() as program:
            users.write(confine.account())
            program.write(_PROGRAM.read_bytes())
            users.seek(0)
            program.seek(0)
            self._process = confine.start(
                _COMMAND,
                chdir="/home",
                limits=DESKTOP,
                data={"/etc/passwd": users.fileno(), "/judge.py": program.fileno()},
                pipes={
                    "stdin": subprocess.PIPE,
                    "stdout": subprocess.PIPE,
                    "stderr": subprocess.DEVNULL,
                },
            )
        self._unread = b""
        self._line(_START_SECONDS)  # it writes a line once LibreOffice is ready
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe:
                    pipe.close()
            self._process.wait()
            self._process = None
