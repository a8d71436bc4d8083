"""What this process writes and how it ends: guarded streams, shortages, a world's own traceback."""

from __future__ import annotations

import errno
import io
import logging
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experience.command import ending, output
from experience.command.ending import shortage
from experience.command.failures import check_arguments, errors_of, own_traceback
from experience.command.output import Guarded, emit, plain, say
from experience.errors import ConfigError, EnvironmentFailure, XpError
from experience.interrupts import whole
from experience.text.near import did_you_mean, nearest, nearest_id
from tests.test_house import ROOT

SECRET = "correct-horse-battery"


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TEST_API_KEY", SECRET)
    return SECRET


# Guarded streams


def test_a_secret_is_covered_though_it_is_written_in_two_halves(secret: str) -> None:
    below = io.StringIO()
    stream = Guarded(below)
    stream.write("it is " + secret[:9])
    assert below.getvalue() == "", "a line is kept until it is whole"
    stream.write(secret[9:] + "\nand then")
    assert below.getvalue() == "it is [redacted]\n"
    stream.flush()
    assert below.getvalue() == "it is [redacted]\nand then"


def test_a_line_that_never_ends_does_not_take_all_memory() -> None:
    below = io.StringIO()
    stream = Guarded(below)
    for _ in range(12):
        stream.write("x" * 100_000)
    assert len(below.getvalue()) > 1_000_000


def test_bytes_that_are_no_text_are_written_as_text() -> None:
    below = io.StringIO()
    stream = Guarded(below)
    assert stream.buffer.write(b"a\xffb\n") == 4
    stream.buffer.flush()
    assert below.getvalue() == "a\ufffdb\n"
    assert stream.writable() and stream.buffer.writable() and not stream.isatty()
    with pytest.raises(TypeError, match="must be str, not bytes"):
        stream.write(b"a")  # type: ignore[arg-type]


def test_a_guarded_stream_passes_on_what_it_is_asked(tmp_path: Path) -> None:
    with open(tmp_path / "out", "w", encoding="utf-8", errors="strict") as file:
        stream = Guarded(file)
        assert stream.fileno() == stream.buffer.fileno() == file.fileno()
        assert (stream.encoding, stream.errors) == ("utf-8", "strict")
        stream.reconfigure(errors="replace")
        assert file.errors == "replace"
        stream.buffer.write(b"kept")
        stream.buffer.close()
    assert (tmp_path / "out").read_text() == "kept"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\nc", "a\tb\nc"),
        ("a\r\nb", "a\nb"),
        ("\x1b[2Jgone", "[2Jgone"),
        ("bell\a back\b", "bell back"),
        ("abc\u202edef", "abcdef"),
        ("\u2066x\u2069", "x"),
        ("ünïcode — 文", "ünïcode — 文"),
    ],
)
def test_no_control_character_reaches_a_terminal(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_a_record_of_logging_holds_no_secret(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    before = logging.getLogRecordFactory()
    try:
        output.guard()
        output.guard()
        assert isinstance(sys.stderr, Guarded) and not isinstance(sys.stderr.below, Guarded)
        make = logging.getLogRecordFactory()
        try:
            raise KeyError(secret)
        except KeyError:
            record = make("x", logging.ERROR, "f", 1, "said %s", (secret,), sys.exc_info())
        assert record.getMessage() == "said [redacted]" and SECRET not in str(record.exc_text)
        wrong = make("x", logging.ERROR, "f", 1, "%d", ("no number",), None)
        assert wrong.args == ("no number",), "logging itself reports a message that is no format"
    finally:
        logging.setLogRecordFactory(before)


def test_data_goes_to_stdout_and_talk_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    output.release_stdout()
    emit("text")
    emit({"a": float("nan")})
    emit("no end", end="")
    say("talk")
    told = capsys.readouterr()
    assert told.out == 'text\n{"a": null}\nno end' and told.err == "talk\n"


def test_what_a_world_prints_is_not_data_whether_python_or_c_prints_it() -> None:
    code = (
        "import os\nfrom experience.command import output\n"
        "output.own_stdout(); output.own_stdout()\n"
        "print('from python'); os.write(1, b'from c\\n'); os.system('echo from a program')\n"
        "output.emit('data')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "data\n"
    for who in ("python", "c", "a program"):
        assert f"from {who}\n" in done.stderr


# How a command ends


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        ("ConfigError('wrong', 'do this')", 2, "error: wrong\n  do this\n"),
        ("XpError('error: told already')", 1, "error: told already\n"),
        ("KeyboardInterrupt()", 130, "interrupted\n"),
        ("SystemExit(7)", 7, ""),
        ("MemoryError()", 1, "error: there is not enough memory: MemoryError"),
    ],
)
def test_a_command_ends_with_the_code_and_the_words_of_its_error(
    raised: str, code: int, said: str
) -> None:
    program = (
        "from experience.command.ending import run_command\n"
        "from experience.errors import ConfigError, XpError\n"
        f"def command():\n    raise {raised}\n"
        "run_command(command)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code and done.stdout == ""
    assert done.stderr.startswith(said) and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "", "a.arrow"), "the disk is full: a.arrow could not be written"),
        (OSError(errno.EDQUOT, ""), "a file of the run could not be written"),
        (OSError(errno.ENOMEM, "no"), "there is not enough memory"),
        (ImportError("x.so: failed to map segment"), "there is not enough memory"),
        (RuntimeError("can't start new thread"), "there is not enough memory"),
    ],
)
def test_a_shortage_is_told_in_words(error: BaseException, said: str) -> None:
    told = shortage(error)
    assert told is not None and said in str(told) and told.hint


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "x"), ImportError("no x"), RuntimeError("x"), ValueError()]
)
def test_another_error_is_no_shortage(error: BaseException) -> None:
    assert shortage(error) is None


def test_an_error_that_nobody_put_in_words_keeps_its_traceback() -> None:
    def command() -> None:
        raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError, match="a mistake of ours"):
        ending._call(command)


# Calls that signals do not interrupt


def test_a_signal_waits_for_the_end_of_the_outermost_whole_call() -> None:
    program = (
        "import os, signal\nfrom experience import interrupts\n"
        "interrupts.install()\ndone = []\n"
        "@interrupts.whole\ndef inner():\n"
        f"    os.kill(os.getpid(), {int(signal.SIGINT)}); done.append('inner')\n"
        "@interrupts.whole\ndef outer():\n    inner(); done.append('outer')\n"
        "try:\n    outer()\nexcept KeyboardInterrupt:\n    print(done)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "['inner', 'outer']\n", done.stderr


def test_a_whole_call_gives_back_and_raises_as_the_function_does() -> None:
    @whole
    def half(number: int, *, of: int = 2) -> float:
        return number / of

    assert half(3) == 1.5 and half.__name__ == "half"
    with pytest.raises(ZeroDivisionError):
        half(3, of=0)
    assert half(3, of=1) == 3


# What a world raises


def test_what_a_world_raises_keeps_its_own_traceback_and_names_the_world() -> None:
    with pytest.raises(EnvironmentFailure) as raised, errors_of("a:B-v0", "in reset"):
        {}["valve"]
    told = str(raised.value)
    assert told.startswith("a:B-v0 raised KeyError in reset: 'valve'")
    assert '{}["valve"]' in told and "./xp env check a:B-v0" in told
    assert isinstance(raised.value.__cause__, KeyError)


def test_an_error_of_ours_passes_unchanged() -> None:
    ours = ConfigError("wrong", "do this")
    with pytest.raises(ConfigError) as raised, errors_of("a:B-v0", "in reset"):
        raise ours
    assert raised.value is ours
    with errors_of("a:B-v0", "in reset"):
        pass


def test_a_mistake_in_a_worlds_file_is_told_by_its_line() -> None:
    with pytest.raises(SyntaxError) as raised:
        compile("def step(:\n", "world.py", "exec")
    told = own_traceback(raised.value)
    assert 'File "world.py", line 1' in told and told.endswith("invalid syntax")


def test_an_argument_that_a_world_does_not_take_is_told_with_those_it_takes() -> None:
    def makes(size: int = 3, colour: str = "") -> None: ...
    def takes_all(**more: Any) -> None: ...

    check_arguments("a:B-v0", makes, {"size": 1})
    check_arguments("a:B-v0", takes_all, {"anything": 1})
    check_arguments("a:B-v0", "not a function yet", {})
    with pytest.raises(ConfigError, match="did you mean 'colour'"):
        check_arguments("a:B-v0", makes, {"color": "red"})
    with pytest.raises(ConfigError, match="it takes size, colour"):
        check_arguments("a:B-v0", makes, {"xyz": 1})
    with pytest.raises(ConfigError, match="it takes no arguments"):
        check_arguments("a:B-v0", lambda: None, {"xyz": 1})


# Guesses


def test_the_nearest_word_is_guessed_and_nothing_far_away() -> None:
    assert nearest("worker", ["workers", "width"]) == "workers"
    assert nearest("zzz", ["workers"]) is None
    assert did_you_mean("worker", ["workers"]) == "did you mean 'workers'?"
    assert did_you_mean("zzz", ["workers"]) == did_you_mean("a", []) == ""


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("envs:Reacter-v0", "envs:Reactor-v1"),
        ("envs:reactor-v9", "envs:Reactor-v1"),
        ("Reactor-v0", "envs:Reactor-v1"),
        ("mine:Reactor-v0", None),
        ("envs:Zzz-v0", None),
    ],
)
def test_an_id_is_guessed_by_package_and_name_and_the_newest_version(
    asked: str, meant: str | None
) -> None:
    known = ["envs:Reactor-v0", "envs:Reactor-v1", "envs:Desktop-v0"]
    assert nearest_id(asked, known) == meant
    assert nearest_id(asked, []) is None


def test_the_tree_of_errors_gives_each_its_exit_code() -> None:
    assert XpError("a", "b").hint == "b" and str(XpError("a", "b")) == "a\n  b"
    assert str(XpError("a")) == "a"
