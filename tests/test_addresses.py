"""The address of a cluster that is none is named in seconds, with what to write."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from actors.pool.starting.cluster import check_address
from experience.errors import ConfigError
from tests.conftest import free_port
from tests.test_house import ROOT


@contextmanager
def answering(what: bytes) -> Iterator[str]:
    """A server that reads a little, says `what` to each, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    one, _ = listening.accept()
                except OSError:
                    return
                with one:
                    one.recv(16)
                    one.sendall(what)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("foo", "not the address of a cluster"),
        ("127.0.0.1", "not the address"),
        ("127.0.0.1:99999", "not the address"),
        ("http://127.0.0.1:8265", "is a dashboard"),
        ("no-such-host.invalid:6379", "nobody answers there"),
        ("127.0.0.1:{port}", "nobody answers there"),
        ("ray://127.0.0.1:{port}", "nobody answers there"),
    ],
)
def test_an_address_where_no_cluster_can_be_is_named_at_once(address: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as told:
        check_address(address.format(port=free_port()), "RAY_ADDRESS")
    assert "RAY_ADDRESS" in str(told.value) and told.value.hint


def test_a_server_that_is_no_cluster_is_told_from_one_that_speaks_its_protocol() -> None:
    with (
        answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address,
        pytest.raises(ConfigError, match="no Ray cluster"),
    ):
        check_address(address, "address")
    with answering(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])) as address:
        check_address(address, "address")


def test_a_run_that_cannot_join_its_cluster_ends_with_a_sentence(tmp_path: object) -> None:
    for address, says in (
        (f"127.0.0.1:{free_port()}", "nobody answers there"),
        ("head-node", "not the address"),
    ):
        run = subprocess.run(
            [
                sys.executable,
                "-m",
                "actors",
                "run",
                "workers=1",
                f"address={address}",
                f"runs_dir={tmp_path}",
                "worlds=[{id: 'envs:KeyDoor-v0'}]",
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert run.returncode == 2 and says in run.stderr and "Traceback" not in run.stderr, (
            run.stderr
        )
        assert "address" in run.stderr.splitlines()[-2]


def test_a_job_for_a_dashboard_that_is_not_there_is_not_packed() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "actors",
            "submit",
            "--address",
            f"http://127.0.0.1:{free_port()}",
            "workers=1",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (
        done.returncode == 2
        and "no dashboard answers there" in done.stderr
        and "uploading" not in done.stderr
    )
