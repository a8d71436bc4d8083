"""System-call filters for code in a cage or place, as classic BPF programs.

Covers, with three allow-lists and one list of refusals:
- "cage": everything that bubblewrap starts for a cage.
- "run": the fork that runs an agent's code. It has no fork, no exec, no signal to others, no
  socket, no ptrace, no ioctl, no namespace, no key, no memfd.
- "judge": "run", and it opens files to read only, and asks for no signal from a descriptor.
- "programs": whole programs of others, which need many calls. It refuses what they never do.

A refused call fails with EPERM; a call of a foreign architecture kills the process. Call numbers
are those of the kernel's headers for (x86_64, aarch64); None if an architecture has no such call.

Does not cover: what allowed calls do with their arguments, other than those checked below.
"""

from __future__ import annotations

import errno
import platform
import struct

from experience.errors import IsolationError

_RUN: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "newfstatat": (262, 79),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "readv": (19, 65),
    "writev": (20, 66),
    "access": (21, None),
    "pipe": (22, None),
    "pipe2": (293, 59),
    "select": (23, None),
    "pselect6": (270, 72),
    "poll": (7, None),
    "ppoll": (271, 73),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getppid": (110, 173),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "uname": (63, 160),
    "fcntl": (72, 25),
    "getdents64": (217, 61),
    "getcwd": (79, 17),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "stat": (4, None),
    "lstat": (6, None),
    "open": (2, None),
    "openat": (257, 56),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "statx": (332, 291),
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "get_robust_list": (274, 100),
    "rseq": (334, 293),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "getrandom": (318, 278),
    "sigaltstack": (131, 132),
    "arch_prctl": (158, None),
    "getrlimit": (97, 163),
    "sysinfo": (99, 179),
    "sched_getaffinity": (204, 123),
    "getrusage": (98, 165),
    "times": (100, 153),
    "restart_syscall": (219, 128),
    "membarrier": (324, 283),
    "set_tid_address": (218, 96),
    "umask": (95, 166),
    "setitimer": (38, 103),
    "alarm": (37, None),
    "getitimer": (36, 102),
    "prlimit64": (302, 261),
}
_PROCESS: dict[str, tuple[int | None, int | None]] = {
    "fork": (57, None),
    "vfork": (58, None),
    "clone": (56, 220),
    "clone3": (435, 435),
    "execve": (59, 221),
    "wait4": (61, 260),
    "waitid": (247, 95),
    "kill": (62, 129),
    "tgkill": (234, 131),
    "prctl": (157, 167),
    "seccomp": (317, 277),
    "setrlimit": (160, 164),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setgroups": (116, 159),
    "capset": (126, 91),
    "capget": (125, 90),
    "ioctl": (16, 29),
    "chdir": (80, 49),
    "fchdir": (81, 50),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "mkdir": (83, None),
    "setsid": (112, 157),
    "getpgrp": (111, None),
    "setpgid": (109, 154),
    "eventfd2": (290, 19),
    "fsync": (74, 82),
}
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "setns": (308, 268),
    "unshare": (272, 97),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "personality": (135, 92),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "modify_ldt": (154, None),
    "iopl": (172, None),
    "ioperm": (173, None),
    "lookup_dcookie": (212, 18),
    "vhangup": (153, 58),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "mbind": (237, 235),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "fanotify_init": (300, 262),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
}
_TO_WRITE = 0o3 | 0o100 | 0o1000 | 0o20000000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_TMPFILE
_SIGNALLING = (8, 10, 15, 1024, 1026)  # F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY
_NEW_NAMESPACES = 0x7E020000 | 0x80  # CLONE_NEW* of clone's flags
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

# Instruction codes of classic BPF (linux/bpf_common.h).
_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ
_AND_JUMP = 0x45  # BPF_JMP | BPF_JSET: jumps if a bit of the value is set
_RETURN = 0x06  # BPF_RET

# What a filter returns (linux/seccomp.h).
_ALLOW = 0x7FFF0000
_KILL = 0x80000000  # the whole process
_REFUSE = 0x00050000 | errno.EPERM
_NOT_THERE = 0x00050000 | errno.ENOSYS

# Offsets in struct seccomp_data. An argument has 64 bits; a filter reads 32, here the low ones.
_NUMBER = 0
_ARCH = 4
_FIRST_ARGUMENT_LOW = 16
_SECOND_ARGUMENT_LOW = 24
_THIRD_ARGUMENT_LOW = 32


def filter_bytes(kind: str) -> bytes:
    """The BPF program "cage", "run", "judge" or "programs" for this machine.

    8 bytes for each instruction. Raises IsolationError on an architecture without a filter.
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise IsolationError(f"no system-call filter for {machine}", "use x86_64 or aarch64")
    column, audit = _ARCHITECTURES[machine]
    if kind == "programs":
        return _packed(_refusing(column, audit))
    table = _RUN | _PROCESS if kind == "cage" else _RUN
    program = [
        # The same number is another call in the 32-bit interface: check the architecture first.
        (_LOAD, 0, 0, _ARCH),
        (_JUMP_EQUAL, 1, 0, audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    for name, numbers in table.items():
        number = numbers[column]
        if number is None:
            continue
        # A jump counts the instructions that it skips: (code, skip if true, skip if false, value).
        if kind == "judge" and name in ("open", "openat"):
            flags = _SECOND_ARGUMENT_LOW if name == "open" else _THIRD_ARGUMENT_LOW
            program += [
                (_JUMP_EQUAL, 0, 4, number),
                (_LOAD, 0, 0, flags),
                (_AND_JUMP, 0, 1, _TO_WRITE),
                (_RETURN, 0, 0, _REFUSE),
                (_RETURN, 0, 0, _ALLOW),
            ]
        elif kind == "judge" and name == "fcntl":
            checks = [(_JUMP_EQUAL, len(_SIGNALLING) - i, 0, c) for i, c in enumerate(_SIGNALLING)]
            program += [
                (_JUMP_EQUAL, 0, len(checks) + 3, number),
                (_LOAD, 0, 0, _SECOND_ARGUMENT_LOW),
                *checks,
                (_RETURN, 0, 0, _ALLOW),
                (_RETURN, 0, 0, _REFUSE),
            ]
        elif name == "prlimit64" and kind != "cage":  # its own limits only
            program += [
                (_JUMP_EQUAL, 0, 4, number),
                (_LOAD, 0, 0, _FIRST_ARGUMENT_LOW),
                (_JUMP_EQUAL, 0, 1, 0),
                (_RETURN, 0, 0, _ALLOW),
                (_RETURN, 0, 0, _REFUSE),
            ]
        else:
            program += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    program.append((_RETURN, 0, 0, _REFUSE))
    return _packed(program)


def _refusing(column: int, audit: int) -> list[tuple[int, int, int, int]]:
    """Allows all calls but `_REFUSED`, clone into new namespaces, and some sockets.

    Local and inet sockets are allowed: there is no network card in the place.
    """
    clone, clone3 = (56, 435) if column == 0 else (220, 435)
    socket = 41 if column == 0 else 198
    program = [
        (_LOAD, 0, 0, _ARCH),
        (_JUMP_EQUAL, 1, 0, audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    for numbers in _REFUSED.values():
        number = numbers[column]
        if number is not None:
            program += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    program += [
        (_JUMP_EQUAL, 0, 1, clone3),
        # clone3 passes its flags in memory, which a filter cannot read; glibc falls back to clone.
        (_RETURN, 0, 0, _NOT_THERE),
        (_JUMP_EQUAL, 0, 4, clone),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_LOW),
        (_AND_JUMP, 0, 1, _NEW_NAMESPACES),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    program += [
        (_JUMP_EQUAL, 0, 6, socket),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_LOW),
        (_JUMP_EQUAL, 3, 0, 1),
        (_JUMP_EQUAL, 2, 0, 2),
        (_JUMP_EQUAL, 1, 0, 10),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return [*program, (_RETURN, 0, 0, _ALLOW)]


def _packed(program: list[tuple[int, int, int, int]]) -> bytes:
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)
