"""Any server that speaks the OpenAI chat protocol: vLLM, llama.cpp, transformers serve, a hosted model.

Such a server gives text, not the exact tokens that were sampled, so its steps are marked as not token-exact: they
are kept, evaluated and imitated as text, and no policy gradient is taken on them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

from actors.config import HIDDEN, PASSWORD
from actors.engines import Situation, messages, parse_action
from experience.errors import EngineError
from experience.models.weights import Weights
from experience.policy import Decision
from experience.shards.redact import Redactor


class OpenAIServer:
    """Requests of one round run side by side; each is retried by the SDK on connection errors, 429 and 5xx."""

    behaviour_id = "openai"
    model = None

    def __init__(self, base_url: str, model: str, api_key_env: str, most_tokens: int, timeout_seconds: float,
                 retries: int) -> None:
        import openai

        self._openai, self._model, self._most_tokens, self.version = openai, model, most_tokens, 0
        self._base_url = base_url
        self._client = openai.OpenAI(base_url=_with_password(base_url), api_key=os.environ.get(api_key_env, "none"),
                                     timeout=timeout_seconds, max_retries=retries)
        self._threads = ThreadPoolExecutor(16, thread_name_prefix="openai")

    def load(self, weights: Weights) -> None:
        raise EngineError("a server's weights cannot be replaced from here", "set policy.learns=false")

    def encode(self, situation: Situation, action: str) -> None:
        return None

    def act(self, situations: Sequence[Situation], temperature: float) -> list[Decision]:
        """Raises EngineError when a request failed for good."""
        return list(self._threads.map(lambda s: self._ask(s, temperature), situations))

    def _ask(self, situation: Situation, temperature: float) -> Decision:
        try:
            answer = self._client.chat.completions.create(
                model=self._model, messages=messages(situation), temperature=temperature,  # type: ignore[arg-type]
                max_tokens=self._most_tokens)
        except self._openai.OpenAIError as error:
            said = Redactor.current().text(f"{self._base_url}: {type(error).__name__}: {error}")
            raise EngineError(said[:400], "is the server up, and does it serve policy.model?"
                              ) from None  # the SDK's error holds the request, and that the key
        text = answer.choices[0].message.content or ""
        return Decision(text=parse_action(text), policy_version=self.version, token_exact=False,
                        decoder=f"temperature={temperature:g}", temperature=temperature,
                        action_cut=answer.choices[0].finish_reason == "length", behaviour_id=f"openai:{self._model}")


def _with_password(base_url: str) -> str:
    """What a copy of the configuration hides, put back for the client. Raises EngineError where it is not here."""
    if f":{HIDDEN}@" in base_url and not os.environ.get(PASSWORD):
        raise EngineError(f"{PASSWORD} is not set here, and policy.base_url needs its password",
                          f"set {PASSWORD} in the environment of every node")
    return base_url.replace(f":{HIDDEN}@", f":{quote(os.environ.get(PASSWORD, ''), safe='')}@", 1)
