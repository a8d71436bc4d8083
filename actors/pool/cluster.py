"""Checks in seconds that a Ray cluster is at an address; Ray itself tries for a minute or more."""

from __future__ import annotations

import os
import socket

from experience.errors import ConfigError

_SECONDS = 10.0
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How a client of gRPC begins (RFC 9113 §3.4): the preface and an empty SETTINGS frame."""
_SETTINGS = 4
_START = (
    "start one (ray start --head) and give its HOST:6379; address=null starts Ray on this machine"
)


def check_address(address: str, source: str) -> None:
    """Raises ConfigError where no cluster can be joined at `address`, which `source` gave."""
    said = f"{source}: {address}"
    if address.startswith("http"):
        raise ConfigError(
            f"{said} is a dashboard, where jobs are submitted; a run joins a cluster directly",
            "use ./xp submit, or address=auto on a node of the cluster",
        )
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(
            f"{said} is not the address of a cluster", "write HOST:6379, or auto on a node of it"
        )
    try:
        with socket.create_connection(
            (host.strip("[]"), int(port)), timeout=_SECONDS
        ) as connection:
            if not os.environ.get("RAY_USE_TLS") and not _speaks_grpc(connection):
                raise ConfigError(f"{said}: what listens there is no Ray cluster", _START)
    except OSError as error:
        raise ConfigError(
            f"{said}: nobody answers there: {error.strerror or error}", _START
        ) from error


def _speaks_grpc(connection: socket.socket) -> bool:
    """Whether a server of gRPC answers: with a SETTINGS frame, whose type is in its fourth byte."""
    connection.sendall(_PREFACE)
    connection.settimeout(_SECONDS)
    answer = b""
    while len(answer) < 4:
        more = connection.recv(4 - len(answer))
        if not more:
            return False
        answer += more
    return answer[3] == _SETTINGS
