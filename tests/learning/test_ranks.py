"""Ranks: two processes that share an update take the step of one; and text is a source like any."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as distributed

from experience.learning.learner import LearnerSettings
from experience.learning.machine.ranks import ONE, ProcessRanks, Ranks
from experience.learning.sequences.sequence import TokenSequence, join
from experience.learning.token_learner import TokenLearner
from experience.learning.trainer import Trainer
from tests.learning import test_sequences
from tests.learning.test_sequences import conversation, model

ROOT = Path(__file__).resolve().parents[2]


def lived() -> list[TokenSequence]:
    """The same in every process."""
    test_sequences.RNG = np.random.default_rng(0)
    return join([t for n in range(6) for t in conversation(bytes([n + 1]), 2, n - 2.5)])


def trained(parts: list[TokenSequence], shown: list[TokenSequence], ranks: Ranks = ONE) -> Trainer:
    """Three updates on a share of the sequences; the last without demonstrations."""
    trainer = Trainer(model(), LearnerSettings(learning_rate=1e-3), ranks=ranks)
    for update in range(3):
        trainer.metrics = trainer.update(parts, shown if update < 2 else [], 0.5)  # type: ignore[attr-defined]
    return trainer


def as_rank(rank: int, meeting: str) -> None:
    """What each process runs: it takes every second sequence, and writes its weights."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}/meet", rank=rank, world_size=2
    )
    whole = lived()
    # The second rank has no demonstrations at all.
    trainer = trained(whole[rank::2], whole[:2] if rank == 0 else [], ProcessRanks())
    torch.save(
        (trainer.model.state_dict(), trainer.metrics),
        Path(meeting) / f"{rank}.pt",  # type: ignore[attr-defined]
    )
    distributed.destroy_process_group()


@pytest.mark.timeout(240)
def test_two_ranks_that_share_updates_equal_one_within_rounding(tmp_path: Path) -> None:
    code = "import sys; from tests.learning.test_ranks import as_rank; as_rank(int(sys.argv[1]), sys.argv[2])"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(rank), str(tmp_path)], cwd=ROOT)
        for rank in range(2)
    ]
    assert [process.wait(timeout=200) for process in processes] == [0, 0]
    (first, metrics), (second, others) = (torch.load(tmp_path / f"{n}.pt") for n in range(2))
    whole = lived()
    trainer = trained(whole, whole[:2])
    expected = trainer.metrics  # type: ignore[attr-defined]
    assert metrics == others, "both know the sums of all"
    assert metrics == pytest.approx(expected, rel=1e-3, abs=1e-5)
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(first[name], second[name])
        assert torch.allclose(first[name], weight, atol=2e-5), name


def test_plain_text_is_learned_by_its_next_tokens() -> None:
    """A text of two alternating tokens: from nearly ln 259 nats a token to next to none."""
    learner = TokenLearner(model(), LearnerSettings(imitation_rate=1e-2, batch_turns=4))
    text = np.tile(np.array([7, 8], np.int32), 12)
    first = learner.read([text])["text_nll"]
    for _ in range(40):
        last = learner.read([text] * 4)["text_nll"]
    assert abs(first - math.log(259)) < 1.0 and last < 0.2
    assert learner.read([]) == {}
