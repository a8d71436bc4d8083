"""The system-call filters, run instruction by instruction as the kernel runs them."""

from __future__ import annotations

import errno
import platform
import struct

import pytest

from envs.sandbox import seccomp
from experience.errors import IsolationError

ALLOW = 0x7FFF0000
REFUSE = 0x00050000 | errno.EPERM
NOT_THERE = 0x00050000 | errno.ENOSYS
KILL = 0x80000000
X86 = 0xC000003E
ARM = 0xC00000B7


def verdict(program: bytes, number: int, *arguments: int, architecture: int = X86) -> int:
    """What the filter returns for a call: an interpreter of the instructions that it uses."""
    instructions = list(struct.iter_unpack("<HBBI", program))
    words = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, architecture, 0, *words)
    accumulator = 0
    at = 0
    while True:
        code, if_true, if_false, value = instructions[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x15:
            at += if_true if accumulator == value else if_false
        elif code == 0x45:
            at += if_true if accumulator & value else if_false
        elif code == 0x06:
            return int(value)
        else:
            raise AssertionError(f"unknown instruction {code:#x}")


@pytest.fixture
def on_x86(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


@pytest.mark.usefixtures("on_x86")
@pytest.mark.parametrize("kind", ["cage", "run", "judge", "programs"])
def test_a_call_of_a_foreign_architecture_ends_the_process(kind: str) -> None:
    program = seccomp.filter_bytes(kind)
    assert verdict(program, 0, architecture=ARM) == KILL
    assert verdict(program, 0) == ALLOW  # read


@pytest.mark.usefixtures("on_x86")
@pytest.mark.parametrize(
    ("name", "number"),
    [("fork", 57), ("execve", 59), ("kill", 62), ("ptrace", 101), ("socket", 41), ("ioctl", 16)],
)
def test_an_agents_code_may_not(name: str, number: int) -> None:
    assert verdict(seccomp.filter_bytes("run"), number) == REFUSE, name
    assert verdict(seccomp.filter_bytes("judge"), number) == REFUSE, name


@pytest.mark.usefixtures("on_x86")
def test_an_agents_code_sees_only_limits_of_its_own_process() -> None:
    program = seccomp.filter_bytes("run")
    prlimit64 = 302
    assert verdict(program, prlimit64, 0) == ALLOW
    assert verdict(program, prlimit64, 1234) == REFUSE
    assert verdict(seccomp.filter_bytes("cage"), prlimit64, 1234) == ALLOW  # bubblewrap's own


@pytest.mark.usefixtures("on_x86")
def test_a_judge_opens_files_to_read_only() -> None:
    program = seccomp.filter_bytes("judge")
    opened = 2
    openat = 257
    assert verdict(program, openat, 0, 0, 0) == ALLOW
    assert verdict(program, opened, 0, 0) == ALLOW
    for flag in (0o1, 0o2, 0o100, 0o1000, 0o20200000):
        assert verdict(program, openat, 0, 0, flag) == REFUSE, oct(flag)
        assert verdict(program, opened, 0, flag) == REFUSE, oct(flag)


@pytest.mark.usefixtures("on_x86")
def test_a_judge_asks_for_no_signal_from_a_descriptor() -> None:
    program = seccomp.filter_bytes("judge")
    fcntl = 72
    assert verdict(program, fcntl, 3, 3) == ALLOW  # F_GETFL
    for command in (8, 10, 15, 1024, 1026):
        assert verdict(program, fcntl, 3, command) == REFUSE, command
    assert verdict(seccomp.filter_bytes("run"), fcntl, 3, 8) == ALLOW


@pytest.mark.usefixtures("on_x86")
def test_programs_of_others_make_no_namespace_and_only_local_and_inet_sockets() -> None:
    program = seccomp.filter_bytes("programs")
    clone = 56
    clone3 = 435
    socket = 41
    assert verdict(program, clone, 0x00010F00) == ALLOW  # a thread
    for namespace in (0x00020000, 0x10000000, 0x40000000, 0x00000080):
        assert verdict(program, clone, namespace) == REFUSE, hex(namespace)
    # Its flags are in memory: refused as unknown, so that glibc uses clone instead.
    assert verdict(program, clone3) == NOT_THERE
    assert [verdict(program, socket, family) for family in (1, 2, 10)] == [ALLOW] * 3
    for family in (16, 17, 38, 40):  # netlink, packet, crypto, vsock
        assert verdict(program, socket, family) == REFUSE, family


@pytest.mark.usefixtures("on_x86")
@pytest.mark.parametrize("number", [101, 321, 165, 272, 308, 425, 319, 250])
def test_programs_of_others_do_without_what_opens_the_kernel(number: int) -> None:
    """ptrace, bpf, mount, unshare, setns, io_uring_setup, memfd_create, keyctl."""
    assert verdict(seccomp.filter_bytes("programs"), number) == REFUSE


def test_the_same_calls_are_judged_by_their_numbers_on_arm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    program = seccomp.filter_bytes("run")
    assert verdict(program, 63, architecture=ARM) == ALLOW  # read
    assert verdict(program, 220, architecture=ARM) == REFUSE  # clone
    assert verdict(program, 63) == KILL
    programs = seccomp.filter_bytes("programs")
    assert verdict(programs, 198, 16, architecture=ARM) == REFUSE  # a netlink socket
    assert verdict(programs, 198, 2, architecture=ARM) == ALLOW


def test_a_machine_without_a_filter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(IsolationError, match="no system-call filter for riscv64"):
        seccomp.filter_bytes("run")
