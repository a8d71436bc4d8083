"""A Ray that a run starts on this machine is reached from this machine only, and its files by its
user only."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
_LISTENING = """
import json, os, stat, sys, time
{start}
import psutil
@ray.remote
class Actor:
    def pid(self): return os.getpid()
actor = Actor.remote()
ray.get(actor.pid.remote())
time.sleep(3)  # its agents begin to listen some time after
me = psutil.Process()
heard = [(" ".join(p.cmdline())[:80], c.laddr.ip, c.laddr.port) for p in [me, *me.children(recursive=True)]
         for c in p.net_connections("inet") if c.status == "LISTEN" or c.type == 2]
folder = ray._private.worker._global_node.get_session_dir_path()
token = os.stat(os.path.expanduser("~/.ray/auth_token")).st_mode & 0o777
print(json.dumps({{"heard": heard, "folder": folder, "token": token}}), flush=True)
sys.stdin.read()
"""
_OURS = "from actors.pool.starting.ray_start import start_ray\nray = start_ray(None)"
_PLAIN = "import ray\nray.init(address='local', include_dashboard=False, num_cpus=1, log_to_driver=False)"


class Started:
    """A program with a Ray of its own, kept going while it is looked at."""

    def __init__(self, start: str, home: Path) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _LISTENING.format(start=start)],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment | {"HOME": str(home), "RAY_AUTH_MODE": "token"},
        )
        assert self.process.stdout is not None
        self.told: dict[str, Any] = json.loads(self.process.stdout.readline())

    def outside(self) -> list[tuple[str, str, int]]:
        """What listens on an address that other machines can reach."""
        return [(who, ip, port) for who, ip, port in self.told["heard"] if not _is_loopback(ip)]

    def end(self) -> None:
        self.process.communicate(timeout=300)


def _is_loopback(ip: str) -> bool:
    address = ipaddress.ip_address(ip)
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def test_every_server_of_our_ray_listens_on_loopback_and_its_files_are_closed(
    tmp_path: Path,
) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0123456789abcdef" * 4)
    (tmp_path / ".ray" / "auth_token").chmod(0o644)
    ours = Started(_OURS, tmp_path)
    try:
        assert len(ours.told["heard"]) >= 5
        assert ours.outside() == []
        assert ours.told["token"] == 0o600
        if os.geteuid() == 0:
            peek = [
                "setpriv",
                "--reuid",
                "12345",
                "--regid",
                "12345",
                "--clear-groups",
                "ls",
                ours.told["folder"],
            ]
            assert subprocess.run(peek, capture_output=True, check=False).returncode != 0
            assert (
                subprocess.run(
                    ["ls", ours.told["folder"]], capture_output=True, check=False
                ).returncode
                == 0
            )
    finally:
        ours.end()


@pytest.mark.long
def test_the_same_look_finds_a_plain_ray_on_all_interfaces(tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0123456789abcdef" * 4)
    plain = Started(_PLAIN, tmp_path)
    try:
        assert plain.outside()
    finally:
        plain.end()
