"""Runs a command as the leader of a process group that ends with its parent, however that ends.

Called as `python watched.py COMMAND…`: the parent holds the other end of stdin, which closes when
the parent exits or is killed. Covers no command that leaves its process group.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

_GRACE_SECONDS = 10.0


def main(command: list[str]) -> int:
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    while child.poll() is None:
        ready, _, _ = select.select([sys.stdin], [], [], 0.5)
        if ready and not os.read(sys.stdin.fileno(), 1):
            break
    _end(child)
    return child.returncode or 0


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ends the whole group: asks first, for a server has shared memory to give back."""
    for what in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, what)
        until = time.monotonic() + _GRACE_SECONDS
        while child.poll() is None and time.monotonic() < until:
            time.sleep(0.1)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which decides
    sys.exit(main(sys.argv[1:]))
