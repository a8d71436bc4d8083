"""Programs that try to get out. Each prints "escaped" if it reaches what it must not, and nothing
else means harm.

Controls: run as root where no cage is, all but `NOT_HERE` print it; those in `OPEN` do where the
cage stands but its system-call filter is off, those in `READ` where Landlock is off.
"""

from __future__ import annotations

_C = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\nctypes.set_errno(0)  # the zygote may have left one\n"


def syscall(number: int, *arguments: object, good: str = "r >= 0") -> str:
    """A program that makes one system call (x86_64)."""
    words = ", ".join(map(str, (number, *arguments)))
    return f"{_C}r = libc.syscall({words})\nprint('escaped' if {good} else '')"


def reads(path: str) -> str:
    return f"print('escaped' if open({path!r}, 'rb').read(1) is not None else '')"


HOSTILE: dict[str, str] = {
    # read
    "reads the shadow file": reads("/etc/shadow"),
    "reads passwords": reads("/etc/passwd"),
    "reads its environment by proc": reads("/proc/self/environ"),
    "reads its memory map": reads("/proc/self/maps"),
    "reads another's command line": reads("/proc/1/cmdline"),
    "reads kernel symbols": reads("/proc/kallsyms"),
    "reads the kernel's memory": reads("/proc/kcore"),
    "reads the hosts": reads("/etc/hosts"),
    "reads the machine's id": reads("/etc/machine-id"),
    "reads the mounts": reads("/proc/self/mountinfo"),
    "reads cgroups": reads("/proc/self/cgroup"),
    "reads hostname": reads("/etc/hostname"),
    "lists the home": "import os; os.listdir('/root'); print('escaped')",
    "lists tmp": "import os; os.listdir('/tmp'); print('escaped')",
    "lists proc": "import os; os.listdir('/proc'); print('escaped')",
    "lists dev": "import os; os.listdir('/dev'); print('escaped')",
    "lists sys": "import os; os.listdir('/sys'); print('escaped')",
    "lists etc": "import os; os.listdir('/etc'); print('escaped')",
    "lists run": "import os; os.listdir('/run'); print('escaped')",
    "reads an environment": "import os; print('escaped' if os.environ else '')",
    "reads a secret that all may read": reads("/tmp/xp-decoy"),
    # write
    "writes the root": "import os; os.close(os.open('/xp-owned', os.O_CREAT | os.O_WRONLY)); "
    "print('escaped'); os.unlink('/xp-owned')",
    "writes a library": "import os; os.close(os.open('/usr/lib/xp-owned', os.O_CREAT | "
    "os.O_WRONLY)); print('escaped'); os.unlink('/usr/lib/xp-owned')",
    "writes tmp": "import os; os.close(os.open('/tmp/xp-owned', os.O_CREAT | os.O_WRONLY)); "
    "print('escaped'); os.unlink('/tmp/xp-owned')",
    "writes shared memory": "import os; os.close(os.open('/dev/shm/xp-owned', os.O_CREAT | "
    "os.O_WRONLY)); print('escaped'); os.unlink('/dev/shm/xp-owned')",
    "makes a directory": "import os; os.mkdir('/tmp/xp-dir'); print('escaped'); "
    "os.rmdir('/tmp/xp-dir')",
    "makes a link": "import os; os.symlink('/etc', '/tmp/xp-link'); print('escaped'); "
    "os.unlink('/tmp/xp-link')",
    "makes a pipe file": "import os; os.mkfifo('/tmp/xp-fifo'); print('escaped'); "
    "os.unlink('/tmp/xp-fifo')",
    "opens the core pattern": "import os; os.close(os.open('/proc/sys/kernel/core_pattern', "
    "os.O_RDONLY)); print('escaped')",
    "opens a cgroup": "import os; print('escaped' if os.listdir('/sys/fs/cgroup') is not None "
    "else '')",
    "opens a terminal": "import os; os.close(os.open('/dev/ptmx', os.O_RDWR)); print('escaped')",
    "opens null": "import os; os.close(os.open('/dev/null', os.O_RDWR)); print('escaped')",
    "opens randomness as a "
    "file": "import os; os.close(os.open('/dev/urandom', os.O_RDONLY)); print('escaped')",
    # processes
    "forks": "import os\npid = os.fork()\nif pid == 0: os._exit(0)\nos.waitpid(pid, 0); "
    "print('escaped')",
    "forks by clone": f"{_C}pid = libc.syscall(56, 17, 0, 0, 0, 0)\nif pid == 0: "
    "os._exit(0)\nprint('escaped' if pid > 0 else '')",
    "forks by vfork": f"{_C}pid = libc.fork()\nif pid == 0: os._exit(0)\nprint('escaped' if "
    "pid > 0 else '')",
    "executes": "import os, sys; os.execv(sys.executable or '/python/bin/python3', ['x', '-c', "
    "\"print('escaped')\"])",
    "spawns": "import os; pid = os.posix_spawn('/bin/true', ['true'], {}); os.waitpid(pid, 0); "
    "print('escaped')",
    "starts a subprocess": "import subprocess; subprocess.run(['/bin/true']); print('escaped')",
    "starts a thread": "import threading; threading.Thread(target=lambda: "
    "print('escaped')).start()",
    "signals its keeper": "import os; os.kill(os.getppid(), 0); print('escaped')",
    "signals process one": "import os; os.kill(1, 0); print('escaped')",
    "signals everybody": "import os; os.kill(-1, 0); print('escaped')",
    "signals its group": "import os; os.killpg(0, 0); print('escaped')",
    "traces": syscall(101, 0, 0, 0, 0, good="r == 0"),
    "reads another's memory": syscall(310, "os.getppid()", 0, 0, 0, 0, 0),
    "opens a process by number": syscall(434, "os.getpid()", 0),
    "compares processes": syscall(312, "os.getpid()", "os.getpid()", 1, 0, 0),
    "starts a session": syscall(112, good="r >= 0 or ctypes.get_errno() != 1 and False"),
    "takes real-time": syscall(144, 0, 1, "ctypes.byref(ctypes.c_int(1))", good="r == 0"),
    "lowers its niceness": syscall(141, 0, 0, -1, good="r == 0"),
    "becomes root": "import os; os.setuid(0); print('escaped')",
    "becomes another": "import os; os.setresuid(1, 1, 1); print('escaped')",
    "takes groups": "import os; os.setgroups([0]); print('escaped')",
    "asks for capabilities": syscall(126, 0, 0, good="ctypes.get_errno() == 14"),
    "raises its limits": "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1)); "
    "print('escaped')",
    "raises its open files": "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (99, "
    "99)); print('escaped')",
    "dumps core": "import resource; resource.setrlimit(resource.RLIMIT_CORE, (1, 1)); "
    "print('escaped')",
    # namespaces and mounts
    "makes a user namespace": syscall(272, 0x10000000, good="r == 0"),
    "makes a network namespace": syscall(272, 0x40000000, good="r == 0"),
    "makes a mount namespace": syscall(272, 0x20000, good="r == 0"),
    "clones a namespace": f"{_C}pid = libc.syscall(56, 0x10000011, 0, 0, 0, 0)\nif pid == 0: "
    "os._exit(0)\nprint('escaped' if pid > 0 else '')",
    "clones by clone3": syscall(435, 0, 0, good="ctypes.get_errno() not in (1, 38)"),
    "mounts": syscall(165, 0, 0, 0, 0, 0, good="ctypes.get_errno() == 14"),
    "unmounts": syscall(166, "b'/nothing'", 0, good="ctypes.get_errno() == 2"),
    "pivots": syscall(155, "b'/'", "b'/'", good="ctypes.get_errno() not in (1, 38)"),
    "chroots": "import os; os.chroot('/usr'); print('escaped')",
    "opens a tree": syscall(428, -100, "b'/'", 0),
    "opens a file system": syscall(430, "b'tmpfs'", 0),
    "opens by handle": syscall(304, -1, 0, 0, good="ctypes.get_errno() not in (1, 38)"),
    "asks a file's handle": syscall(
        303, -100, "b'/usr'", 0, 0, 0, good="ctypes.get_errno() not in (1, 38)"
    ),
    # network
    "opens a socket": "import socket; socket.socket(); print('escaped')",
    "opens a datagram "
    "socket": "import socket; socket.socket(type=socket.SOCK_DGRAM); print('escaped')",
    "opens a raw socket": "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); "
    "print('escaped')",
    "opens a packet socket": "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW); "
    "print('escaped')",
    "opens a unix socket": "import socket; socket.socket(socket.AF_UNIX); print('escaped')",
    "opens a pair": "import socket; socket.socketpair(); print('escaped')",
    "opens a netlink socket": "import socket; socket.socket(socket.AF_NETLINK, 3); "
    "print('escaped')",
    "opens a kernel-crypto "
    "socket": "import socket; socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET); "
    "print('escaped')",
    "opens vsock": "import socket; socket.socket(40, 1); print('escaped')",
    "opens bluetooth": "import socket; socket.socket(31, 3, 1); print('escaped')",
    "opens ipv6": "import socket; socket.socket(socket.AF_INET6); print('escaped')",
    "looks up a name": "import socket; socket.getaddrinfo('localhost', 80); print('escaped')",
    "connects to Ray's "
    "head": "import socket\ns = socket.socket(); r = s.connect_ex(('127.0.0.1', 6379)); "
    "print('escaped' if r in (0, 111) else '')",
    "connects to the dashboard": "import socket\ns = socket.socket(); r = "
    "s.connect_ex(('127.0.0.1', 8265)); print('escaped' if r in "
    "(0, 111) else '')",
    "asks the cloud's metadata": "import socket\ns = socket.socket(); s.settimeout(0.2); "
    "s.connect_ex(('169.254.169.254', 80)); print('escaped')",
    # the kernel's surface
    "makes a memfd": "import os; os.memfd_create('x'); print('escaped')",
    "makes an io_uring": syscall(425, 1, 0, good="ctypes.get_errno() not in (1, 38)"),
    "loads a program into the kernel": syscall(
        321, 0, 0, 0, good="ctypes.get_errno() not in (1, 38)"
    ),
    "counts events": syscall(298, 0, 0, -1, -1, 0, good="ctypes.get_errno() not in (1, 13, 38)"),
    "faults by hand": syscall(323, 0, good="r >= 0 or ctypes.get_errno() not in (1, 38)"),
    "takes a key": syscall(250, 0, -3, 1, good="r > 0"),
    "adds a key": syscall(248, "b'user'", "b'xp'", "b'x'", 1, -2, good="r > 0"),
    "asks for a key": syscall(
        249, "b'user'", "b'x'", 0, 0, good="ctypes.get_errno() not in (1, 38)"
    ),
    "changes personality": syscall(135, "0xffffffff", good="r >= 0"),
    "changes its descriptor table": syscall(154, 0, 0, 0, good="r >= 0"),
    "sets the clock": syscall(227, 99, 0, good="ctypes.get_errno() not in (1, 38)"),
    "sets the hostname": syscall(170, 0, -1, good="ctypes.get_errno() not in (1, 38)"),
    "reads the kernel's log": syscall(103, 10, 0, 0, good="r > 0"),
    "adds swap": syscall(167, 0, 0, good="ctypes.get_errno() not in (1, 38)"),
    "shares memory": syscall(29, 1, 4096, "0o1666"),
    "makes a queue": syscall(68, 0, "0o1600"),
    "makes semaphores": syscall(64, 0, 1, "0o1600"),
    "makes a posix queue": syscall(240, "b'xp'", "0o102", "0o600", 0, good="r >= 0"),
    "watches files": syscall(294, 0),
    "makes a timer file": syscall(283, 0, 0),
    "makes a signal file": syscall(289, -1, "ctypes.byref(ctypes.c_uint64(0))", 8, 0),
    "makes an epoll": syscall(291, 0),
    "moves pages": syscall(279, 0, 0, 0, 0, 0, 0, good="r == 0"),
    "locks memory": syscall(149, 0, 0, good="r == 0"),
    "sends a file": syscall(40, 1, 0, 0, 0, good="ctypes.get_errno() not in (1, 38)"),
    "copies between pipes": syscall(276, 0, 1, 1, 0, good="ctypes.get_errno() not in (1, 38)"),
    "sets an attribute": syscall(
        188, "b'/usr'", "b'user.x'", "b'1'", 1, 0, good="ctypes.get_errno() not in (1, 2, 13, 38)"
    ),
    "types into the terminal": "import fcntl, termios\ntry: fcntl.ioctl(1, termios.TIOCSTI, "
    "b'x')\nexcept OSError as e: print('escaped' if e.errno != 1 "
    "else '')",
    "asks a device": "import fcntl\ntry: fcntl.ioctl(1, 0x5413, bytes(8))\nexcept OSError as "
    "e: print('escaped' if e.errno != 1 else '')",
    # what was left open
    "inherits a descriptor": "import os\nfor n in range(4, 64):\n try: os.fstat(n); "
    "print('escaped')\n except OSError: pass",
}
NOT_HERE = {
    "reads the kernel's memory",
    "reads kernel symbols",
    "opens bluetooth",
    "opens a kernel-crypto socket",
    "reads another's memory",
    "opens vsock",
    "adds swap",
    "sets an attribute",
    "opens by handle",
}
"""Whose control needs a kernel or device that not every machine has."""
OPEN = [
    "forks",
    "forks by vfork",
    "starts a thread",
    "signals its keeper",
    "opens a unix socket",
    "opens a pair",
    "opens a netlink socket",
    "makes a memfd",
    "changes personality",
    "shares memory",
    "makes a queue",
    "makes semaphores",
    "watches files",
    "makes a timer file",
    "makes an epoll",
    "sends a file",
    "copies between pipes",
    "asks a device",
    "traces",
    "opens a process by number",
]
READ = [
    "reads passwords",
    "reads the hosts",
    "lists etc",
    "lists tmp",
    "reads a secret that all may read",
    "reads its memory map",
]
