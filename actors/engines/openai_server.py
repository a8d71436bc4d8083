"""Any server that speaks the OpenAI chat protocol: vLLM, llama.cpp, transformers serve, a hosted model.

Such a server gives text, not the exact tokens that were sampled, so its steps are marked as not token-exact: they
are kept, evaluated and imitated as text, and no policy gradient is taken on them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

from actors.config.sense import HIDDEN, PASSWORD
from actors.engines.engine import Situation, messages, parse_action
from experience.errors import EngineError
from experience.models.weights import Weights
from experience.policy import Decision
from experience.shards.redaction.redact import Redactor

_FIRST_SECONDS, _FIRST_TOKEN_SECONDS = 10.0, 60.0
"""How long a server may take, before a run, to list its models, and to load one and write a token."""
_NO_ANSWER = (AttributeError, IndexError, TypeError, ValueError)
"""What reading an answer that is no chat completion ends with: the SDK does not check it."""


class OpenAIServer:
    """Requests of one round run side by side; each is retried by the SDK on connection errors, 429 and 5xx."""

    behaviour_id = "openai"
    model = None

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_env: str,
        most_tokens: int,
        timeout_seconds: float,
        retries: int,
    ) -> None:
        import openai

        self._openai, self._model, self._most_tokens, self.version = openai, model, most_tokens, 0
        self._base_url, self._timeout = base_url, timeout_seconds
        self._client = openai.OpenAI(
            base_url=_with_password(base_url),
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
        return list(self._threads.map(lambda s: self._ask(s, temperature), situations))

    def check(self) -> None:
        """Asks for the list of models and for one token. Raises EngineError within seconds where nobody answers, or
        not as such a server does: before a run, nothing is worth a long wait."""
        openai, served = self._openai, list[str]()
        try:
            quick = self._client.with_options(
                timeout=min(self._timeout, _FIRST_SECONDS), max_retries=0
            )
            served = [model.id for model in quick.models.list().data]
        except openai.APIConnectionError as error:  # a timeout is one
            raise self._failure(error) from None
        except (openai.OpenAIError, *_NO_ANSWER):
            pass  # somebody is there; not every server lists its models
        patient = self._client.with_options(
            timeout=min(self._timeout, _FIRST_TOKEN_SECONDS), max_retries=1
        )
        try:
            self._create(patient, Situation("Say yes."), 0.0, 1)
        except openai.NotFoundError as error:
            known = f"it serves {', '.join(served[:8])}; set policy.model" if served else ""
            raise self._failure(error, known) from None
        except (openai.OpenAIError, *_NO_ANSWER) as error:
            raise self._failure(error) from None

    def _ask(self, situation: Situation, temperature: float) -> Decision:
        try:
            text, ending = self._create(self._client, situation, temperature, self._most_tokens)
        except (self._openai.OpenAIError, *_NO_ANSWER) as error:
            raise self._failure(
                error
            ) from None  # the SDK's error holds the request, and that the key
        return Decision(
            text=parse_action(text),
            policy_version=self.version,
            token_exact=False,
            decoder=f"temperature={temperature:g}",
            temperature=temperature,
            action_cut=ending == "length",
            behaviour_id=f"openai:{self._model}",
        )

    def _create(
        self, client: Any, situation: Situation, temperature: float, most_tokens: int
    ) -> tuple[str, str]:
        """(text, why it ended). Raises what the SDK does, or one of `_NO_ANSWER` for what is no chat completion."""
        answer = client.chat.completions.create(
            model=self._model,
            messages=messages(situation),
            temperature=temperature,
            max_tokens=most_tokens,
        )
        choice = answer.choices[0]
        return str(choice.message.content or ""), str(choice.finish_reason)

    def _failure(self, error: Exception, hint: str = "") -> EngineError:
        """What went wrong at which server, without the secrets that the SDK's words may hold."""
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


def _with_password(base_url: str) -> str:
    """What a copy of the configuration hides, put back for the client. Raises EngineError where it is not here."""
    if f":{HIDDEN}@" in base_url and not os.environ.get(PASSWORD):
        raise EngineError(
            f"{PASSWORD} is not set here, and policy.base_url needs its password",
            f"set {PASSWORD} in the environment of every node",
        )
    return base_url.replace(f":{HIDDEN}@", f":{quote(os.environ.get(PASSWORD, ''), safe='')}@", 1)
