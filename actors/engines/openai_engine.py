"""The engine `openai`: any server of the OpenAI chat protocol: vLLM, llama.cpp, a hosted model.

A server that tells the tokens that it read and wrote, as vLLM does, gives exact steps. Others give
text: their steps are marked as not token-exact, kept, evaluated and imitated as text, and no policy
gradient is taken on them. Servers tell log-probabilities before temperature, so that only an answer
at temperature 1 counts as a sample.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from actors.engines.calls.server import counted, said_in
from actors.engines.calls.telling import with_tools
from actors.engines.engine import (
    Situation,
    answer_fields,
    messages,
    with_calls,
    with_pictures,
)
from actors.engines.model import TrainedModel
from actors.engines.registry import EngineKind
from actors.engines.servers.passwords import with_password
from actors.engines.servers.tokens import ASKED, ServedTokens, served_tokens
from actors.engines.settings import PolicySettings
from experience.errors import EngineError
from experience.models.weights import Weights
from experience.policy import Decision, VersionSpan
from experience.shards.redaction.redact import Redactor
from experience.shards.storage.blobs import media_and_size
from experience.shards.storage.pictures import png

_FIRST_SECONDS = 10.0
"""How long a server may take, before a run, to list its models."""

_FIRST_TOKEN_SECONDS = 60.0
"""How long a server may take, before a run, to load a model and write a token."""

_FIRST_PICTURE = np.full((64, 64, 3), 128, np.uint8)
"""What a server that sees is shown before a run: many refuse pictures of a few pixels."""

_NO_ANSWER = (AttributeError, IndexError, TypeError, ValueError)
"""Raised by reading an answer that is no chat completion: the SDK does not check answers."""


class OpenAIServer:
    """Sends the requests of one round side by side. The SDK sends a request again after connection
    errors, 429 and 5xx."""

    behaviour_id = "openai"
    answers_alone = True

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_env: str,
        most_tokens: int,
        timeout_seconds: float,
        retries: int,
        sees: bool = False,
        tools: str = "auto",
    ) -> None:
        import openai

        self.version = 0
        self.sees = sees
        self._openai = openai
        self._model = model
        self._tells_tokens: bool | None = None
        """Whether the server tells exact tokens; None until it has answered."""
        self._most_tokens = most_tokens
        self._base_url = base_url
        self._tools = tools
        self._timeout = timeout_seconds
        self._client = openai.OpenAI(
            base_url=with_password(base_url),
            api_key=os.environ.get(api_key_env, "none"),
            timeout=timeout_seconds,
            max_retries=retries,
        )
        self._threads = ThreadPoolExecutor(16, thread_name_prefix="openai")

    def load(self, weights: Weights) -> None:
        raise EngineError(
            "a server's weights cannot be replaced from here", "set policy.learns=false"
        )

    def encode(self, situation: Situation, action: str) -> None:
        return None

    def act(self, situations: Sequence[Situation], temperature: float) -> list[Decision]:
        """Raises EngineError when a request failed for good."""
        if len(situations) == 1:  # the caller has a thread for each of its own
            return [self._ask(situations[0], temperature)]
        return list(self._threads.map(lambda s: self._ask(s, temperature), situations))

    def check(self) -> None:
        """Asks for the list of models and for one token, with less patience than during a run.

        Raises EngineError within seconds if nobody answers, or not as such a server does.
        """
        openai = self._openai
        served: list[str] = []
        try:
            quick = self._client.with_options(
                timeout=min(self._timeout, _FIRST_SECONDS), max_retries=0
            )
            served = [model.id for model in quick.models.list().data]
        except openai.APIConnectionError as error:  # a timeout is one
            raise self._failure(error) from None
        except (openai.OpenAIError, *_NO_ANSWER):
            pass  # a server is there, and not every server lists its models
        patient = self._client.with_options(
            timeout=min(self._timeout, _FIRST_TOKEN_SECONDS), max_retries=1
        )
        try:
            images = {"grey": png(_FIRST_PICTURE)} if self.sees else {}
            self._create(patient, Situation("Say yes.", images=images), 0.0, 1)
        except openai.NotFoundError as error:
            known = f"it serves {', '.join(served[:8])}; set policy.model" if served else ""
            raise self._failure(error, known) from None
        except (openai.OpenAIError, *_NO_ANSWER) as error:
            raise self._failure(error) from None

    def _ask(self, situation: Situation, temperature: float) -> Decision:
        try:
            begun = time.perf_counter()
            answer = self._answer(situation, temperature)
            seconds = time.perf_counter() - begun
            said, ending = said_in(answer)
            tokens = served_tokens(answer) if self._tells_tokens else None
        except (self._openai.OpenAIError, *_NO_ANSWER) as error:
            # `from None`: the SDK's error holds the request, and the request holds the key
            raise self._failure(error) from None
        decision = Decision(
            **answer_fields(said, situation),
            seconds=seconds,
            model=self._model,
            finish_reason=ending,
            **counted(answer),
            policy_version=self.version,
            token_exact=False,
            decoder=f"temperature={temperature:g}",
            temperature=temperature,
            action_cut=ending == "length",
            behaviour_id=f"openai:{self._model}",
        )
        return decision if tokens is None else _exact(decision, tokens)

    def _answer(self, situation: Situation, temperature: float) -> Any:
        """An answer, with its tokens if the server tells them. The first answers decide that."""
        if self._tells_tokens is not False:
            try:
                answer = self._create(
                    self._client, situation, temperature, self._most_tokens, **ASKED
                )
            except (self._openai.BadRequestError, self._openai.UnprocessableEntityError):
                if self._tells_tokens:
                    raise
            else:
                if self._tells_tokens is None:
                    self._tells_tokens = served_tokens(answer) is not None
                return answer
        answer = self._create(self._client, situation, temperature, self._most_tokens)
        if self._tells_tokens is None:
            self._tells_tokens = False  # it refuses to be asked for them, and answers otherwise
        return answer

    def _create(
        self, client: Any, situation: Situation, temperature: float, most_tokens: int, **also: Any
    ) -> Any:
        """A chat completion. Raises what the SDK raises, or one of `_NO_ANSWER` if the answer is no
        chat completion.

        A server that refuses a request for its tools is told of them in words from then on.
        """
        asked = {"model": self._model, "temperature": temperature, "max_tokens": most_tokens}
        asked |= also
        by_server = bool(situation.tools) and self._tools in ("auto", "template")
        if by_server:
            told = {"messages": self._chat(situation, apart=True), "tools": list(situation.tools)}
            try:
                return _checked(client.chat.completions.create(**asked, **told))
            except (self._openai.BadRequestError, self._openai.UnprocessableEntityError):
                if self._tools == "template":
                    raise
        in_words = situation.tools if self._tools != "none" else ()
        rules = with_tools(situation.instructions, in_words)
        chat = self._chat(replace(situation, instructions=rules), apart=False)
        answer = _checked(client.chat.completions.create(**asked, messages=chat))
        if by_server:  # it takes the same request in words: the tools were what it refused
            self._tools = "text"
        return answer

    @staticmethod
    def _chat(situation: Situation, apart: bool) -> list[dict[str, Any]]:
        """The chat with its pictures; with calls apart from what is said, where none are shown: a
        result has no place for pictures."""
        if apart and not any(situation.pictures):
            return with_calls(situation)
        return with_pictures(messages(situation), situation.pictures, _image_url)

    def _failure(self, error: Exception, hint: str = "") -> EngineError:
        """What went wrong at which server, without the secrets that the SDK's message may hold."""
        what = f"{type(error).__name__}: {error}"
        if isinstance(error, self._openai.APITimeoutError):
            what = "it takes the connection and does not answer in time"
        elif isinstance(error, self._openai.APIConnectionError):
            what = f"no connection: {error.__cause__ or error}"
        elif not isinstance(error, self._openai.OpenAIError):
            what = "what it answers is no chat completion of the OpenAI protocol"
        said = Redactor.current().text(f"policy.base_url: {self._base_url}: {what}")
        return EngineError(
            said[:400],
            hint
            or "is the server up, is policy.base_url its address (most end with /v1), "
            "and does it serve policy.model?",
        )


def _checked(answer: Any) -> Any:
    """The answer. Raises one of `_NO_ANSWER` if it is no chat completion."""
    said_in(answer)
    return answer


def _exact(decision: Decision, tokens: ServedTokens) -> Decision:
    return replace(
        decision,
        prompt_ids=tokens.prompt_ids,
        action_ids=tokens.action_ids,
        logprobs=tokens.logprobs,
        version_spans=(VersionSpan(decision.policy_version, len(tokens.action_ids)),),
        token_exact=True,
        sampled=decision.temperature == 1.0,
    )


def _image_url(picture: bytes) -> dict[str, Any]:
    """A picture as a part of a message: its bytes in a data URL."""
    media, _, _ = media_and_size(picture)
    coded = base64.b64encode(picture).decode()
    return {"type": "image_url", "image_url": {"url": f"data:{media};base64,{coded}"}}


def _client_of(policy: PolicySettings) -> OpenAIServer:
    return OpenAIServer(
        policy.base_url,
        policy.model,
        policy.api_key_env,
        policy.max_tokens,
        policy.timeout_seconds,
        policy.retries,
        policy.sees,
        policy.tools,
    )


def make_engine(policy: PolicySettings, seed: int, trained: TrainedModel | None) -> OpenAIServer:
    """A client of the server; the server has random numbers and weights of its own."""
    return _client_of(policy)


def check(policy: PolicySettings) -> None:
    _client_of(policy).check()


KIND = EngineKind(make_engine, check=check)
