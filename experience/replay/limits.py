"""Limits: how far collecting may run ahead of learning, and learning of collecting. One class says it for all.

samples per insert    a band of samples − inserts, as in Reverb (arXiv 2102.04736, §3.4)
staleness             capacity = (η + version + 1)·B − started, after AReaL (arXiv 2505.24298), eq. 3
bytes                 a store grows so far and no further
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field

from experience.errors import ConfigError
from experience.strict_json import dumps


@dataclass
class Counts:
    """What happened so far: items inserted, sampled, deleted; the learner's version; bytes stored."""

    inserted: int = 0
    sampled: int = 0
    deleted: int = 0
    version: int = 0
    bytes: int = 0


@dataclass
class RateLimiter:
    """Blocks inserts while inserted · samples_per_insert − sampled would leave [min_diff, max_diff] above, samples
    while it would below, and samples while fewer than `min_size_to_sample` items are there. Inserts up to that size
    always pass the band.

    `items_per_update` B and `max_lag` η bound staleness: with B items an update, none is older than η versions when
    it is learned from; B = 0: no bound. `most_bytes` 0: no bound.
    """

    samples_per_insert: float = 1.0
    min_size_to_sample: int = 1
    min_diff: float = -math.inf
    max_diff: float = math.inf
    items_per_update: int = 0
    max_lag: int = 0
    most_bytes: int = 0
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        if (
            self.samples_per_insert <= 0
            or self.min_size_to_sample < 1
            or self.min_diff > self.max_diff
        ):
            raise ConfigError(
                f"a rate limiter with samples_per_insert {self.samples_per_insert}, min_size_to_sample "
                f"{self.min_size_to_sample}, band [{self.min_diff}, {self.max_diff}]",
                "samples_per_insert > 0, min_size_to_sample >= 1, min_diff <= max_diff",
            )

    @classmethod
    def min_size(cls, size: int) -> RateLimiter:
        """Samples from `size` items on; nothing else is limited."""
        return cls(min_size_to_sample=size)

    @classmethod
    def sample_to_insert_ratio(
        cls,
        samples_per_insert: float,
        min_size_to_sample: int,
        error_buffer: float | tuple[float, float],
    ) -> RateLimiter:
        """Keeps the ratio within `error_buffer` around where it is when `min_size_to_sample` items are there and
        nothing was sampled; or within the given band. Raises ConfigError for a buffer that would block for ever."""
        if isinstance(error_buffer, tuple):
            return cls(samples_per_insert, min_size_to_sample, *error_buffer)
        if error_buffer < max(1.0, samples_per_insert):
            raise ConfigError(
                f"an error buffer of {error_buffer}",
                f"at least {max(1.0, samples_per_insert)}: less blocks inserts and samples for ever",
            )
        offset = samples_per_insert * min_size_to_sample
        return cls(
            samples_per_insert, min_size_to_sample, offset - error_buffer, offset + error_buffer
        )

    @classmethod
    def queue(cls, size: int) -> RateLimiter:
        """At most `size` items wait; each is sampled once."""
        return cls(1.0, 1, 0.0, float(size))

    @classmethod
    def staleness(cls, items_per_update: int, max_lag: int) -> RateLimiter:
        return cls(items_per_update=items_per_update, max_lag=max_lag)

    def can_insert(self, n: int = 1, nbytes: int = 0) -> bool:
        return self.counts.inserted + n <= self.inserts_allowed() and not (
            self.most_bytes and self.counts.bytes + nbytes > self.most_bytes
        )

    def can_sample(self, n: int = 1) -> bool:
        c = self.counts
        return (
            c.inserted - c.deleted >= self.min_size_to_sample
            and c.inserted * self.samples_per_insert - c.sampled - n >= self.min_diff
        )

    def inserts_allowed(self) -> int:
        """How many inserts, from the very first, may have happened by now: what a collector far away is told."""
        c = self.counts
        if self.most_bytes and c.bytes >= self.most_bytes:
            return c.inserted
        band = (self.max_diff + c.sampled) / self.samples_per_insert
        allowed = max(band, self.min_size_to_sample + c.deleted)
        if self.items_per_update:
            allowed = min(allowed, (self.max_lag + c.version + 1) * self.items_per_update)
        return _FOR_EVER if math.isinf(allowed) else math.floor(allowed)

    def save(self) -> dict[str, bytes]:
        """Belongs beside the weights, in the same rename."""
        return {"limiter.json": dumps(asdict(self.counts)).encode()}

    def restore(self, saved: dict[str, bytes]) -> None:
        self.counts = Counts(**json.loads(saved["limiter.json"]))


_FOR_EVER = 1 << 62
