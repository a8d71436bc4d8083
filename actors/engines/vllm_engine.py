"""The engine `vllm`: the model is served by vLLM, and trained here as a low-rank adapter.

Prompts are token ids, rendered and appended here; nothing is rendered again by the server. Every
version of the policy is an adapter of its own in the server, and every request names its version:
no request waits for new weights, and none is answered by other weights than its step says.
Covered: a server started here, or one that runs already and shares a disk. Not covered: lists of
actions (`policy.listed`), pictures.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from actors.engines import hugging_face_engine
from actors.engines.engine import Engine, Situation
from actors.engines.hugging_face_engine import ChatTurns
from actors.engines.local import TokenEngine, TokenLimits
from actors.engines.model import TrainedModel
from actors.engines.registry import EngineKind
from actors.engines.servers.adapters import AdapterShelf
from actors.engines.servers.child import ServerChild
from actors.engines.servers.completions import Answer, Completions
from actors.engines.servers.connection import Connection, Refused
from actors.engines.servers.program import environment_of, serve_command
from actors.engines.settings import PolicySettings, VllmArguments, arguments_of
from experience.errors import ConfigError, EngineError
from experience.models.hugging_face import describe, load, load_tokenizer, write_folder
from experience.models.weights import Weights
from experience.policy import Decision

_PATIENCE_SECONDS = 10.0
"""How long a server that runs already may take, before a run, to say what it serves."""
_LOST = 404
"""The status of a request that names an adapter that the server does not have."""
_NO_ANSWER = (AttributeError, IndexError, KeyError, TypeError, ValueError)
LOGS = "XP_LOGS"
"""The environment variable that names the folder for logs, such as that of a run."""


class Service:
    """One vLLM server as this process uses it: its address, its model's name, its adapters."""

    def __init__(self, policy: PolicySettings, arguments: VllmArguments) -> None:
        self._policy = policy
        self.folder = Path(tempfile.mkdtemp(prefix="xp-vllm-"))
        atexit.register(self.close)
        self._writing = threading.Lock()
        self.child: ServerChild | None = None
        address = policy.base_url
        if not address:
            self.child = self._make_child(policy, arguments)
            address = self.child.base_url
        self.connection = Connection(address, policy.api_key_env, policy.timeout_seconds)
        self.shelf = AdapterShelf(
            self.connection, self.folder / "adapters", arguments.lora_alpha, self.ensure
        )
        self._model = ""

    def _make_child(self, policy: PolicySettings, arguments: VllmArguments) -> ServerChild:
        logs = Path(os.environ.get(LOGS) or self.folder)
        return ServerChild(
            serve_command(policy, arguments, self.folder / "model"),
            environment_of(arguments),
            logs / "vllm.log",
            arguments.port,
            arguments.start_seconds,
        )

    def ensure(self) -> bool:
        """Starts the server if it is ours and does not run. True if it was started."""
        if self.child is None:
            return False
        model = self.folder / "model"
        with self._writing:
            if not model.exists():
                loaded, tokenizer = load(self._policy.model)
                write_folder(loaded, tokenizer, model, arguments_of(self._policy).served_dtype)
        return self.child.ensure(self.connection)

    def begin(self) -> None:
        """Starts the server ahead of the first request, which is told if that fails."""
        with contextlib.suppress(EngineError):
            self.ensure()

    @property
    def model(self) -> str:
        """The name of the model without an adapter."""
        if not self._model:
            self.ensure()
            listed = self.connection.get("/v1/models", _PATIENCE_SECONDS)
            try:
                self._model = next(m["id"] for m in listed["data"] if not m.get("parent"))
            except (*_NO_ANSWER, StopIteration):
                raise EngineError(
                    f"{self.connection.base_url} lists no model", "is it a vLLM server?"
                ) from None
        return self._model

    def close(self) -> None:
        """Ends the server if it was started here, and removes its files; its log stays."""
        if self.child is not None:
            self.child.close()
        for made in ("model", "adapters"):
            shutil.rmtree(self.folder / made, ignore_errors=True)
        with contextlib.suppress(OSError):  # a log may be left in it
            self.folder.rmdir()


_SERVICES: dict[tuple[Any, ...], Service] = {}
_MAKING = threading.Lock()


def service_of(policy: PolicySettings) -> Service:
    """The one server of this process for these settings: acting and pinned engines share it."""
    arguments: VllmArguments = arguments_of(policy)
    key = (policy.base_url, policy.model, policy.context, arguments)
    with _MAKING:
        if key not in _SERVICES:
            _SERVICES[key] = Service(policy, arguments)
            # loading takes minutes: it begins now, while demonstrations are shown and imitated
            threading.Thread(target=_SERVICES[key].begin, daemon=True, name="vllm").start()
        return _SERVICES[key]


class VllmEngine(TokenEngine):
    """Asks the server about each situation by itself; the server makes batches as they come."""

    answers_alone = True

    def __init__(self, policy: PolicySettings, turns: ChatTurns, service: Service) -> None:
        super().__init__(turns, TokenLimits.of(policy), "vllm")
        self._turns = turns
        arguments: VllmArguments = arguments_of(policy)
        self.model_name = Path(policy.model).name
        self._policy = policy
        self._service = service
        self._retries = policy.retries
        self._completions = Completions(
            service.connection, self._limits.most_tokens, turns.ends, arguments.stream
        )
        # a server that was not started here may tell log-probabilities before temperature
        self._tells_tempered = service.child is not None
        self._adapter = ""
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(64, thread_name_prefix="vllm")

    def load(self, weights: Weights) -> None:
        """The requests from now on name this version. Those under way keep theirs."""
        adapter = self._service.shelf.put(weights)
        with self._lock:
            before, self._adapter = self._adapter, adapter
            self.version = weights.version
        if before:
            self._service.shelf.release(before)

    def pinned(self) -> VllmEngine:
        """An engine for one more version, which costs no more than its adapter."""
        return VllmEngine(self._policy, self._turns, self._service)

    def close(self) -> None:
        """Holds no version any more."""
        with self._lock:
            before, self._adapter = self._adapter, ""
        if before:
            self._service.shelf.release(before)

    def act(self, situations: Sequence[Situation], temperature: float) -> list[Decision]:
        """Raises EngineError when a request failed for good."""
        if len(situations) == 1:
            return [self._ask(situations[0], temperature)]
        return list(self._threads.map(lambda s: self._ask(s, temperature), situations))

    def _ask(self, situation: Situation, temperature: float) -> Decision:
        prompt = self._prompt(situation)
        with self._held() as (version, adapter):
            begun = time.perf_counter()
            answer = self._patiently(adapter, prompt.ids, temperature, situation.draw)
            seconds = time.perf_counter() - begun
        if not np.array_equal(answer.prompt_ids, prompt.ids):
            raise EngineError(
                f"{self._service.connection.base_url} read other tokens than it was given",
                "is its tokenizer that of policy.model?",
            )
        decision = self._decision(situation, prompt, answer.sampled, temperature, version)
        is_sample = temperature == 1.0 or (temperature > 0 and self._tells_tempered)
        return replace(
            decision,
            sampled=is_sample,
            seconds=seconds,
            first_token_seconds=answer.first_seconds,
        )

    @contextlib.contextmanager
    def _held(self) -> Iterator[tuple[int, str]]:
        """The present version and its adapter, which stays in the server meanwhile."""
        shelf = self._service.shelf
        with self._lock:
            version, adapter = self.version, self._adapter
            if adapter:
                shelf.hold(adapter)
        try:
            yield version, adapter
        finally:
            if adapter:
                shelf.release(adapter)

    def _patiently(
        self, adapter: str, prompt: np.ndarray, temperature: float, draw: int | None
    ) -> Answer:
        """Asks again while the server is away, and gives back what it has lost."""
        model = adapter or self._service.model
        for tried in range(self._retries + 1):
            try:
                return self._completions.ask(model, prompt, temperature, draw)
            except Refused as refused:
                is_passing = refused.status >= 500 or refused.status == 429
                if refused.status == _LOST and adapter:
                    self._service.shelf.again(adapter)
                elif not is_passing or tried == self._retries:
                    raise
                time.sleep(_pause(tried))
            except EngineError:
                if tried == self._retries:
                    raise
                time.sleep(_pause(tried))
                self._service.ensure()
        raise EngineError(f"the server loses {adapter} again and again", "see its log")


def _pause(tried: int) -> float:
    """Seconds before a request is sent again."""
    return float(min(2.0**tried / 5, 5.0))


def make_model(policy: PolicySettings, seed: int) -> TrainedModel | None:
    """The pretrained model with an adapter of rank `lora_rank`; None if nothing is learned."""
    if not policy.learns:
        return None
    if not arguments_of(policy).lora_rank:
        raise ConfigError(
            f"{policy.place('arguments')}: policy.arguments.lora_rank: 0 trains a whole model, "
            "and a vLLM server takes adapters alone",
            "set lora_rank: 16, or use policy.engine=hugging_face",
        )
    return hugging_face_engine.make_model(policy, seed)


def make_engine(policy: PolicySettings, seed: int, trained: TrainedModel | None) -> Engine:
    """Samples from `trained` in this process, if it is given: imagination needs no server."""
    if trained is not None:
        return hugging_face_engine.make_engine(policy, seed, trained)
    turns = ChatTurns(load_tokenizer(policy.model), describe(policy.model), policy.tools)
    return VllmEngine(policy, turns, service_of(policy))


def check(policy: PolicySettings) -> None:
    """The server answers, if it runs already; the program is there, if it is to be started."""
    if policy.base_url:
        assert service_of(policy).model
    else:
        serve_command(policy, arguments_of(policy), Path("model"))


KIND = EngineKind(make_engine, make_model, check, is_pretrained=True)
