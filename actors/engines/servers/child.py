"""A model server as a child of this process: started, waited for, its log kept, ended with us."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from actors.engines.servers.connection import Connection
from experience.command.output import say
from experience.errors import EngineError

_WATCHED = Path(__file__).with_name("watched.py")
_MOST_STARTS = 3


class ServerChild:
    """Starts `command` when it is first needed, and again if it died.

    command: its words; `{port}` in them stands for the port. log: what the server prints is
    appended to it.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        port: int,
        start_seconds: float,
    ) -> None:
        self._port = port or _free_port()
        self._command = [word.replace("{port}", str(self._port)) for word in command]
        self._environment = {**os.environ, **environment}
        self._log = log
        self._seconds = start_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self._is_closed = False
        self._lock = threading.Lock()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The process that watches over the server; None before the first start."""
        return self._process

    def ensure(self, connection: Connection) -> bool:
        """Waits until the server answers, and starts it if it does not run. True if it was
        started. Raises EngineError with the end of its log if it ends or takes too long."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return False
            if self._is_closed:  # the run ends, while requests are still asked again
                raise EngineError("the model server was ended", "the run is over")
            if self._starts >= _MOST_STARTS:
                raise self._gone(f"it ended {self._starts} times")
            self._starts += 1
            self._log.parent.mkdir(parents=True, exist_ok=True)
            say(f"starting {Path(self._command[0]).name} (some minutes); its log is {self._log}")
            with open(self._log, "ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, str(_WATCHED), *self._command],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                )
            self._wait(self._process, connection)
            return True

    def close(self) -> None:
        """Ends the server for good."""
        self._is_closed = True
        self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()

    def _wait(self, process: subprocess.Popen[bytes], connection: Connection) -> None:
        until = time.monotonic() + self._seconds
        while time.monotonic() < until:
            if process.poll() is not None:
                raise self._gone("it ended before it answered")
            try:
                connection.get("/health", timeout_seconds=5.0)
            except EngineError:
                time.sleep(0.5)
            else:
                return
        self._end()
        raise self._gone(f"it did not answer within {self._seconds:g} s")

    def _gone(self, why: str) -> EngineError:
        end = self._log.read_text(errors="replace")[-600:] if self._log.exists() else ""
        return EngineError(f"the model server: {why}\n{end}", f"the whole log is {self._log}")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
