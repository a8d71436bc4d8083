"""Functions that SIGINT and SIGTERM do not interrupt: the signal waits until the call returns.

Python may raise KeyboardInterrupt between any two bytecodes of the main thread. In a function that
changes state in several steps, such as writing a row to a journal, this would leave the state half
changed. `install` makes SIGINT and SIGTERM wait for the end of the outermost call of a function
that is decorated with `whole`. A second signal does not wait.
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
"""How long `leave` waits for threads that may still end by themselves."""


def install() -> None:
    """Installs the handlers; call it in the main thread of a program.

    Then Ctrl-C raises KeyboardInterrupt, and SIGTERM raises SystemExit(143).
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _came)


def whole(function: Function) -> Function:
    """Decorates `function`: a signal that comes during a call waits until the call returns."""

    @functools.wraps(function)
    def guarded(*words: Any, **more: Any) -> Any:
        depth = getattr(_here, "depth", 0)
        _here.depth = depth + 1
        try:
            return function(*words, **more)
        finally:
            _here.depth = depth
            # Python runs signal handlers in the main thread alone, so only its calls may raise.
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
    """Ends the process with `code`, as sys.exit does, even if a thread never ends.

    The thread of a world that hangs would otherwise hold the process up. Exit handlers still run.
    """
    end = time.monotonic() + _LAST_SECONDS
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(max(end - time.monotonic(), 0))
    others = [t for t in threading.enumerate() if t is not threading.current_thread()]
    if all(t.daemon for t in others):
        sys.exit(code)  # type: ignore[arg-type]
    if not (code is None or isinstance(code, int)):
        print(code, file=sys.stderr)
    # os._exit skips what sys.exit would do: the exit handlers (Ray's, coverage's) and the buffers.
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if code is None:
        os._exit(0)
    os._exit(code if isinstance(code, int) else 1)
