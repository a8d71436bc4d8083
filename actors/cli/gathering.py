"""Verbs that do one half of a run: collect, eval and gateway learn nothing, learn lives nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from actors.cli.running import RunJson
from actors.cli.verbs import Files, Overrides, Trusted, Verbs, load_config, load_run_config
from experience.errors import ConfigError

app = Verbs()

_POLICIES = (
    "random, expert, engine (the configuration's, untrained), RUN, RUN@VERSION, or FILE.safetensors"
)


@app.command()
def collect(
    overrides: Overrides = None,
    config: Files = None,
    policy: Annotated[str, typer.Option(help=f"who acts: {_POLICIES}")] = "engine",
    episodes: Annotated[
        int, typer.Option(min=1, help="how many more episodes; groups are collecting.group_size")
    ] = 100,
    to: Annotated[
        str,
        typer.Option(help="the store: a name in runs_dir, or a path; default collected-NAME"),
    ] = "",
    as_json: RunJson = False,
    trusted: Trusted = False,
) -> None:
    """Lives episodes and keeps them, without learning. Called again, it adds more.

    The same command goes on with what was interrupted. budget.minutes and budget.steps hold for
    each call.
    """
    from actors.commands.gather import collect as collect_episodes
    from actors.commands.launch import Launch

    with Launch(as_json) as launch:
        checked, origins = load_config(config, overrides)
        collect_episodes(launch, checked, origins, policy, episodes, to, trusted)


@app.command()
def learn(overrides: Overrides = None, config: Files = None, as_json: RunJson = False) -> None:
    """Learns from stores alone (`experience`): no world is made, nothing is lived.

    First successes and demonstrations are imitated (learning.imitation_passes), then whole groups
    are learned from by learning.recipe, which corrects for the policy that acted.
    """
    from actors.commands.launch import Launch
    from actors.commands.learn import learn as learn_from_stores

    with Launch(as_json) as launch:
        learn_from_stores(launch, *load_config(config, overrides))


@app.command("eval")
def evaluate(
    policy: Annotated[str, typer.Argument(help=f"who is evaluated: {_POLICIES}")],
    overrides: Overrides = None,
    config: Files = None,
    split: Annotated[str, typer.Option(help="heldout or train")] = "heldout",
    episodes: Annotated[
        int | None,
        typer.Option(min=1, help="tasks of each world; default evaluation.final_episodes"),
    ] = None,
    k: Annotated[str, typer.Option(help="pass@k for these k, e.g. 1,4,8; needs --success-at")] = "",
    attempts: Annotated[
        int | None, typer.Option(min=1, help="attempts at each task; default the largest k")
    ] = None,
    success_at: Annotated[
        float | None, typer.Option(help="the return from which on an episode is a success")
    ] = None,
    to: Annotated[
        str,
        typer.Option(help="the store: a name in runs_dir, or a path; default evaluated-RUN"),
    ] = "",
    as_json: RunJson = False,
    trusted: Trusted = False,
) -> None:
    """How well a policy does on tasks that no training draws: returns, success, pass@k.

    Without -c, a run is evaluated in its own worlds. The same command goes on with what was
    interrupted, and lives nothing twice.
    """
    from actors.commands.gather import evaluate as evaluate_policy
    from actors.commands.launch import Launch
    from actors.gathering.acting import is_run
    from actors.gathering.orders import Exam

    with Launch(as_json) as launch:
        if split not in ("heldout", "train"):
            raise ConfigError(f"--split {split}: no such split", "choose heldout or train")
        ks = _numbers(k)
        tries = attempts or max(ks, default=1)
        if ks and max(ks) > tries:
            raise ConfigError(
                f"--k {k}: pass@{max(ks)} needs {max(ks)} attempts at a task, not {tries}",
                "raise --attempts",
            )
        if is_run(policy) and not config:
            checked, origins = load_run_config(policy, overrides, trusted)
        else:
            checked, origins = load_config(config, overrides)
        tasks = episodes or checked.evaluation.final_episodes
        if not tasks:
            raise ConfigError(
                "no task is to be tried: evaluation.final_episodes is 0", "give --episodes N"
            )

        def exam(name: str) -> Exam:
            return Exam(name, split, tasks, tries, checked.evaluation.temperature)

        evaluate_policy(launch, checked, origins, policy, exam, ks, success_at, to, trusted)


@app.command()
def gateway(
    overrides: Overrides = None,
    config: Files = None,
    policy: Annotated[
        str, typer.Option(help="who answers: engine, RUN, RUN@VERSION, or FILE.safetensors")
    ] = "engine",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="of 127.0.0.1; 0 is a free one")
    ] = 8377,
    store: Annotated[
        str,
        typer.Option("--store", help="a name in runs_dir, or a path; default gateway-NAME"),
    ] = "",
    signal: Annotated[
        list[str] | None,
        typer.Option(help="NAME or NAME=WEIGHT: what may be measured; default env_reward"),
    ] = None,
    record_only: Annotated[
        bool, typer.Option("--record-only", help="do not follow newer checkpoints of a run")
    ] = False,
    as_json: RunJson = False,
    trusted: Trusted = False,
) -> None:
    """Answers agent programs of others, and keeps what they do: OpenAI's and Anthropic's protocols.

    Each rollout has a URL of its own; docs/gateway.md shows one in ten minutes. Ends at Ctrl-C; the
    same command goes on with what had not ended.
    """
    from actors.commands.gateway import serve, signals_of
    from actors.commands.launch import Launch

    with Launch(as_json):
        checked, origins = load_config(config, overrides)
        declared = signals_of(signal or ["env_reward"])
        serve(checked, origins, policy, port, store, declared, record_only, as_json, trusted)


def _numbers(text: str) -> tuple[int, ...]:
    """`1,4,8` as numbers, ascending. Raises ConfigError for anything else."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not all(word.isdecimal() and 0 < len(word) < 7 and int(word) for word in words):
        raise ConfigError(f"--k {text}: not numbers above 0", "write for example --k 1,4,8")
    return tuple(sorted({int(word) for word in words}))
