"""Requests to a model server as plain HTTP: JSON in, JSON or a stream of JSON out."""

from __future__ import annotations

import base64
import http.client
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from actors.engines.servers.passwords import with_password
from experience.errors import EngineError
from experience.shards.redaction.redact import Redactor
from experience.text.strict_json import dumps

_MOST_BYTES = 64 << 20
"""Of one answer: a server that sends more is no model server."""


class Refused(EngineError):
    """The server answered, and what it answered is an error. `status`: the status of HTTP."""

    def __init__(self, what: str, status: int) -> None:
        super().__init__(what, "server.log and the server's own output say more")
        self.status = status


class Connection:
    """Asks one server. Each thread keeps a connection of its own, so that no answer waits for
    another. base_url: the address, with or without `/v1`. timeout_seconds: of each read."""

    def __init__(self, base_url: str, api_key_env: str, timeout_seconds: float) -> None:
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        split = urlsplit(with_password(self.base_url))
        self._path = split.path
        self._address = (split.hostname or "", split.port)
        self._is_secret = split.scheme == "https"
        self._timeout = timeout_seconds
        self._headers = {"content-type": "application/json"}
        key = os.environ.get(api_key_env, "")
        if split.password:
            named = f"{unquote(split.username or '')}:{unquote(split.password)}"
            self._headers["authorization"] = "Basic " + base64.b64encode(named.encode()).decode()
        elif key:
            self._headers["authorization"] = f"Bearer {key}"
        self._own = threading.local()

    def get(self, path: str, timeout_seconds: float | None = None) -> Any:
        """The answer to a question without a body. Raises EngineError as `post` does."""
        return _parsed(self._whole("GET", path, None, timeout_seconds))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The answer as JSON; as text if it is none. Raises Refused if it is an error, and
        EngineError if there is none."""
        return _parsed(self._whole("POST", path, body, None))

    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[Any]:
        """The parts of a streamed answer (server-sent events), as they come. Raises as `post`."""
        answer = self._answer("POST", path, body, None)
        try:
            for line in iter(lambda: answer.readline(_MOST_BYTES), b""):
                said = line.decode().strip().removeprefix("data:").strip()
                if said == "[DONE]":
                    answer.read(_MOST_BYTES)
                    return
                if said:
                    yield json.loads(said)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._failed(error) from None
        raise self._failed(EOFError("the stream ended before its end"))

    def _whole(self, method: str, path: str, body: Any, timeout_seconds: float | None) -> bytes:
        answer = self._answer(method, path, body, timeout_seconds)
        try:
            return bytes(answer.read(_MOST_BYTES))
        except (OSError, http.client.HTTPException) as error:
            raise self._failed(error) from None

    def _answer(
        self, method: str, path: str, body: Any, timeout_seconds: float | None
    ) -> http.client.HTTPResponse:
        sent = None if body is None else dumps(body).encode()
        try:
            line = self._line(timeout_seconds or self._timeout)
            line.request(method, self._path + path, sent, self._headers)
            answer = line.getresponse()
            if answer.status < 400:
                return answer
            said = answer.read(_MOST_BYTES).decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise self._failed(error) from None
        shown = Redactor.current().text(f"{self.base_url}{path}: {answer.status} {said}")
        raise Refused(shown[:400], answer.status)

    def _line(self, timeout_seconds: float) -> http.client.HTTPConnection:
        """This thread's connection, which is made again after an error."""
        line: http.client.HTTPConnection | None = getattr(self._own, "line", None)
        # an idle connection may have been closed by the server at any time
        stale = time.monotonic() - getattr(self._own, "used", 0.0) > 2.0
        if line is None or stale:
            if line is not None:
                line.close()
            kind = http.client.HTTPSConnection if self._is_secret else http.client.HTTPConnection
            line = self._own.line = kind(*self._address, timeout=timeout_seconds)
        self._own.used = time.monotonic()
        line.timeout = timeout_seconds
        if line.sock is not None:  # it has the time limit of the request before
            line.sock.settimeout(timeout_seconds)
        return line

    def _failed(self, error: Exception) -> EngineError:
        line = getattr(self._own, "line", None)
        if line is not None:
            line.close()
            self._own.line = None
        what = f"{self.base_url}: {type(error).__name__}: {error}"
        return EngineError(
            Redactor.current().text(what)[:400], "is the server up, and is this its address?"
        )


def _parsed(said: bytes) -> Any:
    try:
        return json.loads(said)
    except ValueError:
        return said.decode(errors="replace")
