"""Every bundled world keeps what `./xp env check` asks of it."""

from __future__ import annotations

import pytest

import envs
from envs.check import check, checks

_SLOWEST = (
    *("Science-v0", "Repo-v0", "Desktop-v0", "Wiki-v0"),
    *("Intranet-v0", "MiniWoB-v0", "Office-v0", "Coq-v0"),
)
_SLOW = (*_SLOWEST, "Battery-v0", "Materials-v0")
_FAST = [c for c in checks() if c != "resource_envelope"]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", [n for n in envs.WORLDS if n not in envs.STRANGERS])
def test_a_bundled_world_fails_no_check(name: str, request: pytest.FixtureRequest) -> None:
    long = request.config.getoption("--long")
    # their episodes take seconds each
    some = ["observation_schema", "oracle_max"]
    few = 1 if name in _SLOWEST else 3 if name in _SLOW else 6
    results = list(
        check(
            f"envs:{name}",
            episodes=24 if long else few,
            only=some if name in _SLOW and not long else _FAST,
        )
    )
    failed = [f"{r.id}: {r.detail}" for r in results if r.outcome == "FAIL"]
    assert not failed
    assert sum(r.outcome == "PASS" for r in results) >= (2 if name in _SLOW and not long else 13)


@pytest.mark.parametrize(
    "name",
    [
        "PythonTask-v0",
        "Reactor-v0",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("Coach-v0", "Metamath-v0")),
    ],
)
def test_a_broken_reward_is_noticed(name: str) -> None:
    results = [
        r
        for r in check(f"envs:{name}", only=["startup"], with_mutants=True)
        if r.id.startswith("mutant")
    ]
    assert len(results) == 5 and all(r.outcome == "PASS" for r in results), results
