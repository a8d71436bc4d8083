"""Text as tokens: a corpus file, or what the agents of a store have read and written.

A document is int32 [L]: BEGIN, and then the bytes of a text, or the prompt and the action of a turn
exactly as the policy read and wrote them. Every token but the first is predicted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from experience.errors import ConfigError
from experience.models.tokenizer import ByteTokenizer
from experience.step import Step

MOST_BYTES = 1 << 30
"""A corpus is read into memory: of a larger file the user gives a part."""
_PARAGRAPH = b"\n\n"


@dataclass(frozen=True)
class Corpus:
    """Documents as tokens. The held-out documents are every tenth, and never trained on."""

    documents: tuple[np.ndarray, ...]

    @cached_property
    def train(self) -> tuple[np.ndarray, ...]:
        return tuple(d for i, d in enumerate(self.documents) if i % 10 != 9)

    @cached_property
    def held_out(self) -> tuple[np.ndarray, ...]:
        return tuple(d for i, d in enumerate(self.documents) if i % 10 == 9)

    @cached_property
    def sha256(self) -> str:
        """Of all tokens: losses of one corpus are compared with each other only."""
        digest = hashlib.sha256()
        for document in self.documents:
            digest.update(len(document).to_bytes(8, "little"))
            digest.update(document.astype("<i4").tobytes())
        return digest.hexdigest()


def corpus_of(texts: Iterable[bytes]) -> Corpus:
    """The corpus of texts, one document each. Raises ConfigError below ten documents."""
    tokenizer = ByteTokenizer()
    documents = [
        np.concatenate([[tokenizer.BEGIN], np.frombuffer(text, np.uint8)]).astype(np.int32)
        for text in texts
        if text
    ]
    return _checked(documents)


def corpus_of_steps(steps: Iterable[Step]) -> Corpus:
    """The prompts and actions of training turns, as their tokens were stored.

    Raises ConfigError where no turn has byte tokens: those of another tokenizer mean other texts.
    """
    documents = []
    for step in steps:
        decision = step.decision
        if decision is None or step.split != "train" or not len(decision.prompt_ids):
            continue
        tokens = np.concatenate([decision.prompt_ids, decision.action_ids]).astype(np.int32)
        if int(tokens.max()) >= ByteTokenizer.size:
            raise ConfigError(
                f"the store holds token {int(tokens.max())}: its policy did not read bytes",
                "pre-training is of policy.engine=small; give a text file instead",
            )
        documents.append(tokens)
    return _checked(documents)


def read_corpus(path: Path) -> Corpus:
    """The paragraphs of a text file, joined to documents of at least 512 bytes.

    Raises ConfigError for a file that is missing, empty, too large, or of fewer than ten documents.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file", "give a text file, or a run")
    if path.stat().st_size > MOST_BYTES:
        raise ConfigError(f"{path} is larger than {MOST_BYTES >> 30} GB", "give a part of it")
    return corpus_of(_joined(path.read_bytes().split(_PARAGRAPH), 512))


def _joined(paragraphs: Sequence[bytes], fewest: int) -> Iterable[bytes]:
    open_ = b""
    for paragraph in paragraphs:
        open_ += paragraph + _PARAGRAPH
        if len(open_) >= fewest:
            yield open_
            open_ = b""
    yield open_.rstrip(b"\n")


def _checked(documents: Sequence[np.ndarray]) -> Corpus:
    if len(documents) < 10:
        raise ConfigError(
            f"the corpus has {len(documents)} documents",
            "it takes ten at least, of which one is held out: give more text",
        )
    return Corpus(tuple(documents))


def windows(documents: Sequence[np.ndarray], length: int) -> list[np.ndarray]:
    """The documents, cut to at most `length` tokens each.

    A cut document's next window begins with the last token of the one before, so that each token
    but a document's first is predicted once. Raises ValueError for a length below 2.
    """
    if length < 2:
        raise ValueError("a window of one token predicts nothing")
    cut = []
    for document in documents:
        starts = range(0, max(len(document) - 1, 1), length - 1)
        cut += [document[start : start + length] for start in starts]
    return [window for window in cut if len(window) > 1]
