"""The confined process that has one judge loaded (`host.py` runs in it), and its control line.

Covers what `confine` covers: no network, no environment but `ENVIRONMENT`, no files but Python's,
the system's and those it is given, all read-only. If anything goes wrong on the control line,
the process is ended. Does not cover: one episode's influence on the next; `hosted` forks a child
for each episode.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from envs.sandbox import confine
from envs.sandbox.limits import JUDGE
from envs.sandbox.line import Line, value_of
from envs.sandbox.tiers import shared_python
from experience.errors import EnvironmentFailure, IsolationError, MissingPartError

ENVIRONMENT = {
    # Without it, strings hash differently in each process, and sets have another order: the
    # same seed would give other tasks.
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
"""All environment variables of a judge, beside HOME, PATH and LANG."""
START_SECONDS = 120.0
_HOST = Path(__file__).with_name("host.py")


class JudgeProcess:
    """One confined process and its control line. After any failure the process is ended.

    `readable` starts with the folder of the judge's packages; `arguments` are those of `host.py`.
    """

    def __init__(self, guest: Path, readable: Sequence[Path], arguments: Sequence[str]) -> None:
        self._owner = os.getpid()
        python, prefix = shared_python()
        ours, theirs = socket.socketpair()
        self._control = Line(ours)
        self._stderr = tempfile.TemporaryFile()
        # `-S` leaves site-packages out: only the judge's own folder is imported from.
        program = (
            f"import sys; sys.path.append({str(readable[0])!r}); "
            "exec(compile(open('/host.py').read(), '/host.py', 'exec'))"
        )
        shown = [*readable] if prefix == "/usr" else [*readable, Path(prefix)]
        with theirs, _HOST.open("rb") as host, guest.open("rb") as judge:
            self._process = confine.start(
                [python, "-S", "-P", "-c", program, "/judge.py", *arguments],
                environment=ENVIRONMENT,
                readable=shown,
                data={"/host.py": host.fileno(), "/judge.py": judge.fileno()},
                limits=JUDGE,
                pipes={
                    "stdin": theirs.fileno(),
                    "stdout": subprocess.DEVNULL,
                    "stderr": self._stderr,
                },
            )
        try:
            self._wait_until_ready(guest)
        except BaseException:
            self.close()
            raise

    def _wait_until_ready(self, guest: Path) -> None:
        """Reads two lines: the process runs; its judge is loaded."""
        try:
            self._control.read(START_SECONDS)
        except (OSError, EOFError) as error:
            raise IsolationError(
                f"no place for strangers' code can be built here: {self._last_line() or error}",
                "run ./xp doctor; in a container, allow user namespaces",
            ) from None
        try:
            report = json.loads(self._control.read(START_SECONDS))
        except (OSError, EOFError, ValueError) as error:
            raise EnvironmentFailure(
                f"the judge of {guest.stem} {error}: {self._last_line()}"
            ) from None
        if "missing" in report:
            raise MissingPartError(
                f"the judge of {guest.stem} lacks a package: {report['missing']}",
                "./xp setup worlds",
            )
        if "failed" in report:
            raise EnvironmentFailure(
                f"the judge of {guest.stem} could not begin: {report['failed']}"
            )

    def _last_line(self) -> str:
        """The last line that the process wrote to stderr."""
        self._stderr.seek(0)
        lines = self._stderr.read(1 << 16).decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:300] if lines else ""

    @property
    def alive(self) -> bool:
        """Whether it can be asked. In a fork of the owner it cannot: two would share the line."""
        return self._process.poll() is None and self._owner == os.getpid()

    def ask(self, request: Mapping[str, Any], seconds: float, descriptor: int | None = None) -> Any:
        """The value that answers `request` (see `host.py`).

        Raises ValueError if the judge refuses, EnvironmentFailure otherwise; if the line itself
        failed, the process is ended.
        """
        try:
            line = json.dumps(request).encode() + b"\n"
            return value_of(self._control.ask(line, seconds, descriptor))
        except (OSError, EOFError) as error:
            # A late answer would be taken for the next question's.
            self.close()
            raise EnvironmentFailure(
                f"the strangers' place {error}: {self._last_line()}",
                "it is built anew for the next episode",
            ) from error

    def tell(self, request: Mapping[str, Any]) -> None:
        """Sends a request that has no answer. A process that is gone has no children left."""
        if self._owner == os.getpid():
            with suppress(OSError):
                self._control.tell(json.dumps(request).encode() + b"\n")

    def close(self) -> None:
        self._control.close()
        if self._owner == os.getpid():
            self._process.kill()
            self._process.wait()
