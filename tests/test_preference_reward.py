"""A preference model as a reward: measured when an episode is over, stored, and versioned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from actors.config.schema import load
from experience.errors import WeightsError
from experience.models.tokenizer import ByteTokenizer
from experience.models.transformer import TransformerShape
from experience.preferences.measured import PreferenceSignals
from experience.preferences.model import PreferenceModel
from experience.preferences.naming import STORED, signal_of, versioned
from experience.replay.late import LateSignals
from experience.replay.replay import Replay
from experience.reward import RewardModel
from experience.shards.amend import follow_amended
from experience.shards.catalog import Catalog
from experience.shards.episodes.index import EpisodeIndex
from tests.test_preferences import episode, written

WORLD = "envs:Test-v0"


def model_file(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    model = PreferenceModel(TransformerShape(ByteTokenizer.size, 1, 16, 2, 64))
    torch.nn.init.normal_(model.head.weight)
    path = folder / f"taste-{seed}.safetensors"
    path.write_bytes(model.save())
    return path


def taken(store: Path, weights: dict[str, float]) -> tuple[Replay, LateSignals, EpisodeIndex]:
    """The store's rows as a run takes them, one by one."""
    index = EpisodeIndex.open(store, RewardModel({WORLD: versioned(weights)}))
    late = LateSignals(index, {}, PreferenceSignals({WORLD: weights}))
    replay = Replay(index, 2, 5)
    for row in (step for block in Catalog(store).follow() for step in block):
        replay.amend(late.take([row]))
    return replay, late, index


def test_an_episode_earns_its_score_when_it_is_over(tmp_path: Path) -> None:
    file = model_file(tmp_path)
    store = written(tmp_path, [episode("a", 0), episode("bbb", 1)])
    name = f"preference:{file}"
    replay, late, index = taken(store, {name: 2.0, "done": 1.0})
    (group,) = replay.window(3)
    (_, model), *_ = PreferenceSignals({WORLD: {name: 1.0}})._models[WORLD]
    scores = model.score(group.episodes).tolist()
    assert scores[0] != scores[1]
    earned = [e.total_reward for e in group.episodes]
    assert earned == pytest.approx([2 * scores[0] + 0.5, 2 * scores[1] + 0.5])  # `done` is 0.5
    late.write()
    stored = [s for block in follow_amended(store, index.rewards.model.version) for s in block]
    assert [s.reward for s in stored if s.decision] == pytest.approx(earned)
    names = {s.name for step in stored for s in step.signals if s.source == "model"}
    assert names == {signal_of(name)}
    assert signal_of(name).startswith(STORED)


def test_a_run_that_goes_on_measures_no_episode_again(tmp_path: Path) -> None:
    name = f"preference:{model_file(tmp_path)}"
    store = written(tmp_path, [episode("a", 0), episode("bbb", 1)])
    _, late, _ = taken(store, {name: 1.0})
    late.write()
    index = EpisodeIndex.open(store, RewardModel({WORLD: versioned({name: 1.0})}))
    rows = [step for block in Catalog(store).follow() for step in block]
    assert PreferenceSignals({WORLD: {name: 1.0}})(rows, index.rewards.knows) == []
    assert len(PreferenceSignals({WORLD: {name: 1.0}})(rows, lambda key, name: False)) == 2


def test_another_model_is_another_reward(tmp_path: Path) -> None:
    one, other = (f"preference:{model_file(tmp_path, seed)}" for seed in (0, 1))
    versions = {RewardModel({WORLD: versioned({name: 1.0})}).version for name in (one, other)}
    assert len(versions) == 2


def test_a_model_that_is_not_there_is_named_before_a_run(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="xp prefer"):
        versioned({f"preference:{tmp_path / 'none'}": 1.0})


def test_the_file_of_a_preference_model_is_found_from_where_xp_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config, _ = load([], ['worlds.0.rewards={"preference:taste.safetensors": 1.0, "done": 2.0}'])
    assert config.worlds[0].rewards == {
        f"preference:{tmp_path / 'taste.safetensors'}": 1.0,
        "done": 2.0,
    }
