"""The registry of engines: which one a configuration names. Heavy libraries are imported only by the engine that
needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.engines.engine import Engine

if TYPE_CHECKING:
    from actors.config.schema import Policy
    from actors.engines.openai_server import OpenAIServer


def check_server(policy: Policy) -> None:
    """Raises EngineError, within seconds, where the policy's server does not answer as it must; other engines have
    none. To be called before a run lives anything."""
    if policy.engine == "openai":
        _server(policy).check()


def _server(policy: Policy) -> OpenAIServer:
    from actors.engines.openai_server import OpenAIServer

    return OpenAIServer(
        policy.base_url,
        policy.model,
        policy.api_key_env,
        policy.max_tokens,
        policy.timeout_seconds,
        policy.retries,
    )


def make_engine(policy: Policy, seed: int) -> Engine:
    """The engine that the configuration names. Heavy libraries are imported only by the one that needs them."""
    if policy.engine == "table":
        from actors.engines.table import TableEngine

        return TableEngine(policy.epsilon, seed)
    if policy.engine == "openai":
        return _server(policy)
    from actors.engines.local import Room

    room = Room(
        policy.context, policy.max_tokens, policy.place("context"), policy.place("max_tokens")
    )
    if policy.engine == "hugging_face":
        from actors.engines.hugging_face import hugging_face_engine

        return hugging_face_engine(policy.model, room, seed, policy.listed)
    from actors.engines.small import small_engine
    from experience.models.tokenizer import ByteTokenizer
    from experience.models.transformer import TransformerShape

    shape = TransformerShape(
        ByteTokenizer.size, policy.layers, policy.width, policy.heads, policy.context
    )
    return small_engine(shape, room, seed, policy.listed)
