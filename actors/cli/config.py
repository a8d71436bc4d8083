"""`xp config …`: show, check, explain, recipes, schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from actors.cli.verbs import Files, Overrides, Verbs, dump_config, load_config
from experience.command.output import emit, say
from experience.text.strict_json import dumps

app = Verbs(
    no_args_is_help=True, help="Configuration: show, check, explain.", rich_markup_mode=None
)


@app.command("show")
def show(overrides: Overrides = None, config: Files = None) -> None:
    """The resolved configuration, as YAML."""
    emit(dump_config(load_config(config, overrides)[0]), end="")


@app.command("check")
def check(files: list[Path]) -> None:
    """Checks files, and reports every mistake with its place. It makes no world.

    Of the packages that world ids name, only ours is imported.
    """
    from actors.worlds import check_ids

    for file in files:
        check_ids(load_config([file], None)[0], bundled_only=True)
        say(f"{file}: ok")


@app.command("explain")
def explain(
    key: Annotated[
        str,
        typer.Argument(help="a key, or a section such as learning or worlds; all of them if empty"),
    ] = "",
    overrides: Overrides = None,
    config: Files = None,
) -> None:
    """What a key means, what it takes, its value, and what set it; of a section, all its keys."""
    from actors.config.explain import explained

    if "=" in key or key.endswith((".yaml", ".yml")):  # no key was named
        key, overrides = "", [key, *(overrides or [])]
    checked, origins = load_config(config, overrides)
    for paragraph in explained(key, checked, origins):
        emit(paragraph)


@app.command("recipes")
def recipes(
    cells: Annotated[bool, typer.Option("--cells", help="the cells instead, and defaults")] = False,
) -> None:
    """The table of algorithms that learning.recipe names; with --cells, what a row is made of."""
    from experience.learning.recipes.table import as_text, cells_as_text

    emit(cells_as_text() if cells else as_text())


@app.command("schema")
def schema() -> None:
    """The JSON schema, for completion in editors."""
    from actors.config.schema import Config

    emit(dumps(Config.model_json_schema(), indent=1))
