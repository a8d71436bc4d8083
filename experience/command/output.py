"""All output of this process: no secret and no control character reaches a terminal or a log.

Covers what Python writes to stdout and stderr, tracebacks included, and every record of `logging`.
Does not cover what other programs, or code below Python, write to stderr.

stdout belongs to the command: while a verb runs (`own_stdout`), only `emit` writes there. What a
world or a library prints, from Python, from C or from a program that it starts, goes to stderr.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import threading
import traceback
from typing import Any

from experience.command.house import as_called
from experience.shards.redaction.redact import Redactor
from experience.text.strict_json import dumps

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What moves a cursor, rings, colours or turns text around; tabs and line ends stay."""
_MOST_WAITING = 1 << 20


def guard() -> None:
    """Puts this process's output behind the redactor; once is enough."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Guarded):
            setattr(sys, name, Guarded(stream))
    make = logging.getLogRecordFactory()
    if make is not _redacted_record:
        _below.append(make)
        logging.setLogRecordFactory(_redacted_record)


_data: Any = None
"""The command's own stdout, from `own_stdout` on."""


def own_stdout() -> None:
    """Keeps stdout for `emit`: from now on descriptor 1 and `sys.stdout` lead to stderr.

    A second call changes nothing.
    """
    global _data
    if _data is not None:
        return
    if sys.stdout is None or sys.stderr is None:  # closed by whoever started us
        _data = sys.stdout or open(os.devnull, "w")
        return
    sys.stdout.flush()
    try:
        descriptor = sys.stdout.fileno()
    except io.UnsupportedOperation:  # a stream in memory: a notebook's, a test's
        _data = Guarded(sys.stdout)
        sys.stdout = sys.stderr
        return
    kept = os.dup(descriptor)  # not inherited by the programs that a world starts
    os.dup2(sys.stderr.fileno(), descriptor)
    _data = Guarded(open(kept, "w", encoding=sys.stdout.encoding, errors="backslashreplace"))
    sys.stdout = sys.stderr


def release_stdout() -> None:
    """Forgets a stdout kept by `own_stdout`: the next command of this process keeps its own."""
    global _data
    _data = None


def data() -> Any:
    """The stream that a command's data goes to; a world's prints never do."""
    return _data or sys.stdout


def emit(record: Any, end: str = "\n") -> None:
    """Writes to stdout: a text as it is, anything else as one line of JSON."""
    data().write((record if isinstance(record, str) else dumps(record)) + end)
    data().flush()


def say(text: str) -> None:
    """Writes a line to stderr: what a person reads beside the data."""
    print(as_called(text), file=sys.stderr, flush=True)


def plain(text: str) -> str:
    """`text` as it may be shown on a terminal."""
    return _CONTROL.sub("", Redactor.current().text(text).replace("\r\n", "\n"))


def terminal() -> Any:
    """stderr itself, for a caller that draws with control characters.

    The caller must pass every text of others through `plain`.
    """
    return sys.stderr.below if isinstance(sys.stderr, Guarded) else sys.stderr


class Guarded(io.TextIOBase):
    """A text stream in front of another. A line is kept until it is whole, or until `flush`."""

    def __init__(self, below: Any) -> None:
        self.below = below
        self._waiting = ""
        # Collectors, watches and logging write from threads of their own.
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        with self._lock:
            self._waiting += text
            whole, end, rest = self._waiting.rpartition("\n")
            if end or len(rest) > _MOST_WAITING:
                self._waiting = rest if end else ""
                self.below.write(plain(whole + end if end else rest))
        return len(text)

    def flush(self) -> None:
        with self._lock:
            waiting = self._waiting
            self._waiting = ""
            if waiting:
                self.below.write(plain(waiting))
            self.below.flush()

    def reconfigure(self, **how: Any) -> None:
        self.below.reconfigure(**how)

    def fileno(self) -> int:
        return int(self.below.fileno())

    def isatty(self) -> bool:
        return bool(self.below.isatty())

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return str(self.below.encoding)

    @property
    def errors(self) -> str:  # type: ignore[override]
        return str(self.below.errors)

    @property
    def buffer(self) -> _Bytes:
        return _Bytes(self)


class _Bytes(io.BufferedIOBase):
    """The same stream for those who write bytes."""

    def __init__(self, text: Guarded) -> None:
        self._text = text

    def write(self, data: Any) -> int:
        self._text.write(bytes(data).decode(errors="replace"))
        return len(data)

    def flush(self) -> None:
        self._text.flush()

    def fileno(self) -> int:
        return self._text.fileno()

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        self.flush()


_below: list[Any] = []


def _redacted_record(*words: Any, **more: Any) -> logging.LogRecord:
    record: logging.LogRecord = _below[-1](*words, **more)
    redactor = Redactor.current()
    try:
        record.msg = redactor.text(record.getMessage())
        record.args = ()
    # A message that cannot be formatted is reported by logging itself, and must not end a run.
    except Exception:  # noqa: BLE001
        return record
    if record.exc_info and record.exc_info[0]:
        record.exc_text = redactor.text(
            "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        )
    return record
