"""The command: its families of verbs put together.

Everything heavy is imported by the verb that needs it. stdout is data, stderr is talk; exit codes
stand in experience/command/ending.py.
"""

from __future__ import annotations

from actors.cli import config, env, gathering, keeping, language, machine, reading, running
from actors.cli.verbs import Verbs
from experience.command.ending import run_command

app = Verbs(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Agents act, everything is kept, a learner improves, agents get better.",
)
# In the order of --help: what is typed first comes first.
for _family in (
    running,
    gathering,
    reading,
    language,
    keeping,
    machine,
):  # without a name: its verbs are top-level
    app.add_typer(_family.app)
app.add_typer(env.app, name="env")
app.add_typer(config.app, name="config")


def main() -> None:
    """Runs the command, and ends the process with its exit code."""
    run_command(lambda: app(prog_name="xp"))
