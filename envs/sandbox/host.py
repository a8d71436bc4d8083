"""The program inside a judge's place: loads one judge, and forks a child of it for each episode.

Covers: a child can neither fork, nor write or create a file, nor signal, nor open a socket; it has
limits, and ends with its episode. Does not cover: the first process, which has no filter and runs
only requests of our own.

Run by Python with the standard library alone, then with the packages that the judge imports;
`hosted` is its other end. argv: the judge's file, its options as JSON, the hex of the children's
filter, the memory and CPU seconds of a child, and `forks`, or `stays` for a judge that cannot be
forked (because of a Java machine), which serves one episode itself. On fd 0, a Unix socket, each
line of JSON is answered by a line of JSON; `fork` comes with a descriptor, the child's own line:
    {"do": "warm", "call": name, "with": {...}}   runs here: never with what an agent wrote
    {"do": "fork"}                                -> {"value": pid}
    {"do": "end", "pid": n}                       no answer; dead before the next request is read
    {"do": "how", "pid": n}                       -> {"value": how it ended}; it is dead then
A child answers {"call": name, "with": {...}} with `value`, `refused` (the judge could not read it)
or `failed`.
"""

import contextlib
import ctypes
import gc
import importlib.util
import json
import os
import random
import resource
import signal
import socket
import struct
import sys
import time
import traceback

MOST_BYTES = 1 << 20


class Refused(Exception):
    """The judge cannot read what the agent wrote; the message says why. Nothing has changed."""


def answered(judge, asked):
    """The judge's answer to a call, as a line. It returns whatever the judge raises."""
    try:
        answer = {"value": getattr(judge, asked["call"])(**asked["with"])}
    except Refused as refused:
        answer = {"refused": str(refused)[:300]}
    except BaseException as failed:
        answer = {"failed": f"{type(failed).__name__}: {failed}"[:300]}
    try:
        line = json.dumps(answer).encode()
    except BaseException as failed:
        line = json.dumps({"failed": f"not plain data: {type(failed).__name__}"}).encode()
    if len(line) >= MOST_BYTES:
        line = json.dumps({"failed": f"an answer of {len(line)} bytes"}).encode()
    return line + b"\n"


def lines(descriptor):
    """Yields the lines that arrive, until the other end closes."""
    rest = b""
    while more := os.read(descriptor, 1 << 16):
        rest += more
        while b"\n" in rest:
            line, _, rest = rest.partition(b"\n")
            yield line


def send(descriptor, line):
    view = memoryview(line)
    while view:
        view = view[os.write(descriptor, view) :]


def serve(judge, descriptor):
    for line in lines(descriptor):
        send(descriptor, answered(judge, json.loads(line)))


def load_filter(program):
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(program, len(program))
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    if libc.prctl(
        22, 2, struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer)), 0, 0
    ):
        os._exit(99)


def limit(memory_bytes, cpu_seconds):
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    for what, most in (
        (resource.RLIMIT_AS, mapped + memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(what, (most, most))


def child(judge, channel, program, memory_bytes, cpu_seconds):
    """Serves one episode on descriptor 3, with nothing else open but /dev/null."""
    os.dup2(channel, 3)
    nothing = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    os.closerange(4, 1024)
    random.seed(0)  # Python gives each fork a new seed, and equal answers must get equal scores
    limit(memory_bytes, cpu_seconds)
    if program:
        load_filter(program)
    serve(judge, 3)


def fork(judge, channel, *limits):
    pid = os.fork()
    if pid == 0:
        try:
            child(judge, channel, *limits)
        finally:
            os._exit(0)
    return pid


def ended(pid, seconds):
    """How a child ended: by itself within `seconds`, or by a signal. It is dead now."""
    until = time.monotonic() + seconds
    while not (found := os.waitpid(pid, os.WNOHANG))[0] and time.monotonic() < until:
        time.sleep(0.005)
    done, status = found
    if not done:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return "was ended"
    if os.WIFSIGNALED(status):
        return f"was ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exited with {os.WEXITSTATUS(status)}"


def requests(control):
    """(a request, the descriptor that came with it or None), until the other end closes."""
    rest = b""
    # Kept apart from the lines: one read may bring several lines, and their descriptors together.
    descriptors = []
    while True:
        more, came, _, _ = socket.recv_fds(control, 1 << 16, 4)
        descriptors += came
        if not more:
            return
        rest += more
        while b"\n" in rest:
            line, _, rest = rest.partition(b"\n")
            asked = json.loads(line)
            yield asked, descriptors.pop(0) if asked["do"] == "fork" else None


def made(path, options):
    """The judge of the file at `path`: its class Judge, given the options."""
    spec = importlib.util.spec_from_file_location("judge", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["judge"] = module
    spec.loader.exec_module(module)
    return module.Judge(**options)


def as_line(answer):
    return json.dumps(answer).encode() + b"\n"


def forked(judge, channel, limits, children):
    """Forks a child that serves `channel`, and adds its pid to `children`; the answer as a line."""
    try:
        pid = fork(judge, channel, *limits)
    except OSError as refused:  # this process and its other children go on
        return as_line({"failed": f"no process for one more episode: {refused.strerror}"})
    children.add(pid)
    return as_line({"value": pid})


def ended_child(pid, seconds, children):
    """As `ended`, for one of `children`, from which the pid is removed."""
    # The kernel may have given the pid of a child that was waited for to another process.
    if pid not in children:
        return "was not ours"
    children.discard(pid)
    return ended(pid, seconds)


def main():
    path, options, program, memory_bytes, cpu_seconds, how = sys.argv[1:]
    limits = bytes.fromhex(program), int(memory_bytes), int(cpu_seconds)
    control = socket.socket(fileno=0)
    control.sendall(as_line({"value": "up"}))
    # Judges import `Refused` by `import host`: they must get this module, not a second copy.
    sys.modules["host"] = sys.modules["__main__"]
    try:
        judge = made(path, json.loads(options))
    except BaseException as failed:
        traceback.print_exc()
        kind = "missing" if isinstance(failed, ImportError) else "failed"
        control.sendall(as_line({kind: f"{type(failed).__name__}: {failed}"[:500]}))
        return
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: no child reads another's memory
    # A collection in a child would write to every object, and copy all shared pages.
    gc.collect()
    gc.freeze()
    control.sendall(as_line({"value": "ready"}))
    children = set()
    for asked, channel in requests(control):
        if asked["do"] == "warm":
            line = answered(judge, asked)
            gc.freeze()
        elif asked["do"] == "fork" and how == "forks":
            line = forked(judge, channel, limits, children)
        elif asked["do"] == "fork":
            control.sendall(as_line({"value": 0}))
            serve(judge, channel)
            return
        elif asked["do"] == "how":
            # The child closes its line before it has ended: give it a moment.
            line = as_line({"value": ended_child(asked["pid"], 0.3, children)})
        else:
            ended_child(asked["pid"], 0, children)
            line = b""  # `end` has no answer
        if channel is not None:
            os.close(channel)
        control.sendall(line)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        main()
