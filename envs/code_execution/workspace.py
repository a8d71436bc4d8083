"""A workspace: a folder in which somebody else's agent program acts, in a place of its own.

Covers: the program sees the folder, its own environment and the system's programs, read-only but for
the folder; it has no network but a port of loopback, behind which the gateway answers (see
`forward`); memory, processes, files and time are limited; it is dead when `run` returns. What it
leaves is read without following links, and only plain files of limited size. Does not cover: a
kernel vulnerability; what the program tells the gateway.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envs.sandbox import confine
from envs.sandbox.hosted import others_may_read
from envs.sandbox.limits import MIB, Limits
from envs.sandbox.tiers import shared_python
from experience.errors import EnvironmentFailure

WORK = "/workspace"
_FORWARD = Path(__file__).with_name("forward.py")
_FORWARDER = "/tmp/forward.py"
_LIMITS = Limits(memory_bytes=2048 * MIB, processes=256, files=2048, file_bytes=256 * MIB)
_MOST_SAID = 1000
"""Characters of a crashed program's last output that its error holds."""
MOST_FILE_BYTES = 4 * MIB


def run(folder: Path, program: Mapping[str, Any], task: str) -> str:
    """Lets `program` (as experience/world.py says) act in `folder` to its end; its output.

    Raises TimeoutError if it was ended after its time, EnvironmentFailure if it did not end with
    exit code 0, or could not be started.
    """
    argv = [word.replace("{task}", task) for word in program["argv"]]
    readable = [Path(path) for path in (*program["readable"], program["socket"])]
    for path in readable:
        if not path.exists():
            raise EnvironmentFailure(
                f"{path} is not there", "agents: `folder` is the program's own Python environment"
            )
        if not others_may_read(path):
            raise EnvironmentFailure(
                f"{path} lies where no other user may read, and programs do not run as root",
                "put it where others may read, or start as a user",
            )
    seconds = float(program["seconds"])
    with _FORWARD.open("rb") as forward:
        command = [shared_python()[0], "-I", "-S", _FORWARDER, program["socket"]]
        try:
            done = confine.run(
                [*command, str(program["port"]), *argv],
                seconds=seconds,
                readable=readable,
                writable={folder: WORK},
                data={_FORWARDER: forward.fileno()},
                chdir=WORK,
                environment=program["environment"],
                limits=_LIMITS,
            )
        except subprocess.TimeoutExpired as late:
            said = (late.output or b"").decode("utf-8", "replace")[-_MOST_SAID:]
            raise TimeoutError(f"the program was ended after {seconds:g} s: {said}") from None
    said = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        raise EnvironmentFailure(
            f"the program ended with exit code {done.returncode}: {said[-_MOST_SAID:]}"
        )
    return said


def read_left(folder: Path, name: str) -> str:
    """The text of a file that a program has left. Raises ValueError if it is no plain text file."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        *folders, last = name.split("/")
        for part in folders:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        inner = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"{name} is no plain file")
        data = bytearray()
        while more := os.read(descriptor, 1 << 16):
            data += more
            if len(data) > MOST_FILE_BYTES:
                raise ValueError(f"{name} is larger than {MOST_FILE_BYTES >> 20} MiB")
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} cannot be read: {error}") from None
    finally:
        os.close(descriptor)
