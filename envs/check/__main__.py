"""The second process of a check: lives the episodes on stdin again and prints, as JSON, what they told.

`--loopback` raises the loopback device of a new network namespace. `--layer FOLDER …`, in a new mount namespace, puts a
layer over each folder: the world reads what stands there and writes into the layer, whatever other programs do there
meanwhile. What is in a layer afterwards, the world left behind: `left`; `layered` are the folders that got one.
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

_CACHES = (
    ".cache/fontconfig",
    ".cache/matplotlib",
    ".config/matplotlib",
    ".cache/mesa_shader_cache",
    ".java",
    ".cache/dconf",
    ".pki",
)
"""What libraries of others keep in a home, whoever uses them."""


def main(words: list[str]) -> None:
    if "--loopback" in words:
        _raise_loopback()
        _drop_capabilities()
    if "--layer" in words:
        layers = _lay([Path(word) for word in words[words.index("--layer") + 1 :]])
        _drop_capabilities()
        child = os.fork()
        if child:  # what the child leaves is looked at when it has ended
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            left = sorted(
                str(path) for place, layer in layers.items() for path in _left(place, layer)
            )
            print(json.dumps({"left": left, "layered": [str(place) for place in layers]}))
            sys.exit(code)
    _live_again(json.load(sys.stdin))


def _live_again(request: dict[str, Any]) -> None:
    answers_to = os.dup(1)  # what a world prints goes to stderr
    os.dup2(2, 1)
    sys.path[:] = request["path"]
    world = gymnasium.make(request["id"], **request["arguments"]).unwrapped
    told = [replay(world, log).told for log in request["episodes"]]
    world.close()
    with os.fdopen(answers_to, "w") as out:
        out.write(json.dumps({"told": told}) + "\n")


def _lay(places: list[Path]) -> dict[Path, Path]:
    """Mounts a layer over each of `places` where the kernel can, and gives where each layer's files are."""
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    needed = [*places, Path(sys.prefix), Path(sys.base_prefix)]
    below = next(
        p
        for p in map(Path, ("/media", "/mnt", "/boot"))
        if p.is_dir() and not any(n.is_relative_to(p) for n in needed)
    )
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(below)], check=True)
    mounted = {
        Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines()
    }
    layers = {}
    for number, place in enumerate(places):
        if any(m != place and m.is_relative_to(place) for m in mounted):
            continue  # a layer would hide what is mounted below
        upper, work = below / f"{number}", below / f"{number}-work"
        upper.mkdir(mode=0o755)
        work.mkdir()
        about = place.stat()
        if os.geteuid() == 0:
            os.chown(upper, about.st_uid, about.st_gid)
            upper.chmod(about.st_mode & 0o7777)
        else:  # the layer is this user's, who may write into it what may be written below it
            upper.chmod(about.st_mode & 0o7777 if os.access(place, os.W_OK) else 0o555)
        what = f"lowerdir={place},upperdir={upper},workdir={work}" + ",userxattr" * (
            os.geteuid() != 0
        )
        done = subprocess.run(
            ["mount", "-t", "overlay", "-o", what, "overlay", str(place)],
            capture_output=True,
            check=False,
        )
        if not done.returncode:
            layers[place] = upper
    os.chdir(os.getcwd())  # into the layer, if there is one over it
    return layers


def _left(place: Path, layer: Path) -> list[Path]:
    """What came, changed or went below `place`, hidden folders included, less the caches that libraries keep."""
    home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    found = []
    for path in layer.rglob("*"):
        where = place / path.relative_to(layer)
        in_a_cache = where.is_relative_to(home) and str(where.relative_to(home)).startswith(_CACHES)
        if (
            not in_a_cache
            and "__pycache__" not in where.parts
            and (path.is_symlink() or not path.is_dir())
        ):
            found.append(where)
    return found


def _raise_loopback() -> None:
    """In a new network namespace: a world's own server may be on this machine, as long as no network is."""
    import fcntl
    import socket
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        asked = struct.pack("16sh14x", b"lo", 1)  # IFF_UP
        fcntl.ioctl(control, 0x8914, asked)  # SIOCSIFFLAGS


def _drop_capabilities() -> None:
    """A user who is not root had them in these namespaces only to set them up; his worlds have none at home."""
    if os.geteuid() == 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    clear_ambient, none = 4, (ctypes.c_uint32 * 6)()
    if libc.prctl(47, clear_ambient, 0, 0, 0) or libc.capset(header, none):
        raise OSError(ctypes.get_errno(), "the capabilities of the set-up could not be dropped")


if __name__ == "__main__":
    main(sys.argv[1:])
