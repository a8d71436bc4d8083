"""`xp pretrain`, `perplexity`, `plan` and `prefer`: what is learned from text and from rankings."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.config.schema import Config
from actors.config.section import absolute
from actors.engines.registry import make_model
from actors.gathering.acting import acting
from actors.running.assembly import all_cores, learner_settings
from actors.runs.directory import RunDirectory
from actors.runs.writing import replace_file
from experience.errors import ConfigError
from experience.models.tokenizer import ByteTokenizer
from experience.models.transformer import Transformer, TransformerShape
from experience.models.weights import Weights
from experience.preferences.fitting import FitSettings, Fitted, answers_of, fit_model
from experience.preferences.model import PreferenceModel, new_model
from experience.preferences.rankings import By, rankings, split
from experience.pretraining.budget import Plan, measured_of
from experience.pretraining.budget import plan as plan_budget
from experience.pretraining.ngrams import NGrams
from experience.pretraining.perplexity import Predicted, measure, measure_model
from experience.pretraining.text import Corpus, corpus_of_steps, read_corpus
from experience.pretraining.training import Pretrained
from experience.pretraining.training import pretrain as pretrain_model
from experience.shards.catalog import Catalog
from experience.text.strict_json import dumps

_NGRAMS = "ngram:"
_FORM = "xp-pretraining-1"
_SAY_SECONDS = 10.0


def corpus_at(source: str) -> Corpus:
    """The corpus of a text file, or of what the agents of a run read and wrote."""
    if absolute(source).is_file():
        return read_corpus(absolute(source))
    run = RunDirectory.find(source)
    return corpus_of_steps(step for steps in Catalog(run.shards).follow() for step in steps)


def small_only(config: Config) -> None:
    """Raises ConfigError for an engine whose tokens are not bytes."""
    if config.policy.engine != "small":
        raise ConfigError(
            f"{config.policy.place('engine')}: policy.engine: {config.policy.engine} is not "
            "trained from text here",
            "set policy.engine=small",
        )


def shapes_of(
    config: Config, widths: Sequence[int], tokens: Sequence[int]
) -> list[tuple[Config, int]]:
    """One (configuration, tokens) for each width and number of tokens."""
    small_only(config)
    found = []
    for width in widths or [config.policy.width]:
        if width < 2 or width % 2:
            raise ConfigError(f"--widths {width}", "a width is even, and above 0")
        heads = max(h for h in range(1, config.policy.heads + 1) if width % (2 * h) == 0)
        policy = config.policy.model_copy(update={"width": width, "heads": heads})
        found += [(config.model_copy(update={"policy": policy}), count) for count in tokens]
    return found


def pretrain(
    source: str,
    config: Config,
    tokens: int,
    out: Path,
    said: Callable[[str], None],
) -> Pretrained:
    """Trains the configuration's policy on the text, and writes the weights to `out` and a record
    of the training beside them. Raises ConfigError if `out` exists."""
    if out.exists():
        raise ConfigError(f"{out} exists already", "choose another --out")
    corpus = corpus_at(source)
    trained = make_model(config.policy, config.seed)
    assert trained is not None, "the engine small has a model"
    spoke = time.monotonic()

    def tell(share: float, nats: float) -> None:
        nonlocal spoke
        if time.monotonic() - spoke > _SAY_SECONDS:
            spoke = time.monotonic()
            said(f"{share:.0%} of the tokens, {nats:.3f} nats a token")

    with all_cores(config.learning.threads):
        done = pretrain_model(
            trained.model, corpus, tokens, learner_settings(config), config.policy.context, tell
        )
    policy = config.policy
    shape = {"layers": policy.layers, "width": policy.width, "heads": policy.heads}
    out.parent.mkdir(parents=True, exist_ok=True)
    record = {"form": _FORM, "source": source, **shape, "context": policy.context, **done.record()}
    replace_file(out, Weights.of(trained.model, 0).data)
    replace_file(out.with_suffix(".json"), (dumps(record, indent=1) + "\n").encode())
    return done


def perplexity(policy: str, source: str, config: Config, everything: bool) -> Predicted:
    """How well a policy, or n-grams counted in the training documents, predict the held-out
    documents of a source; with `everything`, all of them."""
    corpus = corpus_at(source)
    documents = corpus.documents if everything else corpus.held_out
    if policy.startswith(_NGRAMS):
        order = policy.removeprefix(_NGRAMS)
        if not order.isdecimal() or everything:
            raise ConfigError(
                f"{policy}{' --all' if everything else ''}",
                "write ngram:3 for trigrams; what they were counted in is never measured",
            )
        counts = NGrams(int(order), ByteTokenizer.size).count(corpus.train)
        return measure(counts, documents)
    model, context = _model_of(policy, config)
    return measure_model(model, documents, context)


def _model_of(policy: str, config: Config) -> tuple[Any, int]:
    who = acting(policy, config)
    small_only(who.config)
    if who.bundle is None:
        raise ConfigError(f"{policy} has no weights", "name a run, or FILE.safetensors")
    settings = who.config.policy.model_copy(update={"model": ""})
    trained = make_model(settings, 0)
    assert trained is not None, "the engine small has a model"
    who.bundle.weights.put_into(trained.model)
    return trained.model, settings.context


def plan(
    folder: Path, minutes: float | None, flops: float | None, beyond: float
) -> tuple[Plan, dict[str, Any]]:
    """The plan by the records of the folder, and the record whose source and shape it goes by."""
    records = list(_records(folder))
    if not records:
        raise ConfigError(
            f"{folder} holds no records of pre-trainings",
            "./xp pretrain SOURCE --widths 8,16,32 --tokens 25000,100000,400000 --out FOLDER",
        )
    seconds = None if minutes is None else 60 * minutes
    return plan_budget(measured_of(records), flops, seconds, beyond=beyond), records[0]


def _records(folder: Path) -> Iterable[dict[str, Any]]:
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder", "name the folder of ./xp pretrain --out")
    for path in sorted(folder.glob("*.json")):
        try:
            record = json.loads(path.read_text())
        except ValueError as error:
            raise ConfigError(
                f"{path}: {error}", "remove it, and train that model again"
            ) from error
        if isinstance(record, dict) and record.get("form") == _FORM:
            yield record


def prefer(
    run: str,
    config: Config,
    by: By,
    out: Path,
    trunk: str,
    settings: FitSettings,
    said: Callable[[str], None],
) -> Fitted:
    """Fits a preference model to a run's rankings, and writes it to `out`.

    trunk: the policy whose weights the trunk begins with; empty: new ones.
    """
    small_only(config)
    if out.exists():
        raise ConfigError(f"{out} exists already", "choose another --out")
    found = rankings(RunDirectory.find(run).shards, by)
    shown, held_out = split(found)
    policy = config.policy
    model = _new_model(trunk, config)
    said(f"{len(shown)} rankings of {sum(r.pairs for r in shown)} pairs, {len(held_out)} held out")
    with all_cores(config.learning.threads):
        fitted = fit_model(
            model,
            answers_of(shown, policy.context),
            answers_of(held_out, policy.context),
            replace(settings, seed=config.seed),
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, model.save())
    return fitted


def _new_model(trunk: str, config: Config) -> PreferenceModel:
    if trunk:
        begun, _ = _model_of(trunk, config)
        assert isinstance(begun, Transformer)
        model = PreferenceModel(begun.shape)
        model.trunk.load_state_dict(begun.state_dict())
        return model
    policy = config.policy
    shape = TransformerShape(
        ByteTokenizer.size, policy.layers, policy.width, policy.heads, policy.context
    )
    return new_model(shape, config.seed)
