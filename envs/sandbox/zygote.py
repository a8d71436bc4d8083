"""The program inside the cage: forks once for each request and returns what the fork wrote.

Covers: each request gets a fork of its own, with limits, without privileges and behind the filter.
A request is passed to the fork unread, so a fork finds no trace of earlier requests. Does not
cover: whether an answer is true; the code in the fork can write any answer.

Run by `python -I -S` with nothing but the standard library. Frames on stdin and stdout: u32
length, then bytes. argv: the uid to drop to (or -1), the hex of the RUN filter, whether the filter
is loaded (tests turn it off as a control), and the tier's word: `landlock`, followed by the
directories that may be read; `gvisor`, which first moves to /cage; or `none`, which stays what it
was started as.
"""

import ctypes
import gc
import json
import os
import resource
import select
import signal
import struct
import sys
import time

OUTPUT_CAP = 1 << 16


def drop_privileges(uid):
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(64):
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
    if uid >= 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: nobody attaches to the zygote
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS


def landlock_attributes(version):
    """struct landlock_ruleset_attr of all accesses that this version of Landlock can refuse.

    A kernel refuses attributes that it does not know, so an older one is given fewer.
    """
    access_bits = 13  # reading, writing, making and removing files
    if version >= 2:
        access_bits += 1  # LANDLOCK_ACCESS_FS_REFER: moving files between directories
    if version >= 3:
        access_bits += 1  # LANDLOCK_ACCESS_FS_TRUNCATE
    if version >= 5:
        access_bits += 1  # LANDLOCK_ACCESS_FS_IOCTL_DEV
    attributes = struct.pack("<Q", (1 << access_bits) - 1)
    if version >= 4:
        attributes += struct.pack("<Q", 3)  # TCP: bind and connect
    if version >= 6:
        attributes += struct.pack("<Q", 3)  # scopes: abstract sockets and signals
    return attributes


def close_with_landlock(paths):
    """From here on only files below `paths` may be read.

    None may be written; no TCP may be used; nobody outside may be signalled.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    # landlock_create_ruleset with LANDLOCK_CREATE_RULESET_VERSION
    version = libc.syscall(444, None, 0, 1)
    if version < 1:
        sys.exit("the kernel has no Landlock, or it is switched off")
    attributes = landlock_attributes(version)
    size = len(attributes)
    ruleset = libc.syscall(444, ctypes.create_string_buffer(attributes, size), size, 0)
    if ruleset < 0:
        sys.exit("landlock_create_ruleset failed")
    for path in paths:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("<Qi", 0b1101, folder)  # execute, read files, read directories
        if libc.syscall(445, ruleset, 1, ctypes.create_string_buffer(rule, len(rule)), 0):
            sys.exit("landlock_add_rule failed for " + path)
        os.close(folder)
    if libc.syscall(446, ruleset, 0):
        sys.exit("landlock_restrict_self failed")
    os.close(ruleset)


def load_filter(program):
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(program, len(program))
    if libc.prctl(
        22, 2, struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer)), 0, 0
    ):
        os._exit(99)


def limit(memory_bytes, cpu_seconds):
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    for what, most in (
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 32),
    ):
        resource.setrlimit(what, (most, most))


def run(request, result):
    """In the fork: runs the code and the requested calls; writes their answers as JSON.

    The answers are [["value", ...] | ["error", text], ...].
    """
    namespace = {"__name__": "__agent__"}
    answers = []
    try:
        exec(compile(request["code"], "<agent>", "exec"), namespace)
    except BaseException as error:
        answers = [["error", f"{type(error).__name__}: {error}"[:300]]]
    else:
        for arguments in request["calls"]:
            try:
                answers.append(["value", namespace[request["entry"]](*arguments)])
            except BaseException as error:
                answers.append(["error", f"{type(error).__name__}: {error}"[:300]])
    try:
        payload = json.dumps(answers).encode()
    except BaseException as error:
        payload = json.dumps(
            [["error", f"result is not plain data: {type(error).__name__}"]]
        ).encode()
    sys.stdout.flush()
    view = memoryview(payload[:OUTPUT_CAP])
    while view:
        view = view[os.write(result, view) :]


def child(raw, output, result, program, filtered):
    os.dup2(output, 1)
    os.dup2(output, 2)
    null_read, null_write = os.pipe()
    os.dup2(null_read, 0)
    os.close(null_write)
    result = os.dup2(result, 3)
    os.closerange(4, 1024)
    request = json.loads(raw)
    limit(request["memory_bytes"], request["cpu_seconds"])
    if filtered:
        load_filter(program)
    run(request, result)
    sys.stdout.flush()
    os._exit(0)


def collect(pid, output, result, deadline):
    """What the fork wrote to both pipes, and how it ended. It is dead when this returns."""
    kept = {output: bytearray(), result: bytearray()}
    waiting = {output, result}
    ending = "ok"
    while waiting:
        left = deadline - time.monotonic()
        ready = select.select(list(waiting), [], [], left)[0] if left > 0 else []
        if not ready:
            ending = "timeout"
            break
        for descriptor in ready:
            data = os.read(descriptor, 1 << 16)
            if not data:
                waiting.discard(descriptor)
            elif len(kept[descriptor]) < OUTPUT_CAP:
                kept[descriptor] += data[: OUTPUT_CAP - len(kept[descriptor])]
    # The code may have closed both pipes and gone on.
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if ending == "ok" and not kept[result]:
        out_of_cpu = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU
        ending = "timeout" if out_of_cpu else "killed"
    return {
        "ending": ending,
        "stdout": kept[output].decode("utf-8", "replace"),
        "results": kept[result].decode("utf-8", "replace"),
    }


def read_exactly(count):
    data = b""
    while len(data) < count:
        more = os.read(0, count - len(data))
        if not more:
            sys.exit(0)
        data += more
    return data


def main():
    uid = int(sys.argv[1])
    program = bytes.fromhex(sys.argv[2])
    filtered = sys.argv[3] == "filtered"
    if sys.argv[4:5] == ["gvisor"]:
        os.chroot("/cage")
        os.chdir("/")
    if sys.argv[4:5] != ["none"]:
        drop_privileges(uid)
    if sys.argv[4:5] == ["landlock"] and sys.argv[5:]:
        close_with_landlock(sys.argv[5:])
    os.environ.clear()
    gc.freeze()  # a collection in a fork would copy all pages that it shares with us
    os.write(1, struct.pack("<I", 2) + b"{}")  # ready
    while True:
        raw = read_exactly(struct.unpack("<I", read_exactly(4))[0])
        wall_seconds = float(raw[:8])
        output, output_end = os.pipe()
        result, result_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                child(raw[8:], output_end, result_end, program, filtered)
            finally:
                os._exit(98)
        os.close(output_end)
        os.close(result_end)
        reply = json.dumps(collect(pid, output, result, time.monotonic() + wall_seconds)).encode()
        os.close(output)
        os.close(result)
        raw = None  # the next fork must not find this request in its memory
        os.write(1, struct.pack("<I", len(reply)))
        view = memoryview(reply)
        while view:
            view = view[os.write(1, view) :]


main()
