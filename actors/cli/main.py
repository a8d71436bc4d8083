"""The command: its families of verbs put together, and its exit codes.

Everything heavy is imported by the verb that needs it. stdout is data, stderr is talk. Exit codes:
0 done, 1 failed, 2 usage or configuration, 4 integrity, 5 isolation refused, 130 interrupted,
143 terminated.
"""

from __future__ import annotations

import os
import sys

from actors.cli import config, env, keeping, machine, reading, running
from actors.cli.verbs import Verbs
from actors.output import guard, say
from actors.running.machine import shortage
from experience.errors import XpError
from experience.interrupts import install, leave

app = Verbs(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Agents act, everything is kept, a learner improves, agents get better.",
)
for _family in (running, reading, keeping, machine):  # without a name: its verbs are top-level
    app.add_typer(_family.app)
app.add_typer(env.app, name="env")
app.add_typer(config.app, name="config")


def main() -> None:
    """Runs the command. An error that a user can mend ends it with its message and exit code."""
    install()  # both signals unwind, so that journals are sealed
    guard()
    os.environ.setdefault("PYTHONWARNINGS", "ignore::DeprecationWarning,ignore::FutureWarning")
    try:
        _call()
    except SystemExit as end:
        leave(end.code)


def _call() -> None:
    try:
        app(prog_name="xp")
    except XpError as error:
        _end_with(error)
    except (MemoryError, OSError, ImportError, RuntimeError) as error:
        in_words = shortage(error)
        if in_words is None:
            raise
        _end_with(in_words)
    except KeyboardInterrupt as error:
        if not getattr(error, "__notes__", ()):  # else a run has said how to go on
            say("interrupted")
        sys.exit(130)


def _end_with(error: XpError) -> None:
    text = str(error)
    say(text if text.startswith("error:") else f"error: {text}")
    sys.exit(error.exit_code)
