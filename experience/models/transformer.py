"""A small causal transformer for CPUs: rotary positions, tied embeddings, a key-value cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from experience.errors import RecordError
from experience.models.sight import PATCHES, Sight


@dataclass(frozen=True)
class TransformerShape:
    vocabulary: int
    layers: int = 4
    width: int = 128
    heads: int = 4
    context: int = 512
    pixels: int = 0
    """The side of the picture that is read before the tokens; 0: a model of text alone."""


@dataclass
class Cache:
    """The keys and values of the tokens read so far, for each layer [B, H, T, D]."""

    keys: list[Tensor]
    values: list[Tensor]

    @classmethod
    def empty(cls, layers: int) -> Cache:
        return cls([torch.empty(0)] * layers, [torch.empty(0)] * layers)

    @property
    def length(self) -> int:
        return 0 if self.keys[0].dim() < 4 else self.keys[0].shape[2]

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Adds the keys and values of new tokens; returns those of all tokens."""
        if self.keys[layer].dim() == 4:
            key = torch.cat([self.keys[layer], key], 2)
            value = torch.cat([self.values[layer], value], 2)
        self.keys[layer], self.values[layer] = key, value
        return key, value

    def keep(self, rows: Tensor) -> None:
        """Drops all sequences except `rows`."""
        self.keys = [k[rows] for k in self.keys]
        self.values = [v[rows] for v in self.values]


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class _Block(nn.Module):
    def __init__(self, shape: TransformerShape, layer: int) -> None:
        super().__init__()
        self.layer, self.heads = layer, shape.heads
        self.norm_attention, self.norm_mlp = nn.RMSNorm(shape.width), nn.RMSNorm(shape.width)
        self.qkv = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.out = nn.Linear(shape.width, shape.width, bias=False)
        self.up = nn.Linear(shape.width, 4 * shape.width, bias=False)
        self.down = nn.Linear(4 * shape.width, shape.width, bias=False)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: Cache | None
    ) -> Tensor:
        batch, time, width = x.shape
        q, k, v = (
            self.qkv(self.norm_attention(x))
            .view(batch, time, 3, self.heads, -1)
            .permute(2, 0, 3, 1, 4)
        )
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)
        seen = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None
        )
        x = x + self.out(seen.transpose(1, 2).reshape(batch, time, width))
        added: Tensor = self.down(functional.gelu(self.up(self.norm_mlp(x)), approximate="tanh"))
        return x + added


class Transformer(nn.Module):
    """tokens int64 [B, T] -> logits float32 [B, T, V].

    A model that sees takes pictures uint8 [B, S, S, 3] too. It reads their patches before all
    tokens; they are no tokens themselves, and nothing is predicted there.
    """

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(_Block(shape, layer) for layer in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width)
        self.sight = Sight(shape.pixels, shape.width) if shape.pixels else None
        half = shape.width // shape.heads // 2
        angles = torch.arange(shape.context + self.patches)[:, None] * 10_000.0 ** (
            -torch.arange(half) / half
        )
        # Not among the weights: they follow from the shape alone.
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                scale = 0.02 if "embedding" in name else weight.shape[1] ** -0.5
                # Each layer adds two branches to the residual stream: this keeps its variance.
                if name.endswith(("out.weight", "down.weight")):
                    scale /= (2 * shape.layers) ** 0.5
                nn.init.normal_(weight, std=scale)

    @property
    def patches(self) -> int:
        """The number of vectors that stand before the tokens."""
        return PATCHES if self.sight is not None else 0

    def forward(self, tokens: Tensor, pictures: Tensor | None = None) -> Tensor:
        """Logits of whole sequences; padding, if any, is on the right. Raises as `hidden`."""
        return self.logits(self.hidden(tokens, pictures))

    def hidden(self, tokens: Tensor, pictures: Tensor | None = None) -> Tensor:
        """What the head reads at each token of whole sequences, float [B, T, W].

        Raises RecordError if they are longer than the context.
        """
        x = self.begin(tokens, pictures)
        positions = torch.arange(x.shape[1], device=x.device)[None]
        return self._read(x, positions, None, None)[:, self.patches :]

    def session(self, pictures: Tensor | None = None) -> TransformerSession:
        return TransformerSession(self, pictures)

    def begin(self, tokens: Tensor, pictures: Tensor | None) -> Tensor:
        """What is read first: the patches of the pictures, then the tokens, float [B, P + T, W]."""
        embedded: Tensor = self.embedding(tokens)
        if self.sight is None:
            return embedded
        seen = self.sight.blank(len(tokens)) if pictures is None else pictures
        return torch.cat([self.sight(seen), embedded], 1)

    def decode(self, x: Tensor, positions: Tensor, mask: Tensor, cache: Cache) -> Tensor:
        """Logits [B, V] after the vectors `x` [B, T, W] at `positions` [B, T].

        mask: bool [B, 1, T, cached + T], True where a token is attended to.
        """
        # The last token's logits only: no other one is sampled from.
        return self.logits(self._read(x, positions, mask, cache)[:, -1])

    def _read(
        self, x: Tensor, positions: Tensor, mask: Tensor | None, cache: Cache | None
    ) -> Tensor:
        length = x.shape[1] + (cache.length if cache is not None else 0) - self.patches
        if length > self.shape.context:
            raise RecordError(
                f"a sequence of {length} tokens does not fit into a context of "
                f"{self.shape.context}",
                f"give the model a context of {length} tokens, or shorten what it reads",
            )
        cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]  # type: ignore[index]
        for block in self.blocks:
            x = block(x, cos, sin, mask, cache)
        hidden: Tensor = self.norm(x)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits float32 [..., V] of hidden [..., W]."""
        # Tied: a token's vector is learned both where the token is read and where it is written.
        return functional.linear(hidden, self.embedding.weight).float()


class TransformerSession:
    """A `decoding.Session` of a `Transformer`."""

    def __init__(self, model: Transformer, pictures: Tensor | None = None) -> None:
        self._model, self._pictures = model, pictures
        self._cache = Cache.empty(model.shape.layers)

    def read(self, tokens: Tensor, seen: Tensor) -> Tensor:
        model = self._model
        is_first = self._cache.length == 0
        x = model.begin(tokens, self._pictures) if is_first else model.embedding(tokens)
        if model.patches:  # they are seen by every row, before its padding
            seen = torch.cat([seen.new_ones(len(seen), model.patches), seen], 1)
        new, length = x.shape[1], seen.shape[1]
        positions = (seen.cumsum(1) - 1).clamp(min=0)[:, -new:]
        causal = torch.ones(new, length, dtype=torch.bool).tril(length - new)
        # Padding attends to itself: a softmax over an empty row of the mask would be NaN.
        itself = torch.eye(length, dtype=torch.bool)[-new:]
        mask = (causal[None] & seen[:, None]) | itself[None]
        return model.decode(x, positions, mask[:, None], self._cache)

    def keep(self, rows: Tensor) -> None:
        self._cache.keep(rows)
