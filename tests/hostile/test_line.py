"""The line to a judge: `ask` answers or raises, whatever its other end does."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from envs.sandbox.line import MOST_BYTES, Line, value_of
from experience.errors import EnvironmentFailure


@pytest.fixture
def ends() -> Iterator[tuple[Line, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Line(ours), theirs


def test_an_answer_that_nobody_asked_for_is_never_taken_for_the_next_one(
    ends: tuple[Line, socket.socket],
) -> None:
    line, theirs = ends
    theirs.sendall(b"first\nunasked\n")
    assert line.ask(b"one\n", 5) == b"first"
    with pytest.raises(OSError, match="not asked"):
        line.ask(b"two\n", 5)


def test_an_answer_without_an_end_is_read_to_its_limit_and_no_further(
    ends: tuple[Line, socket.socket],
) -> None:
    line, _ = ends
    line._rest = b"x" * (MOST_BYTES + 1)
    with pytest.raises(OSError, match="more than"):
        line.read(5)


def test_silence_and_a_closed_end_are_told_apart(ends: tuple[Line, socket.socket]) -> None:
    line, theirs = ends
    with pytest.raises(TimeoutError, match="within"):
        line.ask(b"one\n", 0.01)
    assert theirs.recv(10) == b"one\n"
    theirs.close()
    with pytest.raises(EOFError):
        line.read(5)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b'{"refused": "no"}', ValueError),
        (b'{"failed": "broken"}', EnvironmentFailure),
        (b"[1]", OSError),
        (b"no json", OSError),
        (b"[" * 100_000, OSError),
    ],
)
def test_only_a_value_is_a_value(answer: bytes, error: type[Exception]) -> None:
    assert value_of(b'{"value": 0.5}') == 0.5
    with pytest.raises(error):
        value_of(answer)
