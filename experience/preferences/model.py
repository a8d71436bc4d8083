"""A preference model: a scalar head on the trunk of a policy, which scores a whole episode.

The episode is read as the small policy reads it: of each turn the prompt and the action, as bytes.
So episodes of any engine, of people and of other projects can be scored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from experience.episode import Episode
from experience.errors import WeightsError
from experience.models.decoding import fit
from experience.models.tokenizer import ByteTokenizer
from experience.models.transformer import Transformer, TransformerShape
from experience.preferences.naming import version_of
from experience.text.strict_json import dumps

_SHAPE = "shape"
_FORM = "xp-preference-model-1"
_BATCH_TOKENS = 8192


def transcript(episode: Episode, most_tokens: int) -> np.ndarray:
    """What the agent saw and did, int32 [L]. If it is too long it loses its middle."""
    tokenizer = ByteTokenizer()
    parts = []
    for seen, done in episode.acted:
        parts += [tokenizer.prompt(seen), tokenizer.action(done)]
    if episode.closing is not None:
        parts.append(tokenizer.prompt(episode.closing.obs_text))
    whole = np.concatenate(parts) if parts else tokenizer.prompt("")
    return fit(whole, most_tokens)


class PreferenceModel(nn.Module):
    """tokens int64 [B, L], lengths int64 [B] -> scores float32 [B].

    mean, spread: of the scores of the episodes that it was fitted on; `standard` scores are less
    that mean, divided by that spread, so that a weight of 1 means the same for every model.
    """

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.trunk = Transformer(shape)
        self.head = nn.Linear(shape.width, 1, bias=False)
        nn.init.zeros_(self.head.weight)
        self.mean = nn.Parameter(torch.zeros(()), requires_grad=False)
        self.spread = nn.Parameter(torch.ones(()), requires_grad=False)

    @property
    def context(self) -> int:
        return self.trunk.shape.context

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        hidden = self.trunk.hidden(tokens)
        last = hidden[torch.arange(len(tokens)), lengths - 1]
        score: Tensor = self.head(last)[:, 0]
        return score

    @torch.inference_mode()
    def standard(self, transcripts: Sequence[np.ndarray]) -> np.ndarray:
        """Standard scores of token sequences, float64 [N]."""
        found = [self(*padded(some)) for some in _runs(transcripts)]
        scores = torch.cat(found) if found else torch.empty(0)
        standard: np.ndarray = ((scores - self.mean) / self.spread).double().numpy()
        return standard

    def score(self, episodes: Iterable[Episode]) -> np.ndarray:
        """Standard scores of episodes, float64 [N]."""
        return self.standard([transcript(episode, self.context) for episode in episodes])

    def save(self) -> bytes:
        """The weights and the shape as safetensors."""
        tensors = {n: p.detach().contiguous() for n, p in self.named_parameters()}
        return save(tensors, {"form": _FORM, _SHAPE: dumps(asdict(self.trunk.shape))})


def new_model(shape: TransformerShape, seed: int) -> PreferenceModel:
    """A model with new weights, which `seed` alone decides."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PreferenceModel(shape)


def read_model(path: Path) -> tuple[PreferenceModel, str]:
    """The model that `save` wrote to a file, and its version.

    Raises WeightsError if the file is missing, damaged, or no preference model.
    """
    try:
        version = version_of(path.read_bytes())
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"preference model {path}: {error}", "./xp prefer RUN --out FILE.safetensors makes one"
        ) from error
    if about.get("form") != _FORM:
        raise WeightsError(
            f"{path} is no preference model", "./xp prefer RUN --out FILE.safetensors makes one"
        )
    model = PreferenceModel(TransformerShape(**json.loads(about[_SHAPE])))
    own = dict(model.named_parameters())
    differing = [
        name
        for name in own.keys() | tensors.keys()
        if name not in own or name not in tensors or own[name].shape != tensors[name].shape
    ]
    if differing:
        raise WeightsError(
            f"preference model {path}: tensors {sorted(differing)[:3]} differ from its shape",
            "make it again: ./xp prefer RUN --out FILE.safetensors",
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
    return model.eval(), version


def padded(transcripts: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """(tokens int64 [B, L] padded on the right, lengths int64 [B])."""
    lengths = [len(t) for t in transcripts]
    tokens = np.zeros((len(transcripts), max(lengths)), np.int64)
    for row, transcript_ in enumerate(transcripts):
        tokens[row, : len(transcript_)] = transcript_
    return torch.from_numpy(tokens), torch.tensor(lengths)


def _runs(transcripts: Sequence[np.ndarray]) -> Iterable[Sequence[np.ndarray]]:
    """The sequences in their order, at most `_BATCH_TOKENS` padded tokens at once."""
    run: list[np.ndarray] = []
    longest = 0
    for one in transcripts:
        longest = max(longest, len(one))
        if run and longest * (len(run) + 1) > _BATCH_TOKENS:
            yield run
            run, longest = [], len(one)
        run.append(one)
    if run:
        yield run
