"""Questions and answers on a socket, one line of JSON each, with a deadline and a length limit.

Covers: an other end that hangs, closes, writes too much, writes without being asked, or writes no
JSON. Does not cover: whether an answer is true.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from experience.errors import EnvironmentFailure

MOST_BYTES = 1 << 20
"""The longest line that is read or sent."""
TELL_SECONDS = 120.0


class Line:
    """One end of a socket on which each line sent gets one line back."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._rest = b""

    def ask(self, question: bytes, seconds: float, descriptor: int | None = None) -> bytes:
        """Sends `question` and returns the line that answers it.

        `descriptor` is a file descriptor that the other end gets too. Raises TimeoutError,
        EOFError or another OSError.
        """
        if self._rest:
            # Taken as this question's answer, it would put every later answer one too late.
            raise OSError("answered what it was not asked")
        self._channel.settimeout(seconds)  # an other end that reads nothing blocks the sending too
        if descriptor is None:
            self._channel.sendall(question)
        else:
            socket.send_fds(self._channel, [question], [descriptor])
        return self.read(seconds)

    def tell(self, message: bytes) -> None:
        """Sends a message that has no answer. Raises OSError."""
        self._channel.settimeout(TELL_SECONDS)
        self._channel.sendall(message)

    def read(self, seconds: float) -> bytes:
        """The next line. Raises TimeoutError, EOFError or another OSError."""
        until = time.monotonic() + seconds
        while b"\n" not in self._rest:
            if len(self._rest) > MOST_BYTES:
                raise OSError(f"answered more than {MOST_BYTES} bytes")
            self._channel.settimeout(max(until - time.monotonic(), 0.001))
            try:
                more = self._channel.recv(1 << 16)
            except TimeoutError:
                raise TimeoutError(f"did not answer within {seconds:g} s") from None
            if not more:
                raise EOFError("ended without an answer")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def close(self) -> None:
        self._channel.close()


def value_of(line: bytes) -> Any:
    """The value in an answer of a judge.

    Raises ValueError if the judge refused, EnvironmentFailure if it failed, OSError for nonsense.
    """
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        raise OSError("answered what is no line of JSON") from None
    if isinstance(answer, dict) and "value" in answer:
        return answer["value"]
    if isinstance(answer, dict) and "refused" in answer:
        raise ValueError(str(answer["refused"]))
    if isinstance(answer, dict) and "failed" in answer:
        raise EnvironmentFailure(f"the judge failed: {answer['failed']}")
    raise OSError("answered neither value nor refusal")
