"""How each tier starts the zygote of a cage: its command line, and what that command needs.

Covers the four tiers `none`, `landlock`, `namespaces` and `gvisor`; `cage` says what each one
keeps in. This file only builds commands and the folders they read: it starts no process, and
does not decide which tier is used (`cage.tier` does).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.sandbox import seccomp
from envs.sandbox.limits import CAGE, GVISOR, Limits
from experience.errors import IsolationError

TIERS = ("none", "landlock", "namespaces", "gvisor")
"""From the weakest to the strongest. All but `none` keep an attacker in."""

_INSIDE_PYTHON = "/python"
_ZYGOTE = Path(__file__).with_name("zygote.py")
_LIBRARIES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64")
_NOBODY = "65534"


@dataclass(frozen=True)
class Launch:
    """One command that starts a zygote: its words, the descriptors it inherits, its limits.

    `start_seconds` is how long the zygote may take until it answers. `folder` holds files that
    the command reads as long as the cage lives (gVisor's bundle).
    """

    words: Sequence[str]
    descriptors: Sequence[int] = ()
    limits: Limits = CAGE
    start_seconds: float = 20
    folder: tempfile.TemporaryDirectory[str] | None = None


@contextmanager
def launch(tier: str, *, filtered: bool, closed: bool) -> Iterator[Launch]:
    """Yields the command that starts a zygote in `tier`; start it before the context ends.

    `filtered` loads the system-call filters, `closed` applies Landlock. Raises IsolationError if
    a program that the tier needs is not installed.
    """
    root = os.geteuid() == 0
    uid = slot_uid() if root else -1
    if tier == "none":
        zygote = [str(_ZYGOTE), "-1", "", "unfiltered", "none"]
        yield Launch([sys.executable, "-I", "-S", *zygote])
    elif tier == "landlock":
        yield Launch(_landlock_command(_zygote_arguments(uid, filtered), closed))
    elif tier == "gvisor":
        # runsc maps its own users, so the zygote drops to another user even if we are not root.
        arguments = _zygote_arguments(slot_uid(), filtered)
        folder = tempfile.TemporaryDirectory(prefix="xp-gvisor-", ignore_cleanup_errors=True)
        words = _gvisor_command(Path(folder.name), arguments)
        yield Launch(words, limits=GVISOR, start_seconds=60, folder=folder)
    else:
        # bubblewrap reads the filter from a descriptor, to its end.
        with tempfile.TemporaryFile() as program:
            program.write(seccomp.filter_bytes("cage"))
            program.seek(0)
            descriptors = (program.fileno(),) if filtered else ()
            words = _bubblewrap_command(_zygote_arguments(uid, filtered), descriptors)
            yield Launch(words, descriptors)


def slot_uid() -> int:
    """A host uid that no account has. Each process that starts cages gets its own."""
    return 200_000 + os.getpid() % 50_000


def shared_python() -> tuple[str, str]:
    """(a Python that a dropped uid may run, its prefix).

    It is our own Python, or the system's if our own lies in a private folder. Raises
    IsolationError if neither can be run by another user.
    """
    for prefix in (Path(sys.base_prefix), Path("/usr")):
        python = prefix / "bin" / f"python{sysconfig.get_python_version()}"
        if python.exists() and (os.geteuid() != 0 or _others_may_run(python)):
            return str(python), str(prefix)
    raise IsolationError("no Python that another user may run", "install the system's python3")


def _others_may_run(program: Path) -> bool:
    return all(p.stat().st_mode & 0o5 == 5 for p in (program, *program.parents))


def _zygote_arguments(uid: int, filtered: bool) -> list[str]:
    """The zygote's first arguments: its uid (-1: ours), the fork's filter, whether to load it."""
    program = seccomp.filter_bytes("run").hex()
    return [str(uid), program, "filtered" if filtered else "unfiltered"]


# ── landlock


def _landlock_command(arguments: Sequence[str], closed: bool) -> list[str]:
    """The zygote as a plain process that closes itself in with Landlock.

    The zygote makes only the given folders readable. With no folder it does not use Landlock.
    """
    python, prefix = shared_python()
    folders = (*_LIBRARIES, f"{prefix}/bin", f"{prefix}/lib")
    readable = [folder for folder in folders if os.path.isdir(folder)] if closed else []
    return [python, "-I", "-S", str(_ZYGOTE), *arguments, "landlock", *readable]


# ── namespaces


def _bubblewrap_command(arguments: Sequence[str], filter_descriptors: Sequence[int]) -> list[str]:
    """The zygote under bubblewrap: new namespaces, read-only files, no environment."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise IsolationError(
            "bubblewrap (bwrap) is not installed; agent code runs in no weaker place",
            "install it: apt-get install bubblewrap",
        )
    command = [bwrap, "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    command += ["--unshare-cgroup-try", "--die-with-parent", "--new-session", "--clearenv"]
    command += ["--hostname", "cage", "--cap-drop", "ALL"]
    command += _bubblewrap_user()
    command += _bubblewrap_files()
    command += ["--remount-ro", "/", "--chdir", "/"]
    for descriptor in filter_descriptors:
        command += ["--seccomp", str(descriptor)]
    python = f"{_INSIDE_PYTHON}/bin/python{sysconfig.get_python_version()}"
    return [*command, "--", python, "-I", "-S", "/zygote.py", *arguments]


def _bubblewrap_user() -> list[str]:
    """Root keeps the capabilities that the zygote needs to drop its uid; others become nobody."""
    if os.geteuid() != 0:
        return ["--unshare-user", "--disable-userns", "--uid", _NOBODY, "--gid", _NOBODY]
    kept = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")
    return [word for capability in kept for word in ("--cap-add", capability)]


def _bubblewrap_files() -> list[str]:
    """The files that the cage shows, read-only: the system's libraries, Python and the zygote."""
    words = []
    for folder in ("/usr/lib", "/usr/lib64"):
        if os.path.isdir(folder):
            words += ["--ro-bind", folder, folder]
    for link in ("lib", "lib64"):
        if os.path.islink(f"/{link}"):
            words += ["--symlink", f"usr/{link}", f"/{link}"]
        elif os.path.isdir(f"/{link}"):
            words += ["--ro-bind", f"/{link}", f"/{link}"]
    words += ["--perms", "0755", "--dir", _INSIDE_PYTHON]
    for folder in ("bin", "lib"):
        source = Path(sys.base_prefix) / folder
        if folder == "lib" and sys.base_prefix == "/usr":
            words += ["--symlink", "/usr/lib", f"{_INSIDE_PYTHON}/lib"]
        else:
            words += ["--ro-bind", str(source), f"{_INSIDE_PYTHON}/{folder}"]
    return [*words, "--ro-bind", str(_ZYGOTE), "/zygote.py"]


# ── gvisor


def _gvisor_command(folder: Path, arguments: Sequence[str]) -> list[str]:
    """The zygote under gVisor. Writes its OCI bundle (root, config.json) into `folder`."""
    runsc = shutil.which("runsc")
    if runsc is None:
        raise IsolationError("gVisor (runsc) is not installed", "install it: apt-get install runsc")
    python, prefix = shared_python()
    root = folder / "root"
    mounts = _gvisor_files(root, prefix)
    shutil.copy(_ZYGOTE, root / "zygote.py")
    inside = f"{_INSIDE_PYTHON}/bin/{Path(python).name}"
    words = [inside, "-I", "-S", "/zygote.py", *arguments, "gvisor"]
    (folder / "config.json").write_text(json.dumps(_oci_config(root, mounts, words)))
    for path in (folder, root):
        path.chmod(0o755)
    command = [runsc, f"--root={folder / 'state'}", "--network=none", "--platform=ptrace"]
    command += ["--ignore-cgroups"]
    if os.geteuid():
        command += ["--rootless"]
    return [*command, "run", f"--bundle={folder}", f"cage-{os.getpid()}-{folder.name}"]


def _gvisor_files(root: Path, prefix: str) -> list[dict[str, Any]]:
    """The read-only mounts of a bundle; makes their mount points below `root`.

    Everything is there twice, below / and below /cage: gVisor puts /proc, /dev, /sys and /tmp
    of its own into the root, and the zygote moves from there to /cage, where they are not.
    """
    sources = {p: p for p in _LIBRARIES if os.path.isdir(p) and not os.path.islink(p)}
    sources |= {f"{_INSIDE_PYTHON}/{part}": f"{prefix}/{part}" for part in ("bin", "lib")}
    mounts: list[dict[str, Any]] = []
    for base in ("", "/cage"):
        for inside, source in sources.items():
            destination = base + inside
            (root / destination[1:]).mkdir(parents=True, exist_ok=True)
            mount = {"destination": destination, "type": "bind", "source": source}
            mounts.append({**mount, "options": ["ro", "rbind"]})
        for link in ("lib", "lib64"):
            if os.path.islink(f"/{link}"):
                (root / base[1:] / link).symlink_to(f"usr/{link}")
    return mounts


def _oci_config(root: Path, mounts: list[dict[str, Any]], words: list[str]) -> dict[str, Any]:
    """The bundle's config.json, in the terms of the OCI runtime specification."""
    needed = ["CAP_SYS_CHROOT", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"]
    namespaces = ("pid", "ipc", "uts", "mount", "network")
    return {
        "ociVersion": "1.0.0",
        "hostname": "cage",
        "root": {"path": str(root), "readonly": True},
        "mounts": mounts,
        "process": {
            "terminal": False,
            "cwd": "/",
            "env": [],
            "user": {"uid": 0, "gid": 0},
            "noNewPrivileges": True,
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), needed),
            "args": words,
        },
        "linux": {"namespaces": [{"type": name} for name in namespaces]},
    }
