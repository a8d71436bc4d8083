"""The pipetting bench: PyLabRobot's faults, the labels' errors, and the same bench over SiLA 2."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator

import pytest

from envs.lab.deck import FILM_UL, STOCK_UL, TIPS, Hidden, LiquidFault, PyLabRobotBench
from envs.lab.liquid import LiquidLab, steps_to
from envs.lab.mixing import Mix, Wanted, Workbench
from experience.errors import EnvironmentFailure, MissingPartError
from tests.conftest import free_port

EXACT = Hidden(1.0, 0.0, dict.fromkeys(("red", "blue", "water"), 1.0), 0.0)


@pytest.fixture
def bench() -> PyLabRobotBench:
    try:
        return PyLabRobotBench(EXACT)
    except MissingPartError as missing:
        pytest.skip(" ".join(str(missing).split()))


@pytest.fixture
def device() -> Iterator[str]:
    pytest.importorskip("sila2", reason="./xp setup worlds")
    pytest.importorskip("pylabrobot", reason="./xp setup worlds")
    from envs.lab import sila

    logging.getLogger("sila2").setLevel(logging.CRITICAL)
    port = free_port()
    server = sila.server()
    server.start_insecure("127.0.0.1", port, enable_discovery=False)
    yield f"127.0.0.1:{port}"
    server.stop(0.1)


def test_the_bench_refuses_what_cannot_be_done_and_moves_nothing(bench: PyLabRobotBench) -> None:
    with pytest.raises(LiquidFault, match="NoTipError"):
        bench.transfer("red", 1, 50)
    bench.new_tip()
    bench.transfer("red", 1, 200)
    with pytest.raises(LiquidFault, match="TooLittleLiquidError"):
        bench.transfer("red", 2, STOCK_UL - 199)
    with pytest.raises(LiquidFault, match="TooLittleVolumeError"):
        bench.transfer("blue", 1, 101)
    assert bench.wells[1].volume == 0 and bench.stocks["red"].volume == STOCK_UL - 200
    for _ in range(TIPS - 1):
        bench.new_tip()
    with pytest.raises(LiquidFault, match="NoTipError"):
        bench.new_tip()


def test_a_reading_is_beer_and_lamberts_of_what_is_really_in_the_well(
    bench: PyLabRobotBench,
) -> None:
    bench.new_tip()
    bench.transfer("red", 1, 50)
    bench.new_tip()
    bench.transfer("water", 1, 150)
    red = (50 - FILM_UL) / (50 - FILM_UL + 150)  # the first tip took its film along
    assert bench.absorbance(1) == pytest.approx(4.0 * red)


def test_a_used_tip_carries_its_film_into_the_next_stock(bench: PyLabRobotBench) -> None:
    bench.new_tip()
    bench.transfer("red", 1, 100)
    bench.transfer("water", 2, 100)
    assert bench.contaminations == 1 and bench.stocks["water"].parts["red"] > 1
    assert bench.absorbance(2) > 0.02


def test_a_bench_that_went_back_does_the_same_again(bench: PyLabRobotBench) -> None:
    bench.hidden = Hidden(1.05, -1.0, dict.fromkeys(("red", "blue", "water"), 0.95))
    bench.new_tip()
    bench.transfer("red", 1, 60)
    copy = pickle.loads(pickle.dumps(bench))
    for one in (bench, copy):
        one.transfer("red", 1, 30)
    assert [bench.absorbance(1) for _ in range(3)] == [copy.absorbance(1) for _ in range(3)]


def test_a_move_that_failed_is_in_no_mix(bench: PyLabRobotBench) -> None:
    workbench = Workbench(bench)
    with pytest.raises(LiquidFault, match="NoTipError"):
        workbench.pipette("red", 2, 50)
    assert workbench.filled_wells() == []
    with pytest.raises(ValueError, match="nothing is in well 2"):
        workbench.sample(2)
    workbench.new_tip()
    workbench.pipette("red", 2, 50)
    workbench.pipette("red", 2, 30)
    assert workbench.sample(2).recipe == Mix(80, 0, 0)
    assert workbench.sample(2).truth == workbench.judged_absorbance(2) == pytest.approx(4.0)


def test_a_mix_is_worth_its_absorbance_only_with_the_wanted_volume_and_blue() -> None:
    wanted = Wanted(volume=200, blue=20, absorbance=1.1, hidden=0)
    right = Mix(50, 20, 130)
    assert right.label_absorbance == pytest.approx(1.1)
    assert wanted.worth(right, 1.1) == 1.0
    assert wanted.worth(right, 1.155) == pytest.approx(0.5)
    assert wanted.worth(right, 1.3) == 0.0
    assert wanted.worth(Mix(55, 0, 145), 1.1) == wanted.worth(Mix(25, 10, 65), 1.1) == 0.0


def test_the_steps_to_a_mix_leave_out_a_stock_that_it_lacks() -> None:
    assert steps_to(Mix(50, 0, 100)) == [
        "new_tip",
        "prepare water 1 100",
        "new_tip",
        "prepare red 1 50",
        "declare 1",
    ]


def test_the_same_campaign_runs_over_sila_2(device: str) -> None:
    seen = {}
    for name, world in (("here", LiquidLab()), ("device", LiquidLab(instrument=device))):
        world.reset(seed=5)
        steps = [
            world.step(action)
            for action in ("prepare red 1 50", "new_tip", "prepare red 1 50", "measure 1 3.5")
        ]
        seen[name] = [(s[4]["signals"].get("fault"), s[4]["signals"].get("reading")) for s in steps]
        assert "NoTipError" in seen[name][0][0][1]
        _, reward, terminated, _, _ = world.step("declare 1")
        assert terminated and reward == 0.0
    assert seen["device"][3][1][0] == pytest.approx(seen["here"][3][1][0], abs=0.1)
    with pytest.raises(NotImplementedError):
        LiquidLab(instrument=device).snapshot()


def test_an_instrument_that_does_not_answer_is_a_failure_and_never_a_zero(device: str) -> None:
    with pytest.raises(EnvironmentFailure, match="no LiquidBench"):
        LiquidLab(instrument="127.0.0.1:1").reset(seed=0)
    with pytest.raises(ValueError, match="host:port"):
        LiquidLab(instrument="nowhere").reset(seed=0)
