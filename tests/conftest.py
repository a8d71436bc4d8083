"""Shared by all rooms' tests: the --long switch, and small real objects."""

from __future__ import annotations

import socket
import uuid

import numpy as np
import pytest

from experience.policy import Decision, VersionSpan
from experience.signal import Signal, SignalKind
from experience.step import Boundary, Step

CATALOGUE = {"done": SignalKind("fraction", "env_state"), "cost": SignalKind("count", "env_state")}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also the tests that take long")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes long; runs only with --long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        for item in items:
            if "long" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="runs with --long"))


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_step(t: int, stream: bytes = b"s" * 16, *, rng: np.random.Generator | None = None, closing: bool = False,
              **changes: object) -> Step:
    """A step as an engine and a world would make it, with tokens of varying number."""
    rng = rng or np.random.default_rng(t)
    prompt = np.concatenate([np.arange(5, dtype=np.int32), rng.integers(0, 256, rng.integers(1, 60)).astype(np.int32)])
    action = rng.integers(0, 256, rng.integers(1, 20)).astype(np.int32)
    decision = None if closing else Decision(
        "press 1", 3, prompt, action, rng.normal(-1, 0.1, len(action)).astype(np.float32),
        (VersionSpan(3, len(action)),), token_exact=True, decoder="temperature=1", behaviour_id="small")
    fields: dict[str, object] = dict(
        stream_id=stream, t=t, env_id="envs:Test-v0", obs_text=f"page {t} — ünïcode", decision=decision,
        work_id=uuid.UUID(int=t).bytes,
        signals=() if closing else (Signal("done", 0.5, "fraction", "env_state", "db"),),
        reward=None if closing else 0.25 * t,
        reward_version="linear-1", boundary=Boundary.RESET if t == 0 else Boundary.NONE)
    return Step(**(fields | changes))  # type: ignore[arg-type]
