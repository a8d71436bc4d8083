"""Serving the app on a thread: on a port of loopback, or on a Unix socket that places are given."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from experience.errors import XpError

_START_SECONDS = 20.0
_STOP_SECONDS = 5.0
_MOST_AT_ONCE = 1024


class Serving:
    """A server of the app, from its making until `close`."""

    def __init__(self, app: ASGIApp, listening: socket.socket) -> None:
        self._socket = listening
        config = uvicorn.Config(
            app,
            log_level="critical",
            access_log=False,  # a URL holds a token
            limit_concurrency=_MOST_AT_ONCE,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=2,
            lifespan="off",
            ws="none",
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([listening],), daemon=True, name="gateway"
        )
        self._thread.start()
        until = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if time.monotonic() > until or not self._thread.is_alive():
                raise XpError("the gateway could not be started", "try another --port")
            time.sleep(0.01)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(_STOP_SECONDS)
        self._socket.close()


def on_port(port: int) -> socket.socket:
    """A socket on a port of loopback; 0 is any free one. Raises XpError if it is taken."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except OSError as error:
        listening.close()
        raise XpError(f"--port {port}: {error.strerror}", "--port 0 takes a free one") from error
    listening.listen(128)
    return listening


class PathSocket:
    """A Unix socket that users of places may connect to, in a folder that only we may list."""

    def __init__(self) -> None:
        among = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
        within = next((p for p in among if _is_passable(p)), among[0])
        self._folder = tempfile.mkdtemp(prefix="xp-gateway-", dir=within)
        os.chmod(self._folder, 0o711)
        self.path = f"{self._folder}/socket"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(self.path)
        os.chmod(self.path, 0o666)
        self.socket.listen(128)

    def close(self) -> None:
        self.socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _is_passable(path: Path) -> bool:
    """Whether other users may pass through a folder to what they know the name of."""
    return path.is_dir() and all(p.stat().st_mode & 0o001 for p in (path, *path.parents))
