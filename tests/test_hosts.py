"""Whatever a world does in its process ends that episode alone, and leaves nothing behind."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actors.collecting.hosts.housing import is_isolated
from actors.collecting.hosts.mailbox import Mailbox
from actors.collecting.hosts.messages import Act, Failed, Open, Opened, Reset, Wants
from actors.collecting.hosts.process import HostProcesses, ProcessHost
from actors.collecting.work import Work
from actors.config.acting import World
from actors.config.schema import load
from experience.shards.catalog import Catalog
from experience.step import Step
from tests.alone import SMALLEST_POLICY, Alone

WORLD = "tests.strange_world:Strange-v0"
ROOT = Path(__file__).resolve().parent.parent


def collector(folder: Path, how: str, *settings: str) -> Alone:
    arguments = f"{{how: '{how}', mark: '{folder / 'mark'}'}}"
    config = load(
        [],
        [
            f"worlds=[{{id: '{WORLD}', groups: 1, demonstrations: 0, arguments: {arguments}}}]",
            *SMALLEST_POLICY,
            "collecting.slots=2",
            "collecting.group_size=2",
            "collecting.step_timeout_seconds=1",
            *settings,
        ],
    )[0]
    return Alone(config, folder / "shards")


def is_alive(process: int) -> bool:
    """Whether it runs: one that has ended may wait for somebody to take note of it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def works(*seeds: int) -> list[Work]:
    return [
        Work.named(f"{n}", env_id=WORLD, lane="random", seed=seed, split="heldout")
        for n, seed in enumerate(seeds)
    ]


def lived(folder: Path, how: str, *seeds: int) -> dict[int, Step]:
    """Seed -> closing row of the episode."""
    one = collector(folder, how)
    one.order(works(*seeds))
    deadline = time.monotonic() + 120
    while not one.is_done:
        assert time.monotonic() < deadline
        one.pump()
    one.close()
    rows = [row for block in Catalog(folder / "shards").follow() for row in block]
    return {row.seed: row for row in rows if row.is_closing}


@pytest.mark.parametrize(
    ("how", "ending", "says"),
    [
        ("hang", "timeout", "no answer in 1 s"),
        ("exit", "env_error", "SystemExit: 3"),
        ("exit at once", "env_error", "exited with 3"),
        ("crash", "env_error", "SIGSEGV"),
        ("descriptors", "env_error", "exited with"),
    ],
)
def test_what_a_world_does_to_its_process_ends_that_episode_alone(
    how: str, ending: str, says: str, tmp_path: Path
) -> None:
    found = lived(tmp_path, how, 2, 1, 4, 3, 6, 8)
    assert {seed: row.ending for seed, row in found.items()} == {
        seed: ending if seed % 2 else "terminated" for seed in (1, 2, 3, 4, 6, 8)
    }
    assert all(says in found[seed].info["error"] for seed in (1, 3))


@pytest.mark.parametrize(
    "how", ["folder", "seed", "print", "clock", "main thread", "thread", "close", "child"]
)
def test_what_a_world_does_inside_its_process_changes_nothing_here(
    how: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    random.seed(5)
    before = (os.getcwd(), random.getstate(), time.time())
    found = lived(tmp_path, how, 1, 2, 3)
    assert {row.ending for row in found.values()} == {"terminated"}
    assert (os.getcwd(), random.getstate()) == before[:2] and time.time() > before[2]
    assert "a line of the world" not in capfd.readouterr().out
    assert all(row.t_end_ns > 10**18 for row in found.values()), "the collector's clock"
    if how == "print":
        assert "a line of the world" in (tmp_path / "logs" / "worlds.log").read_text()


@pytest.mark.parametrize("how", ["child", "daemon"])
def test_processes_that_a_world_started_end_with_its_host(how: str, tmp_path: Path) -> None:
    lived(tmp_path, how, 1, 2, 3)
    started = [int(line) for line in (tmp_path / "mark").read_text().split()]
    assert len(started) == 2
    deadline = time.monotonic() + 10
    while any(is_alive(process) for process in started):
        assert time.monotonic() < deadline, "the world's processes outlive it"
        time.sleep(0.05)


def hosted(how: str = "none") -> tuple[Mailbox, HostProcesses, ProcessHost]:
    mailbox = Mailbox()
    processes = HostProcesses(mailbox)
    host = processes.fork(WORLD, {"how": how}, None, lambda *reply: mailbox.put(reply))
    host.send(1, Open())
    (found,) = first(mailbox)
    assert isinstance(found[1], Opened)
    return mailbox, processes, host


def first(mailbox: Mailbox) -> list[tuple[int, object]]:
    deadline = time.monotonic() + 60
    while not (found := mailbox.take(1.0)):
        assert time.monotonic() < deadline
    return found


def test_a_host_that_is_killed_from_outside_fails_the_call_that_it_had(tmp_path: Path) -> None:
    mailbox, processes, host = hosted("hang")
    host.send(2, Reset(1, "train", Wants()))
    first(mailbox)
    host.send(3, Act("left", Wants()))
    first(mailbox)
    host.send(4, Act("left", Wants()))
    template = processes._template
    assert template is not None
    (process,) = Path(f"/proc/{template.pid}/task/{template.pid}/children").read_text().split()
    os.kill(int(process), signal.SIGKILL)
    ((ticket, failed),) = first(mailbox)
    assert ticket == 4 and isinstance(failed, Failed) and "SIGKILL" in failed.what
    processes.close()


def test_hosts_that_lose_their_template_fail_and_the_next_host_has_a_new_one() -> None:
    mailbox, processes, host = hosted()
    template = processes._template
    assert template is not None
    template.kill()
    while not host.is_dead:
        mailbox.take(1.0)
    host.send(2, Reset(2, "train", Wants()))
    assert isinstance(first(mailbox)[0][1], Failed)
    again = processes.fork(WORLD, {}, None, lambda *reply: mailbox.put(reply))
    again.send(3, Open())
    assert isinstance(first(mailbox)[-1][1], Opened)
    processes.close()


def test_no_process_is_left_when_the_collectors_process_is_killed(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path\n"
        "from tests.test_hosts import collector, works\n"
        "one = collector(Path(sys.argv[1]), 'daemon')\n"
        "one.order(works(1, 3, 5, 7))\n"
        "while one.closed < 2: one.pump()\n"
        "print(one._hosting._processes._template.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == -9, done.stderr
    started = [int(done.stdout), *map(int, (tmp_path / "mark").read_text().split())]
    deadline = time.monotonic() + 20
    while any(is_alive(process) for process in started):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_a_world_started_ends_though_a_host_died_as_the_collector_did(tmp_path: Path) -> None:
    mailbox, processes, _ = hosted()
    mark = tmp_path / "mark"
    arguments = {"how": "child", "mark": str(mark)}
    host = processes.fork(WORLD, arguments, None, lambda *reply: mailbox.put(reply))
    for ticket, request in enumerate(
        (Reset(1, "train", Wants()), Act("left", Wants()), Act("left", Wants()))
    ):
        host.send(ticket, request)
        first(mailbox)
    template, control = processes._template, processes._control
    assert template is not None and control is not None
    control.shutdown(socket.SHUT_RD)  # as if it died between two calls of the template
    children = Path(f"/proc/{template.pid}/task/{template.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    while is_alive(int(children[0])):
        time.sleep(0.01)
    processes.close()
    assert not any(is_alive(int(process)) for process in mark.read_text().split())


def test_an_agents_key_is_not_in_the_environment_of_a_worlds_process() -> None:
    os.environ["XP_TEST_KEY"] = "a secret"
    try:
        mailbox = Mailbox()
        processes = HostProcesses(mailbox, secrets={"XP_TEST_KEY"})
        processes.fork(WORLD, {}, None, lambda *reply: mailbox.put(reply)).send(1, Open())
        first(mailbox)
        template = processes._template
        assert template is not None
        environment = Path(f"/proc/{template.pid}/environ").read_bytes()
        assert b"XP_TEST_KEY" not in environment and b"PATH=" in environment
        processes.close()
    finally:
        del os.environ["XP_TEST_KEY"]


def test_worlds_of_others_are_isolated_and_bundled_ones_are_unless_they_run_anothers_code() -> None:
    assert is_isolated(World(id=WORLD)) and is_isolated(World(id="envs:Text-v0"))
    assert not is_isolated(World(id="envs:KeyDoor-v0"))
    assert is_isolated(World(id="envs:KeyDoor-v0", isolation="process"))
    assert not is_isolated(World(id=WORLD, isolation="inside"))
