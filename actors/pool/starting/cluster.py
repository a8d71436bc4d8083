"""Checks in seconds that a Ray cluster is at an address. Ray itself tries for a minute or more."""

from __future__ import annotations

import os
import socket

from experience.errors import ConfigError

_SECONDS = 10.0
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""The first bytes of a gRPC client (RFC 9113 §3.4): the preface and an empty SETTINGS frame."""
_SETTINGS = 4
"""The type of a SETTINGS frame."""
_START = (
    "start one (ray start --head) and give its HOST:6379; address=null starts Ray on this machine"
)


def check_address(address: str, source: str) -> None:
    """Raises ConfigError where no cluster can be joined at `address`.

    source: the key or the variable that gave the address; it opens the error's message.
    """
    place = f"{source}: {address}"
    if address.startswith("http"):
        raise ConfigError(
            f"{place} is a dashboard, where jobs are submitted; a run joins a cluster directly",
            "use ./xp submit, or address=auto on a node of the cluster",
        )
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(
            f"{place} is not the address of a cluster", "write HOST:6379, or auto on a node of it"
        )
    try:
        server = (host.strip("[]"), int(port))
        with socket.create_connection(server, timeout=_SECONDS) as connection:
            # Under TLS the server waits for a handshake first, so only the connection is checked.
            if not os.environ.get("RAY_USE_TLS") and not _speaks_grpc(connection):
                raise ConfigError(f"{place}: what listens there is no Ray cluster", _START)
    except OSError as error:
        raise ConfigError(
            f"{place}: nobody answers there: {error.strerror or error}", _START
        ) from error


def _speaks_grpc(connection: socket.socket) -> bool:
    """Whether a gRPC server answers: its first frame is SETTINGS, and byte 4 is the type."""
    connection.sendall(_PREFACE)
    connection.settimeout(_SECONDS)
    answer = b""
    while len(answer) < 4:
        received = connection.recv(4 - len(answer))
        if not received:  # the server closed the connection
            return False
        answer += received
    return answer[3] == _SETTINGS
