"""A preference model in a reward: `preference:FILE` names the file, and the store the version.

In `rewards`, the weight of `preference:FILE` weighs the standard score of the whole episode, which
its last step earns. The signal of that score is called `preference@VERSION` after the weights in
the file, so that another model is another reward. Scores are a model's word: evidence of taste, not
of what happened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from experience.errors import WeightsError
from experience.signal import SignalKind

GIVEN = "preference:"
STORED = "preference@"
KIND = SignalKind("standard deviations", "model")


def is_given(name: str) -> bool:
    """Whether a weight's name names a preference model, not a signal of the world."""
    return name.startswith(GIVEN)


def file_of(name: str) -> Path:
    return Path(name.removeprefix(GIVEN))


def version_of(data: bytes) -> str:
    """The name of exactly these weights."""
    return hashlib.sha256(data).hexdigest()[:12]


def signal_of(name: str) -> str:
    """The name of the signal that the model of `preference:FILE` measures.

    Raises WeightsError if the file cannot be read.
    """
    file = file_of(name)
    try:
        return STORED + version_of(file.read_bytes())
    except OSError as error:
        raise WeightsError(
            f"{name}: {error}", "./xp prefer RUN --out FILE.safetensors makes one"
        ) from error


def versioned(weights: Mapping[str, float]) -> dict[str, float]:
    """The weights with each `preference:FILE` as the signal that it stands for."""
    return {signal_of(n) if is_given(n) else n: weight for n, weight in weights.items()}
