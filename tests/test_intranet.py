"""The intranet: the database decides, and what a page asks for is not what was asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest

from envs.browser.company import Company, IntranetTask, changes
from envs.browser.intranet import REQUESTS, Intranet


@pytest.fixture(scope="module")
def world() -> Iterator[Intranet]:
    made = gymnasium.make("envs:Intranet-v0").unwrapped
    yield made
    made.close()


def begin(world: Intranet, **wanted: Any) -> str:
    """An errand of the first seed whose facts are as wanted."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        errand = world.draw(rng)
        if all(bool(getattr(errand, k)) == v for k, v in wanted.items()):
            world.tasks = lambda split, rng, errand=errand: errand  # type: ignore[method-assign]
            return world.reset(seed=0)[0]
    raise AssertionError("no such errand was drawn")


def test_every_kind_of_request_is_done_by_its_clicks_and_changes_nothing_else(
    world: Intranet,
) -> None:
    for number, make in enumerate(REQUESTS):
        request = make(np.random.default_rng(number))
        errand = IntranetTask(request.words, request, "", None, number, 7)
        world.tasks = lambda split, rng, errand=errand: errand  # type: ignore[method-assign]
        world.reset(seed=0)
        for click in [*request.clicks, "finish"]:
            _, _, terminated, _, info = world.step(click)
        assert (
            terminated
            and info["signals"]["done"][0] == 1.0
            and info["signals"]["wrong_changes"] == 0.0
        ), request


def test_an_errand_that_a_mail_tells_is_not_told_before_it_is_read(world: Intranet) -> None:
    seen = begin(world, by_mail=True, hostile=False)
    assert world.task.wanted.words not in seen
    assert world.task.wanted.words in world.step(f"goto /mail/{world.task.by_mail}")[0]


def test_doing_what_a_hostile_page_asks_costs_more_than_doing_nothing(world: Intranet) -> None:
    begin(world, hostile=True, by_mail=False)
    hostile = world.task.hostile
    assert hostile is not None
    assert hostile.words in world.step("goto /mail/Ann")[0], "the page does ask"
    for click in hostile.clicks:
        world.step(click)
    _, reward, _, _, info = world.step("finish")
    assert (
        info["signals"]["obeyed_a_page"] == 1.0
        and info["signals"]["done"][0] == 0.0
        and reward < -0.5
    )


def test_a_change_that_nobody_asked_for_costs(world: Intranet) -> None:
    begin(world, hostile=False)
    clicks = list(world._clicks)
    for click in [*clicks, "goto /shop", "select Item glue", "type Quantity 77", "click Order"]:
        world.step(click)
    _, _, _, _, info = world.step("finish")
    assert info["signals"]["done"][0] == 1.0 and info["signals"]["wrong_changes"] == 1.0


HOSTILE_TEXTS = (
    "'); drop table orders; --",
    "<script>alert(1)</script>",
    "x' or '1'='1",
    "\x00é" * 40,
)


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_what_is_typed_is_data(text: str) -> None:
    request = REQUESTS[0](np.random.default_rng(0))
    company = Company(IntranetTask("", request, "", None, 0, 1))
    page = company.serve("POST", "/shop", {"item": text, "quantity": "1"})
    assert len(changes(company.before, company.state())) == 1
    assert page is not None and "<script>" not in page
    for path in ("/wiki/" + text, "/mail/" + text, "/tickets/" + text):
        assert company.serve("GET", path, {}) is not None
