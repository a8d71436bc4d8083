"""Mistakes that no single key shows: keys that contradict each other, secrets in addresses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from actors.config.section import ADDRESS
from actors.engines.registry import CHAT_ENGINES
from actors.engines.servers.passwords import HIDDEN, PASSWORD
from actors.engines.settings import arguments_of
from experience.command.plain_yaml import Node, Problems
from experience.errors import ConfigError
from experience.shards.redaction.redact import name_secrets

if TYPE_CHECKING:
    from actors.config.schema import Config, Policy


def check_sense(config: Config, merged: Node, problems: Problems) -> None:
    """Notes every contradiction between keys."""
    policy = config.policy
    place = merged.value["policy"].place if "policy" in merged.value else "defaults"
    if ADDRESS.match(config.runs_dir):
        where = merged.value["runs_dir"].place if "runs_dir" in merged.value else "defaults"
        problems.add(
            where,
            f"runs_dir: {config.runs_dir} is an address, and runs are written to a local folder",
            "name a folder; what is sealed can be sent on: experience.shards.storage.remote.mirror",
        )
    for what, hint in [*_policy_problems(policy), *_server_problems(policy)]:
        problems.add(place, what, hint)
    try:
        arguments_of(policy)
    except ConfigError as error:
        said = str(error).removesuffix(error.hint).rstrip()
        problems.add(place, said[said.index("policy.arguments") :], error.hint)
    else:
        for what, hint in _placement_problems(config):
            problems.add(place, what, hint)
    for what, hint in _history_problems(config):
        where = merged.value["agent"].place if "agent" in merged.value else "defaults"
        problems.add(where, what, hint)
    if config.agents and config.planning.lookahead.candidates:
        problems.add(
            merged.value["agents"].place if "agents" in merged.value else "defaults",
            "agents and planning.lookahead.candidates exclude each other: a program's calls are "
            "answered by the policy alone",
            "set planning.lookahead.candidates=0",
        )
    ids = [world.id for world in config.worlds]
    for i, env_id in enumerate(ids):
        if env_id in ids[:i]:
            problems.add(
                place, f"worlds[{i}].id: {env_id} is listed twice", "raise its groups instead"
            )


def _policy_problems(policy: Policy) -> Iterator[tuple[str, str]]:
    """(what is wrong, what to do) with the model and how it samples."""
    if policy.engine == "small" and policy.width % (2 * policy.heads):
        # Rotary position embeddings turn the channels of a head in pairs.
        wanted = f"2 x heads = {2 * policy.heads}"
        yield f"policy.width: {policy.width} is not a multiple of {wanted}", ""
    if policy.pixels and policy.engine != "small":
        yield (
            f"policy.pixels: it is a setting of the engine small, not of {policy.engine}",
            "leave it out: a model of others says itself what it sees",
        )
    if policy.sees and policy.engine != "openai":
        yield (
            f"policy.sees: it is a setting of the engine openai, not of {policy.engine}",
            "leave it out; the engine small sees with policy.pixels=64",
        )
    if policy.engine == "vllm" and policy.listed:
        yield (
            "policy.listed: the engine vllm does not hold a model to a list of actions yet",
            "leave it out, or use policy.engine=hugging_face",
        )
    if policy.max_tokens >= policy.context:
        yield (
            f"policy.max_tokens: {policy.max_tokens} leaves no room for a prompt in a context of "
            f"{policy.context}",
            "raise policy.context or lower policy.max_tokens",
        )
    if (
        policy.engine in ("small", "hugging_face", "vllm")
        and policy.learns
        and policy.temperature == 0
    ):
        yield (
            "policy.temperature: 0 is greedy, and a greedy action is no sample to learn from",
            "set policy.temperature=1, or policy.learns=false; evaluation.temperature is another",
        )


def history_of(config: Config) -> str:
    """`agent.history` as it is in force: `auto` is full for chat models without planning."""
    if config.agent.history != "auto":
        return config.agent.history
    is_chat = config.policy.engine in CHAT_ENGINES
    return "full" if is_chat and not any(_plans_without_history(config)) else "none"


def _plans_without_history(config: Config) -> Iterator[str]:
    """The keys by which a run asks the policy about turns that nobody has lived: they have no
    history to read."""
    planning = config.planning
    if planning.lookahead.candidates:
        yield "planning.lookahead.candidates"
    if not planning.enabled or not config.policy.learns:
        return
    if planning.branches.groups:
        yield "planning.branches.groups"
    if planning.sweeps.roots:
        yield "planning.sweeps.roots"
    if planning.options.skills:
        yield "planning.options.skills"


def _history_problems(config: Config) -> Iterator[tuple[str, str]]:
    """(what is wrong, what to do) with what the agent is to read again."""
    history = config.agent.history
    wants_memory = history not in ("auto", "none") or config.agent.notes > 0
    if wants_memory and config.policy.engine == "table":
        yield (
            "agent: policy.engine=table looks up one observation, and reads no history or notes",
            "use policy.engine=small or a language model",
        )
        return
    for key in _plans_without_history(config) if history not in ("auto", "none") else ():
        yield (
            f"agent.history: {history} and {key} exclude each other: the policy would be asked "
            "about imagined turns without the history that it is used to",
            f"set {key}=0 or agent.history=none",
        )
    if config.policy.pixels and config.agent.sight == "ignore":
        yield (
            "agent.sight: ignore and policy.pixels exclude each other: the learner would show the "
            "model pictures that it was not shown when it acted",
            "set policy.pixels=0 or agent.sight=auto",
        )
    for key in _plans_without_history(config) if config.policy.pixels else ():
        yield (
            f"policy.pixels and {key} exclude each other: the policy would be asked about imagined "
            "turns, of which there is no picture",
            f"set {key}=0 or planning.enabled=false",
        )


def _server_problems(policy: Policy) -> Iterator[tuple[str, str]]:
    """(what is wrong, what to do) with the model's name and the address of its server."""
    if policy.engine == "openai" and not policy.base_url:
        yield (
            "policy.base_url: the openai engine needs its server",
            "set policy.base_url=http://127.0.0.1:8000/v1",
        )
    if policy.engine in CHAT_ENGINES and not policy.model:
        yield (
            f"policy.model: the {policy.engine} engine needs a model",
            "set policy.model=NAME",
        )
    if policy.base_url and (why := _wrong_url(policy.base_url)):
        yield (
            f"policy.base_url: {why}",
            "write http://HOST:PORT/v1, and name the key's variable in policy.api_key_env",
        )
    if f":{HIDDEN}@" in policy.base_url and not os.environ.get(PASSWORD):
        yield (
            "policy.base_url: its password is not kept in files, and is not set here",
            f"set the environment variable {PASSWORD}",
        )
    if policy.engine == "openai" and policy.learns:
        yield (
            "policy.learns: a server's weights cannot be updated from here",
            "set policy.learns=false",
        )


def _placement_problems(config: Config) -> Iterator[tuple[str, str]]:
    """(what is wrong, what to do) with where the engine is."""
    policy = config.policy
    if policy.engine != "vllm" or policy.base_url or not config.workers:
        return
    if arguments_of(policy).placement == "inside":
        yield (
            f"policy.arguments.placement: inside would start a server in each of {config.workers} "
            "collectors",
            "set policy.arguments.placement=node, or name a running server in policy.base_url",
        )


def names_of_secrets(value: Any) -> Iterator[str]:
    """The environment variables that a configuration names: values of keys that end in `_env`."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key.endswith("_env") and isinstance(inner, str):
                yield inner
            yield from names_of_secrets(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from names_of_secrets(inner)


def _wrong_url(url: str) -> str:
    """What is wrong with a server's address, or "".

    The answer does not quote the address, which may hold a secret.
    """
    try:
        split = urlsplit(url)
        user, password, _ = split.username, split.password, split.port
    except ValueError:
        return "not an address"
    if split.scheme not in ("http", "https") or not split.hostname or "\\" in url:
        return "not an address of http or https"
    if user and not password:
        return "it names a user without a password: a token does not belong into an address"
    if (
        split.fragment
        or ";" in url
        or any(name != "api-version" for name, _ in parse_qsl(split.query, True))
    ):
        return (
            "it has more than a host and a path (and api-version): "
            "a key does not belong into an address"
        )
    if "@" in split.path:
        return "an @ in its path: a password stands before the host, or nowhere"
    return ""


def without_password(config: Config) -> Config:
    """`config` without the password of its base_url, which moves into the environment."""
    split = urlsplit(config.policy.base_url)  # check_sense has seen that it can be split
    _, at, host = split.netloc.rpartition("@")
    password = unquote(split.password or "")
    if not at or password in ("", HIDDEN):
        return config
    # Engines in child processes read it there; config.yaml, which is kept, has a mark instead.
    os.environ[PASSWORD] = password
    name_secrets([PASSWORD])
    shown = urlunsplit(split._replace(netloc=f"{split.username}:{HIDDEN}@{host}"))
    return config.model_copy(
        update={"policy": config.policy.model_copy(update={"base_url": shown})}
    )
