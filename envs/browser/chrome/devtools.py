"""The fast path: chromium-headless-shell over its DevTools pipe, without Playwright.

One caged browser a process serves many pages, each in a browser context of its own (see page).
Playwright (see chromium) stays the reference: tests/test_browser.py holds the two against each
other. Covers: no network card, an own uid, Chromium's own sandbox inside. Does not cover: what
chromium does not cover.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from envs.sandbox import confine
from envs.sandbox.limits import BROWSER
from experience.errors import EnvironmentFailure, MissingPartError

# From "--run-all-compositor-stages-before-draw" to "--font-render-hinting": what makes the same
# state give the same pixels.
_FLAGS = (
    "--remote-debugging-pipe",
    "--headless",
    "--disable-gpu",
    "--no-first-run",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--run-all-compositor-stages-before-draw",
    "--disable-threaded-animation",
    "--disable-threaded-scrolling",
    "--disable-checker-imaging",
    "--hide-scrollbars",
    "--font-render-hinting=none",
    "--disable-extensions",
)
_ANSWER_SECONDS = 20.0
_FRAME = "HeadlessExperimental.beginFrame"
# Chromium expects its pipe at descriptors 3 and 4; a place hands on 0 and 1 only.
_PIPE = 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null'


class _Pipe:
    """Messages of JSON to and from a browser: each ends with a zero byte.

    A browser that sends nothing for `_ANSWER_SECONDS` is killed.
    """

    def __init__(self, shell: str, readable: Sequence[Path]) -> None:
        read_end, self._to = os.pipe()
        self._from, write_end = os.pipe()
        try:
            self.process = confine.start(
                ["sh", "-c", _PIPE, "sh", shell, *_FLAGS, "about:blank"],
                readable=readable,
                filtered=False,  # Chromium filters the calls of its own processes
                limits=BROWSER,
                pipes={"stdin": read_end, "stdout": write_end, "stderr": subprocess.DEVNULL},
            )
        finally:
            os.close(read_end)
            os.close(write_end)
        self._unread = b""

    def write(self, message: Mapping[str, Any]) -> None:
        """Raises EnvironmentFailure if the browser has ended."""
        view = memoryview(json.dumps(message).encode() + b"\0")
        try:
            while view:
                view = view[os.write(self._to, view) :]
        except OSError as error:
            raise EnvironmentFailure(f"the browser ended: {error}", "it is started anew") from error

    def read(self) -> dict[str, Any]:
        """The next message. Raises EnvironmentFailure if the browser has ended or is silent."""
        # Most messages are there already: only a wait is worth the thread of a timer.
        if b"\0" not in self._unread:
            watchdog = threading.Timer(_ANSWER_SECONDS, self.process.kill)
            watchdog.start()
            try:
                self._fill()
            finally:
                watchdog.cancel()
        raw, _, self._unread = self._unread.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        return message

    def _fill(self) -> None:
        while b"\0" not in self._unread:
            more = os.read(self._from, 1 << 20)
            if not more:
                self.process.kill()
                raise EnvironmentFailure("the browser ended or fell silent", "it is started anew")
            self._unread += more

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._to)
        os.close(self._from)


class Devtools:
    """A browser behind a pipe. Calls may come from many threads; each waits for its own answer.

    The events of a session are remembered by name until `forget`, so that one which comes before
    `wait_for` is not missed.
    """

    _shared: ClassVar[dict[tuple[str, ...], Devtools]] = {}
    _guard: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    def shared(cls, readable: Sequence[Path] = ()) -> Devtools:
        """This process's browser that may read those directories.

        It is started on first use, and again if it died.
        """
        key = tuple(sorted(map(str, readable)))
        with cls._guard:
            if key not in cls._shared or not cls._shared[key].alive:
                cls._shared[key] = cls(readable)
            return cls._shared[key]

    def __init__(self, readable: Sequence[Path] = ()) -> None:
        """Raises MissingPartError without chromium-headless-shell."""
        shell = os.environ.get("XP_HEADLESS_SHELL") or shutil.which("chromium-headless-shell")
        if shell is None:
            raise MissingPartError(
                "the fast path needs chromium-headless-shell",
                "apt-get install chromium-headless-shell",
            )
        self._pipe = _Pipe(shell, readable)
        self._lock = threading.Lock()
        self._calls = 0
        self._happened: dict[str, set[str]] = {}
        self.send("Browser.getVersion")

    @property
    def alive(self) -> bool:
        return self._pipe.process.poll() is None

    def send(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """The result of one call.

        Raises EnvironmentFailure if the browser answers with an error, is dead or silent.
        """
        with self._lock:
            number = self._write(method, session, parameters)
            answer = self._answer_to(number)
        if "error" in answer:
            raise EnvironmentFailure(
                f"the browser refused {method}: {answer['error'].get('message')}"
            )
        result: dict[str, Any] = answer["result"]
        return result

    def send_while_drawing(self, method: str, session: str, **parameters: Any) -> None:
        """A call that the browser answers only once a frame is drawn, as mouse moves and wheels.

        Frames are drawn one after the other until the answer comes.
        """
        with self._lock:
            mine = self._write(method, session, parameters)
            while True:
                frame = self._write(_FRAME, session, {})
                if self._answer_to(mine, frame)["id"] == mine:
                    return

    def wait_for(self, event: str, session: str) -> None:
        """Waits until `event` has come to `session` since `forget`."""
        with self._lock:
            while event not in self._happened.get(session, ()):
                self._note(self._pipe.read())

    def forget(self, event: str, session: str) -> None:
        with self._lock:
            self._happened.setdefault(session, set()).discard(event)

    def _write(self, method: str, session: str, parameters: Mapping[str, Any]) -> int:
        """Sends a call; returns its number, which its answer will have."""
        self._calls += 1
        message = {"id": self._calls, "method": method, "params": parameters}
        self._pipe.write(message | ({"sessionId": session} if session else {}))
        return self._calls

    def _answer_to(self, *calls: int) -> dict[str, Any]:
        """The first answer to one of these calls. Takes in the events that come before it."""
        while True:
            message = self._pipe.read()
            if message.get("id") in calls:
                return message
            self._note(message)

    def _note(self, message: Mapping[str, Any]) -> None:
        self._happened.setdefault(message.get("sessionId", ""), set()).add(
            message.get("method", "")
        )

    def close(self) -> None:
        self._pipe.close()


@dataclass(frozen=True)
class Session:
    """The calls and events of one page."""

    browser: Devtools
    id: str

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.send(method, self.id, **parameters)

    def send_while_drawing(self, method: str, **parameters: Any) -> None:
        self.browser.send_while_drawing(method, self.id, **parameters)

    def forget(self, event: str) -> None:
        self.browser.forget(event, self.id)

    def wait_for(self, event: str) -> None:
        self.browser.wait_for(event, self.id)
