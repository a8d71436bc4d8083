"""Verbs about text and taste: pretrain, perplexity, plan, prefer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from actors.cli.verbs import Files, Json, Overrides, RunName, Verbs, load_config
from experience.command.output import emit, say
from experience.errors import ConfigError

if TYPE_CHECKING:
    from experience.pretraining.budget import Plan

app = Verbs()

Source = Annotated[
    str, typer.Argument(help="a text file, or a run: what its agents read and wrote")
]


@app.command()
def pretrain(
    source: Source,
    out: Annotated[Path, typer.Option(help="FILE.safetensors; a folder for several models")],
    overrides: Overrides = None,
    config: Files = None,
    tokens: Annotated[
        str, typer.Option(help="tokens to train on; several numbers train several models")
    ] = "1000000",
    widths: Annotated[
        str, typer.Option(help="several of policy.width: what ./xp plan is fitted to")
    ] = "",
    as_json: Json = False,
) -> None:
    """Trains the small policy on text, token by token: weights to begin a run with.

    Then: ./xp run policy.model=FILE.safetensors. Held-out documents, every tenth, are measured.
    """
    from actors.commands.language import pretrain as train
    from actors.commands.language import shapes_of
    from actors.config.section import absolute

    checked, _ = load_config(config, overrides)
    shapes = shapes_of(checked, _numbers("--widths", widths), _numbers("--tokens", tokens))
    for one, count in shapes:
        file = absolute(out)
        if len(shapes) > 1:
            file = file / f"width{one.policy.width}-tokens{count}.safetensors"
        done = train(source, one, count, file, say)
        if as_json:
            emit({"path": str(file), **done.record()})
            continue
        emit(
            f"{file}: {done.parameters} parameters and {done.embedding} of the embedding, "
            f"{done.tokens} tokens ({done.passes:.2g} passes), {done.seconds:.0f} s; held out: "
            f"{done.nats:.4f} nats a token, {done.bits_a_byte:.4f} bits a byte"
        )


@app.command()
def perplexity(
    policy: Annotated[
        str, typer.Argument(help="RUN, RUN@VERSION, FILE.safetensors, or ngram:3 for trigrams")
    ],
    source: Source,
    overrides: Overrides = None,
    config: Files = None,
    everything: Annotated[
        bool, typer.Option("--all", help="all documents, not the held-out tenth")
    ] = False,
    as_json: Json = False,
) -> None:
    """How well a policy predicts text: perplexity, and bits a byte."""
    from actors.commands.language import perplexity as measure

    checked, _ = load_config(config, overrides)
    found = measure(policy, source, checked, everything)
    if as_json:
        emit(
            {
                "policy": policy,
                "source": source,
                "perplexity": found.perplexity,
                "nats": found.nats,
                "bits_a_byte": found.bits_a_byte,
                "tokens": found.tokens,
                "bytes": found.bytes,
            }
        )
        return
    emit(
        f"{policy}: perplexity {found.perplexity:.4f} ({found.nats:.4f} nats a token), "
        f"{found.bits_a_byte:.4f} bits a byte, over {found.tokens} tokens and {found.bytes} bytes"
    )


@app.command()
def plan(
    folder: Annotated[Path, typer.Argument(help="of ./xp pretrain with --widths and --tokens")],
    minutes: Annotated[float | None, typer.Option(help="of training, on such a machine")] = None,
    flops: Annotated[
        float | None, typer.Option(help="compute, C = 6 x parameters x tokens")
    ] = None,
    beyond: Annotated[
        float, typer.Option(min=1, help="how far outside of what was measured a plan may lie")
    ] = 4.0,
    as_json: Json = False,
) -> None:
    """How many parameters and tokens a budget is best spent on, by a law fitted to own runs."""
    from actors.commands.language import plan as make_plan
    from actors.config.section import absolute

    found, example = make_plan(absolute(folder), minutes, flops, beyond)
    emit(found.record() if as_json else _in_words(found, int(example["layers"])))


@app.command()
def prefer(
    name: RunName,
    out: Annotated[Path, typer.Option(help="FILE.safetensors")],
    overrides: Overrides = None,
    config: Files = None,
    by: Annotated[str, typer.Option(help="people (choices, ratings), or return")] = "people",
    trunk: Annotated[
        str, typer.Option("--from", help="the policy whose weights the model begins with")
    ] = "",
    passes: Annotated[float, typer.Option(min=0, help="over the rankings")] = 20.0,
    listwise: Annotated[
        bool, typer.Option("--listwise", help="Plackett-Luce in place of Bradley-Terry")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fits a preference model to a run's rankings: a reward, as rewards: {"preference:FILE": 1}."""
    from actors.commands.language import prefer as fit_preferences
    from actors.config.section import absolute
    from experience.preferences.fitting import FitSettings

    if by not in ("people", "return"):
        raise ConfigError(f"--by {by}: no such rankings", "choose people or return")
    checked, _ = load_config(config, overrides)
    settings = FitSettings(passes=passes, listwise=listwise)
    done = fit_preferences(name, checked, by, absolute(out), trunk, settings, say)  # type: ignore[arg-type]
    if as_json:
        emit({"path": str(absolute(out)), **vars(done)})
        return
    held_out = "none was held out" if done.agreement is None else f"{done.agreement:.1%}"
    emit(
        f"{absolute(out)}: {done.rankings} rankings, {done.pairs} pairs, {done.steps} steps, "
        f"loss {done.loss:.4f}; held-out pairs ordered alike: {held_out} (chance 50 %)"
    )


def _numbers(option: str, text: str) -> list[int]:
    words = [word for word in text.replace(" ", "").split(",") if word]
    if not all(word.isdecimal() and int(word) for word in words):
        raise ConfigError(f"{option} {text}", "give whole numbers above 0, as 100000,400000")
    return [int(word) for word in words]


def _in_words(plan: Plan, layers: int) -> str:
    law, choice = plan.law, plan.choice
    width = max(round((choice.parameters / (12 * layers)) ** 0.5 / 2) * 2, 2)
    outside = "" if plan.beyond == 1 else f", {plan.beyond:.2g} times outside of it"
    lines = [
        f"parameters {choice.parameters:.4g} ({_ends(plan.parameters)}) without the embedding",
        f"tokens     {choice.tokens:.4g} ({_ends(plan.tokens)})",
        f"loss       {choice.loss:.4f} nats a token ({_ends(plan.loss)}); "
        f"no model of this law gets below {law.floor:.4f} ({_ends(plan.floor)})",
        f"law        L = {law.floor:.4g} + {law.of_parameters:.4g}/N^{law.alpha:.3g} + "
        f"{law.of_tokens:.4g}/D^{law.beta:.3g}",
        f"fitted on  {plan.runs} runs of {_ends(plan.measured_parameters)} parameters and "
        f"{_ends(plan.measured_tokens)} tokens{outside}",
        "in brackets: where 95 % of the fits to resampled runs lie",
        f"./xp pretrain SOURCE --tokens {choice.tokens:.0f} policy.layers={layers} "
        f"--widths {width} --out FILE.safetensors",
    ]
    return "\n".join(lines)


def _ends(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.4g} to {ends[1]:.4g}"
