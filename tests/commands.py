"""The command, called again and again without starting Python each time: one process has imported
it, and forks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from tests.test_house import ROOT


class Told(NamedTuple):
    code: int
    out: str
    err: str


class Commands:
    """Each call is a process of its own, in the folder given, as `./xp` would start it from there."""

    def __enter__(self) -> Commands:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.commands"],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self

    def __call__(self, folder: Path, *words: str) -> Told:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([str(folder), *words]) + "\n")
        self._process.stdin.flush()
        return Told(*json.loads(self._process.stdout.readline()))

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._process.communicate(timeout=300)


def _serve() -> None:
    import gymnasium  # noqa: F401

    import actors.cli.main
    import actors.config.schema
    import envs.__main__
    import envs.check

    for line in sys.stdin:
        folder, *words = json.loads(line)
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            child = os.fork()
            if not child:
                of_envs = words[:1] == ["env"] and words[1:2] != [
                    "replay"
                ]  # as in actors/__main__.py
                _run(
                    envs.__main__.main if of_envs else actors.cli.main.main,
                    folder,
                    words[1:] if of_envs else words,
                    (os.open(os.devnull, os.O_RDONLY), out.fileno(), err.fileno()),
                )
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            told = []
            for file in (out, err):
                file.seek(0)
                told.append(file.read())
            print(json.dumps([code, *told]), flush=True)


def _run(main: Any, folder: str, words: list[str], files: tuple[int, int, int]) -> None:
    for ours, theirs in enumerate(files):
        os.dup2(theirs, ours)
    os.chdir(folder)
    sys.path.append(folder)
    sys.argv = ["xp", *words]
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001  as Python would end with it
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    _serve()
