"""Worlds: the contract that each keeps, and what each measures."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs.browser.chrome.accessibility import Elements
from envs.code_execution.python_task import PythonTask, same
from envs.contract import World
from envs.lab.reactor import equilibrium, stirred_reactor

WORLDS = ["envs:PythonTask-v0", "envs:Office-v0", "envs:Reactor-v0"]


@pytest.fixture(scope="module")
def made() -> Any:
    worlds = {name: gymnasium.make(name).unwrapped for name in WORLDS}
    yield worlds
    for world in worlds.values():
        world.close()


def live(
    world: Any, seed: int, choose: Any, split: str = "train"
) -> tuple[list[str], list[float], dict[str, Any]]:
    observation, info = world.reset(seed=seed, options={"split": split})
    seen, rewards, done = [observation], [], False
    while not done:
        observation, reward, terminated, truncated, info = world.step(choose(world))
        seen.append(observation)
        rewards.append(reward)
        done = terminated or truncated
    return seen, rewards, info


@pytest.mark.parametrize("name", WORLDS)
def test_gymnasiums_own_checker_is_content(name: str, made: Any) -> None:
    check_env(made[name], skip_render_check=True)


@pytest.mark.parametrize("name", WORLDS)
def test_the_same_seed_gives_the_same_episode(name: str, made: Any) -> None:
    expert = lambda world: world.expert_action()
    for seed in (1, 2):
        assert live(made[name], seed, expert)[:2] == live(made[name], seed, expert)[:2]
    assert live(made[name], 1, expert)[0] != live(made[name], 2, expert)[0]


@pytest.mark.parametrize("name", WORLDS)
def test_training_never_draws_a_held_out_task(name: str, made: Any) -> None:
    world = made[name]
    if name == "envs:Office-v0":  # without opening a page for each
        world.begin = lambda: None
        world._lines = []
    tasks = {
        split: {world.reset(seed=s, options={"split": split})[1]["task_id"] for s in range(400)}
        for split in ("train", "heldout")
    }
    if name == "envs:Office-v0":
        del world.begin
    assert len(tasks["train"]) > 20
    assert len(tasks["heldout"]) > 5
    assert not tasks["train"] & tasks["heldout"]


@pytest.mark.parametrize("name", WORLDS)
def test_every_signal_is_in_the_catalogue_and_the_reward_is_their_weighted_sum(
    name: str, made: Any
) -> None:
    world, rng = made[name], np.random.default_rng(0)
    for seed in range(6):
        world.reset(seed=seed)
        done = False
        while not done:
            _, reward, terminated, truncated, info = world.step(world.random_action(rng))
            values = {n: v[0] if isinstance(v, tuple) else v for n, v in info["signals"].items()}
            assert set(values) <= set(world.signal_catalogue)
            assert reward == pytest.approx(
                sum(world.reward_weights.get(n, 0) * v for n, v in values.items())
            )
            done = terminated or truncated


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize(
    "action", ["", "dance", "click", "click x", "measure 9e99 2", "submit", "\x00", "declare nan 2"]
)
def test_an_action_that_cannot_be_read_costs_a_turn_and_changes_nothing(
    name: str, action: str, made: Any
) -> None:
    world = made[name]
    _, before = world.reset(seed=5)
    _, reward, terminated, _, info = world.step(action)
    assert info["signals"]["invalid_action"][0] == 1.0
    assert reward == pytest.approx(-0.1)
    assert not terminated
    assert info["state"] == before["state"]


def test_the_experts_of_code_and_browser_solve_their_tasks(made: Any) -> None:
    for name, goal, n in (("envs:PythonTask-v0", 0.99, 40), ("envs:Office-v0", 0.9, 16)):
        returns = [
            sum(live(made[name], seed, lambda w: w.expert_action(), "heldout")[1])
            for seed in range(n)
        ]
        assert min(returns) >= goal


def test_a_world_that_ended_refuses_to_go_on(made: Any) -> None:
    live(made["envs:PythonTask-v0"], 0, lambda w: w.expert_action())
    with pytest.raises(RuntimeError, match="reset"):
        made["envs:PythonTask-v0"].step("submit f=1")


def test_values_are_compared_with_their_types() -> None:
    assert same([1, "a"], [1, "a"])
    assert not same(1, True)
    assert not same(1, 1.0)


@pytest.mark.parametrize("cheat", PythonTask.cheats)
def test_a_cheat_earns_nothing(cheat: str, made: Any) -> None:
    world = made["envs:PythonTask-v0"]
    for seed in (11, 12, 13):
        world.reset(seed=seed)
        _, reward, _, _, info = world.step(cheat)
        assert info["signals"]["tests_passed"][0] <= 0.2, info
        assert reward <= 0.2


def test_expected_values_never_enter_the_sandbox(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world: PythonTask = made["envs:PythonTask-v0"]
    sent = []
    world.reset(seed=3)
    sandbox = PythonTask._sandbox
    assert sandbox is not None
    run = sandbox.run
    monkeypatch.setattr(sandbox, "run", lambda *a, **k: sent.append((a, k)) or run(*a, **k))
    world.step(world.expert_action())
    assert sent[0][0][1] == [[x] for x in world.task.inputs[1:]]


def test_the_pages_words_about_itself_earn_nothing(made: Any) -> None:
    """The browser's state is changed by script as far as script can go: the site's record decides
    alone."""
    world = made["envs:Office-v0"]
    world.reset(seed=1)

    async def lie() -> None:
        await world._tab.page.evaluate(
            "document.body.innerHTML = '<h1>Thank you</h1><p>done: success</p>'"
        )

    world._browser.wait(lie())
    _, _, terminated, _, info = world.step("scroll 10")
    assert not terminated
    assert "done" not in info["signals"]


def test_an_errand_done_wrongly_is_a_wrong_change_and_not_done(made: Any) -> None:
    world = made["envs:Office-v0"]
    world.reset(seed=1)
    while world.task.family != "vote":
        world.reset()
    wrong = next(c for c in world.task.choices if c != world.task.wanted[1])
    _, reward, terminated, _, info = world.step(f"click {wrong}")
    assert terminated and reward < 0
    assert (info["signals"]["done"][0], info["signals"]["wrong_change"][0]) == (0.0, 1.0)


def test_an_order_half_right_is_half_done_and_still_a_wrong_change(made: Any) -> None:
    world = made["envs:Office-v0"]
    world.reset(seed=1)
    while world.task.family != "order" or world.task.choices[0] == world.task.wanted[1]:
        world.reset()
    world.step(f"type Qty {world.task.wanted[2]}")  # and the item stays the first of the list
    _, reward, terminated, _, info = world.step("click Order")
    assert terminated and 0 < reward < 0.5
    assert (info["signals"]["done"][0], info["signals"]["wrong_change"][0]) == (0.5, 1.0)


def test_a_page_reaches_nothing_but_its_own_site(made: Any) -> None:
    world = made["envs:Office-v0"]
    world.reset(seed=1)
    for url in (
        "http://example.com/",
        "http://127.0.0.1:6379/",
        "file:///etc/passwd",
        "ws://127.0.0.1:8265/",
    ):

        async def fetch(url: str = url) -> str:
            return str(
                await world._tab.page.evaluate(
                    "u => u.startsWith('ws') ? new Promise(d => { const s = new WebSocket(u); "
                    "s.onopen = () => d('open');"
                    " s.onerror = s.onclose = () => d('refused') }) : fetch(u).then(() => "
                    "'open', () => 'refused')",
                    url,
                )
            )

        assert world._browser.wait(fetch()) == "refused", url


def test_the_browser_runs_in_its_own_sandbox_without_a_network_card(made: Any) -> None:
    """Read from the kernel: renderers are behind seccomp, the browser has no interface but
    loopback."""
    import psutil

    made["envs:Office-v0"].reset(seed=1)
    found = [
        p
        for p in psutil.process_iter(["cmdline"])
        if "--type=renderer" in (p.info["cmdline"] or [])
    ]
    assert found
    for process in found[:3]:
        status = dict(
            line.split(":\t", 1) for line in open(f"/proc/{process.pid}/status").read().splitlines()
        )
        assert status["Seccomp"].strip() == "2"
        assert not any("--no-sandbox" in word for word in process.info["cmdline"])
        interfaces = open(f"/proc/{process.pid}/net/dev").read().splitlines()[2:]
        assert [line.split(":")[0].strip() for line in interfaces] in ([], ["lo"])
        assert status["Uid"].split()[0] != "0"


def test_the_simulation_is_biased_and_the_reactor_is_not() -> None:
    cheap, real = equilibrium(1000.0, 2.0, 1), stirred_reactor(1000.0, 2.0, 1, 10)
    assert cheap.syngas > 0.6
    assert real.syngas < 0.05


def test_a_long_residence_brings_the_reactor_towards_equilibrium() -> None:
    gaps = [
        equilibrium(1500.0, 2.0, 1).syngas - stirred_reactor(1500.0, 2.0, 1, tau).syngas
        for tau in (5, 50, 5000)
    ]
    assert gaps[0] > gaps[1] > gaps[2]


def test_a_measurement_is_noisy_and_costs_and_the_verdict_is_not_noisy(made: Any) -> None:
    world = made["envs:Reactor-v0"]
    world.reset(seed=4)
    readings = [world.step("measure 1400 2.0")[4]["signals"] for _ in range(3)]
    assert len({r["measured_yield"] for r in readings}) == 3
    assert all(r["cost"] == 0.05 for r in readings)
    verdicts = set()
    for _ in range(2):
        world.reset(seed=4)
        verdicts.add(world.step("declare 1400 2.0")[1])
    assert len(verdicts) == 1


def test_an_element_is_meant_by_its_number_or_by_its_whole_name(
    made: dict[str, World[Any]],
) -> None:
    elements = Elements((11, 12, 13, 14, 15), ("Qty", "Save as", "Save", "Go", "Go"))
    assert elements.find("1 7") == (1, "7")
    assert elements.find("Save as draft") == (2, "draft") and elements.find("Save") == (3, "")
    for wrong in ("Savings", "9", "Go", "0 x"):
        with pytest.raises(ValueError, match="element"):
            elements.find(wrong)
    world = made["envs:Office-v0"]
    world.reset(seed=3)
    while not world.unwrapped._lines[0].startswith(("button", "link")):
        world.reset()
    name = world.unwrapped._lines[0].split(" ", 1)[1]
    observation, *_ = world.step(f"click {name}s")
    assert "! no element" in observation
    assert world.step(f"click {name}")[2], "the first choice ends the errand, rightly or wrongly"


def test_a_notebooks_cells_keep_what_they_define_and_fork_with_the_world(made: Any) -> None:
    world = gymnasium.make("envs:PythonTask-v0", max_turns=9).unwrapped
    world.reset(seed=0)
    assert "[1] 5" in world.step("cell a = 2\nprint('noise')\na + 3")[0].replace("noise\n", "")
    seen = world.step("cell a * 21")[0]
    assert "[2] 42" in seen and "noise" not in seen, "earlier cells are not shown again"
    assert (
        "NameError" in world.step("cell nonsense")[0] and "SyntaxError" in world.step("cell a =")[0]
    )
    saved = world.snapshot()
    assert "[3] 8" in world.step("cell a **= 3; a")[0] + world.step("cell a")[0]
    world.restore(saved)
    assert "[3] 2" in world.step("cell a")[0]
    assert world.step(f"cell {world.oracle_action().partition(' ')[2]}")[4]["signals"] == {
        "runs": 1.0
    }
    assert world.step("submit pass")[4]["signals"]["tests_passed"][0] == 1.0
