"""The second process of a check: repeats the episodes on stdin, prints their transcripts as JSON.

`--loopback`, in a new network namespace, brings up the loopback device.
`--layer FOLDER …`, in a new mount namespace, mounts an overlay on each folder: the world reads the
folder's files and writes into the overlay. Files that are in an overlay afterwards come from the
world and from no other program. They are printed as `left`; `layered` names the folders that got
an overlay.
"""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium

from envs.episode import replay
from envs.several.seated import from_one_seat

_CACHES = (
    ".cache/fontconfig",
    ".cache/matplotlib",
    ".config/matplotlib",
    ".cache/mesa_shader_cache",
    ".java",
    ".cache/dconf",
    ".pki",
)
"""Folders in a home to which common libraries write, whatever program uses them."""


def main(words: list[str]) -> None:
    if "--loopback" in words:
        _raise_loopback()
        _drop_capabilities()
    if "--layer" in words:
        layers = _mount_overlays([Path(word) for word in words[words.index("--layer") + 1 :]])
        _drop_capabilities()
        child = os.fork()
        if child:  # the overlays are read when the child, which runs the world, has ended
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            left: list[str] = []
            for folder, layer in layers.items():
                left += map(str, _files_left(folder, layer))
            print(json.dumps({"left": sorted(left), "layered": [str(folder) for folder in layers]}))
            sys.exit(code)
    _repeat(json.load(sys.stdin))


def _repeat(request: dict[str, Any]) -> None:
    """Repeats the episodes of `request` and prints their transcripts."""
    answers_to = os.dup(1)  # stdout is for the answer: what a world prints goes to stderr
    os.dup2(2, 1)
    sys.path[:] = request["path"]
    world = from_one_seat(gymnasium.make(request["id"], **request["arguments"]).unwrapped)
    transcripts = [replay(world, log).transcript for log in request["episodes"]]
    world.close()
    with os.fdopen(answers_to, "w") as out:
        out.write(json.dumps({"transcripts": transcripts}) + "\n")


def _mount_overlays(folders: list[Path]) -> dict[Path, Path]:
    """Mounts an overlay on each of `folders` if the kernel can; returns each one's upper folder."""
    # Else the mounts that follow would appear on the machine too.
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    below = _unused_folder([*folders, Path(sys.prefix), Path(sys.base_prefix)])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(below)], check=True)
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    mounted = {Path(line.split()[4]) for line in mounts}
    layers = {}
    for number, folder in enumerate(folders):
        if any(m != folder and m.is_relative_to(folder) for m in mounted):
            continue  # an overlay would hide what is mounted below
        upper = below / f"{number}"
        work = below / f"{number}-work"
        upper.mkdir(mode=0o755)
        work.mkdir()
        about = folder.stat()
        if os.geteuid() == 0:
            os.chown(upper, about.st_uid, about.st_gid)
            upper.chmod(about.st_mode & 0o7777)
        elif os.access(folder, os.W_OK):
            upper.chmod(about.st_mode & 0o7777)
        else:  # the overlay belongs to this user, who could otherwise write where he could not
            upper.chmod(0o555)
        options = f"lowerdir={folder},upperdir={upper},workdir={work}"
        if os.geteuid() != 0:
            options += ",userxattr"  # trusted.* attributes are for root
        done = subprocess.run(
            ["mount", "-t", "overlay", "-o", options, "overlay", str(folder)],
            capture_output=True,
            check=False,
        )
        if not done.returncode:
            layers[folder] = upper
    os.chdir(os.getcwd())  # into the overlay, if there is one on it
    return layers


def _unused_folder(needed: list[Path]) -> Path:
    """A folder that a mount may hide: none of the `needed` ones lies in it."""
    for folder in map(Path, ("/media", "/mnt", "/boot")):
        if folder.is_dir() and not any(path.is_relative_to(folder) for path in needed):
            return folder
    raise OSError("/media, /mnt and /boot are all in use: no folder for overlays is left")


def _files_left(folder: Path, layer: Path) -> list[Path]:
    """Files that were made, changed or removed below `folder`, without the caches of libraries.

    Hidden folders count. A removed file stands in an overlay as a device file of its name.
    """
    home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    found = []
    for path in layer.rglob("*"):
        where = folder / path.relative_to(layer)
        in_a_cache = where.is_relative_to(home) and str(where.relative_to(home)).startswith(_CACHES)
        if in_a_cache or "__pycache__" in where.parts:
            continue
        if path.is_symlink() or not path.is_dir():
            found.append(where)
    return found


def _raise_loopback() -> None:
    """Brings up loopback in a new network namespace: a world may have a server on this machine."""
    import fcntl
    import socket
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        asked = struct.pack("16sh14x", b"lo", 1)  # IFF_UP
        fcntl.ioctl(control, 0x8914, asked)  # SIOCSIFFLAGS


def _drop_capabilities() -> None:
    """Drops all capabilities, unless we are root.

    The user has them only in these namespaces, to set them up. Outside, his worlds have none.
    """
    if os.geteuid() == 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    clear_ambient = 4
    none = (ctypes.c_uint32 * 6)()
    if libc.prctl(47, clear_ambient, 0, 0, 0) or libc.capset(header, none):
        raise OSError(ctypes.get_errno(), "the capabilities of the set-up could not be dropped")


if __name__ == "__main__":
    main(sys.argv[1:])
