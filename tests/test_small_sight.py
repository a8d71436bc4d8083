"""The small model's eyes: what it acts by, it is trained by, to the pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from actors.collecting.work import Work
from actors.config.schema import Config, load
from actors.engines.engine import Situation
from actors.engines.local import LocalEngine
from actors.engines.registry import make_model
from actors.engines.small_engine import make_engine
from actors.pool.pool import all_new
from envs.small.click import Click
from experience.errors import ConfigError, RecordError
from experience.learning.advantages import as_turn
from experience.learning.batch import Turn
from experience.learning.learner import LearnerSettings
from experience.learning.sequences.scoring import score
from experience.learning.token_learner import TokenLearner, imitation_schedule
from experience.learning.trainer import Trainer
from experience.models.sight import Album, read_picture
from experience.models.tokenizer import ByteTokenizer
from experience.shards.catalog import Catalog
from experience.shards.storage.blobs import BlobReader
from experience.shards.storage.pictures import png
from experience.step import Step
from tests.alone import Alone


def config_of(*words: str) -> Config:
    config, _ = load(
        [],
        [
            "worlds=[{id: 'envs:Click-v0'}]",
            "policy.layers=1",
            "policy.width=16",
            "policy.heads=2",
            "policy.max_tokens=12",
            "policy.context=64",
            "policy.pixels=16",
            "planning.enabled=false",
            "collecting.slots=2",
            "collecting.group_size=2",
            *words,
        ],
    )
    return config


def engine_of(config: Config) -> LocalEngine:
    return make_engine(config.policy, 0, make_model(config.policy, 0))


def scene(seed: int) -> Situation:
    world = Click()
    text, info = world.reset(seed=seed)
    return Situation(text, images=info["images"], draw=seed)


def lived(folder: Path, lane: str = "train") -> tuple[nn.Module, list[Step]]:
    """The rows of some episodes in the click world, and the model that acted."""
    one = Alone(config_of(), folder)
    one.load(None, 2 if lane == "train" else 0)
    if lane == "demonstration":
        click = {"env_id": "envs:Click-v0", "lane": "demonstration"}
        one.order([Work.named(f"{n}", seed=n, **click) for n in range(24)])
    while one.closed < (4 if lane == "train" else 24):
        one.pump()
    one.close()
    return one._desk._lanes._engine._model, all_new(Catalog(folder))


def test_the_learner_scores_what_was_sampled_from_with_the_pixels_of_the_store(
    tmp_path: Path,
) -> None:
    model, rows = lived(tmp_path)
    turns = [turn for step in rows if (turn := as_turn(step)) is not None]
    assert len(turns) >= 4 and all(len(turn.pictures) == 1 for turn in turns)
    album = Album(BlobReader(tmp_path).read, 16)
    with torch.no_grad():
        batch = Trainer(model, LearnerSettings(), album).scorer.batch(turns)
        seen = score(model, batch)
        unseen = score(model, Trainer(model, LearnerSettings()).scorer.batch(turns))
    drawn = batch.mask.bool()
    assert torch.allclose(seen[drawn], batch.logp_behaviour[drawn], atol=1e-4)
    assert not torch.allclose(unseen[drawn], batch.logp_behaviour[drawn], atol=1e-2)


def test_what_is_answered_side_by_side_is_what_is_answered_alone() -> None:
    engine = engine_of(config_of())
    scenes = [scene(seed) for seed in range(6)]
    together = engine.act(scenes, 1.0)
    for asked, decision in zip(scenes, together, strict=True):
        (alone,) = engine.act([asked], 1.0)
        assert np.array_equal(alone.action_ids, decision.action_ids)
        assert np.allclose(alone.logprobs, decision.logprobs, atol=1e-4)


def test_imitation_trains_the_eyes_on_the_pictures_of_the_demonstrations(tmp_path: Path) -> None:
    model, rows = lived(tmp_path, lane="demonstration")
    before = model.sight.look.weight.detach().clone()
    album = Album(BlobReader(tmp_path).read, 16)
    TokenLearner(model, LearnerSettings(), album=album).imitate(rows, 2)
    assert (model.sight.look.weight - before).abs().max() > 1e-4


def test_a_picture_is_scaled_by_the_mean_over_areas_whatever_its_form() -> None:
    drawn = np.zeros((32, 32, 3), np.uint8)
    drawn[:, 16:] = (200, 100, 0)
    small = read_picture(png(drawn), 8)
    assert small[0, 0].tolist() == [0, 0, 0] and small[7, 7].tolist() == [200, 100, 0]
    assert read_picture(png(drawn[:, :, 0]), 8).shape == (8, 8, 3)
    with pytest.raises(RecordError, match="no picture"):
        read_picture(b"GIF", 8)


def test_a_world_of_several_pictures_is_refused_by_a_model_of_one() -> None:
    asked = Situation("", images={"left": b"", "right": b""})
    with pytest.raises(ConfigError, match="left, right"):
        engine_of(config_of()).act([asked], 0.0)


@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("agent.sight=ignore", "agent.sight: ignore and policy.pixels"),
        ("planning.enabled=true", "policy.pixels and planning.branches.groups"),
        ("policy.pixels=20", "policy.pixels"),
        ("policy.engine=table", "a setting of the engine small"),
        ("policy.sees=true", "a setting of the engine openai"),
    ],
)
def test_settings_that_contradict_sight_are_told(word: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        config_of(word)


def clicked(pixels: int, figures: int, updates: int) -> float:
    """The share of held-out scenes that are hit after so many updates of imitation."""
    config = config_of(f"policy.pixels={pixels}", "policy.layers=2", "policy.width=64")
    world, tokenizer = Click(figures), ByteTokenizer()
    shown: list[Turn] = []
    blobs: dict[bytes, bytes] = {}
    for seed in range(32 * updates // 4):
        text, info = world.reset(seed=seed, options={"split": "train"})
        action = tokenizer.action(world.oracle_action())
        blobs[f"{seed}".encode()] = info["images"]["screen"]
        logprobs = np.zeros(len(action), np.float32)
        seen = (f"{seed}".encode(),)
        shown.append(Turn(tokenizer.prompt(text), action, logprobs, pictures=seen))
    trained = make_model(config.policy, 0)
    assert trained is not None
    album = Album(blobs.__getitem__, pixels) if pixels else None
    trainer = Trainer(trained.model, LearnerSettings(observation_weight=0.0), album)
    rng = np.random.default_rng(0)
    for update in range(updates):
        trainer.set_rate(3e-3 * imitation_schedule(update, updates))
        trainer.update([], [shown[i] for i in rng.integers(len(shown), size=32)], 1.0)
    engine = make_engine(config.policy, 0, trained)
    hits = 0.0
    for seed in range(200):
        text, info = world.reset(seed=seed, options={"split": "heldout"})
        (decision,) = engine.act([Situation(text, images=info["images"])], 0.0)
        hits += world.step(decision.text)[1] > 0.5
    return hits / 200


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_model_that_sees_clicks_what_the_same_model_without_eyes_misses() -> None:
    seeing, blind = clicked(64, 1, 800), clicked(0, 1, 800)
    print(f"held-out hits: {seeing:.2f} with eyes, {blind:.2f} without")
    assert blind < 0.2 and seeing > blind + 0.3
