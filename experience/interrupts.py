"""Signals that wait until what is half done is whole: a row in a journal, rows taken from a catalog.

Python raises KeyboardInterrupt, or what a handler raises, between any two lines of the main thread. Where state is
changed in several steps, that would leave a block with two messages or a row that nobody was given. `install` makes
SIGINT and SIGTERM wait for the end of the outermost `whole` call; a second signal does not wait.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])
_here = threading.local()
_waiting: list[int] = []
_LAST_SECONDS = 2.0


def install() -> None:
    """For the main thread of a program: Ctrl-C ends it with KeyboardInterrupt, SIGTERM with SystemExit(143)."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _came)


def whole(function: Function) -> Function:
    """`function`, in whose calls a signal waits."""

    @functools.wraps(function)
    def guarded(*words: Any, **more: Any) -> Any:
        depth = getattr(_here, "depth", 0)
        _here.depth = depth + 1
        try:
            return function(*words, **more)
        finally:
            _here.depth = depth
            if _waiting and not depth and threading.current_thread() is threading.main_thread():
                _stop(_waiting.pop())

    return guarded  # type: ignore[return-value]


def _came(number: int, _: FrameType | None) -> None:
    if getattr(_here, "depth", 0) and not _waiting:
        _waiting.append(number)
    else:
        _waiting.clear()
        _stop(number)


def _stop(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(143)


def leave(code: object) -> NoReturn:
    """Ends the process with an exit code, as sys.exit takes it, where threads that never end would hold it up for ever:
    those of a world that hangs. What was to be done at exit is done."""
    end = time.monotonic() + _LAST_SECONDS
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(max(end - time.monotonic(), 0))
    if not any(not t.daemon for t in threading.enumerate() if t is not threading.current_thread()):
        sys.exit(code)  # type: ignore[arg-type]
    if not (code is None or isinstance(code, int)):
        print(code, file=sys.stderr)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)
