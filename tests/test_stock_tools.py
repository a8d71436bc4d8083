"""Tools that are made for every Gymnasium environment, used on worlds of text."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import RecordEpisodeStatistics

import envs  # noqa: F401  registers the ids
from benchmarks.worlds.strangers import PYTHON, played
from envs.text.as_numbers import AsNumbers
from experience.errors import ConfigError

TEXT = {"id": "envs:Text-v0", "world": "CartPole-v1"}
KEY_DOOR = {"id": "envs:KeyDoor-v0", "size": 3}


def python(code: str) -> str:
    """What a program prints with the strangers' Python, which has stable-baselines3 and moviepy."""
    if not PYTHON.exists():
        pytest.skip("no strangers here: ./xp setup peers")
    done = played(["-c", code], 120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("arguments", [TEXT, KEY_DOOR], ids=lambda it: it["id"])
def test_gymnasiums_own_checker_finds_nothing(
    arguments: dict[str, object], recwarn: pytest.WarningsRecorder
) -> None:
    world = gymnasium.make(**arguments).unwrapped  # type: ignore[arg-type]
    check_env(world, skip_render_check=True)
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_several_copies_run_as_one_vector_of_worlds(mode: str) -> None:
    arguments = {name: value for name, value in KEY_DOOR.items() if name != "id"}
    worlds = gymnasium.make_vec("envs:KeyDoor-v0", num_envs=2, vectorization_mode=mode, **arguments)
    try:
        seen, _ = worlds.reset(seed=[0, 1])
        assert len(seen) == 2 and all(isinstance(text, str) for text in seen)
        seen, rewards, *_ = worlds.step(("up", "nonsense"))
        assert rewards.tolist() == [0.0, -0.05] and "nonsense" not in seen[0]
    finally:
        worlds.close()


def test_episode_statistics_are_kept() -> None:
    world = RecordEpisodeStatistics(gymnasium.make(**TEXT))  # type: ignore[arg-type]
    world.reset(seed=0)
    over, total = False, 0.0
    while not over:
        _, reward, terminated, truncated, info = world.step("0")
        total += float(reward)
        over = terminated or truncated
    assert info["episode"]["r"] == total > 1


def test_a_world_of_text_is_numbers_for_those_that_need_them() -> None:
    world = AsNumbers(gymnasium.make(**KEY_DOOR), characters=64)  # type: ignore[arg-type]
    check_env(world, skip_render_check=True)
    seen, info = world.reset(seed=0)
    text = info["state"].encode()
    assert bytes(seen[: len(text)]) == text[:64] and not seen[len(text) :].any()
    up = world.listed.index("up")
    assert np.array_equal(world.step(up)[0], AsNumbers._bytes(world, world.unwrapped._seen()))
    with pytest.raises(ConfigError, match="lists no actions"):
        AsNumbers(gymnasium.make("envs:Text-v0", world="Pendulum-v1"))


def test_a_video_is_recorded_of_a_world_shown_as_text(tmp_path: Path) -> None:
    python(f"""
import gymnasium
from gymnasium.wrappers import RecordVideo
world = gymnasium.make("envs:Text-v0", world="CartPole-v1", render_mode="rgb_array")
world = RecordVideo(world, {str(tmp_path)!r})
world.reset(seed=0)
over = False
while not over:
    _, _, terminated, truncated, _ = world.step("0")
    over = terminated or truncated
world.close()
""")
    (video,) = tmp_path.glob("*.mp4")
    assert video.stat().st_size > 1000


@pytest.mark.long
def test_stable_baselines3_learns_a_bundled_world() -> None:
    out = python("""
import gymnasium, torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from envs.text.as_numbers import AsNumbers

torch.set_num_threads(1)
world = Monitor(AsNumbers(gymnasium.make("envs:KeyDoor-v0", size=2), characters=128))
check_env(world)
model = PPO("MlpPolicy", world, seed=0, n_steps=256, learning_rate=1e-3, device="cpu")
before = evaluate_policy(model, world, 100, deterministic=False)[0]
model.learn(6000)
print(before, evaluate_policy(model, world, 100, deterministic=False)[0])
""")
    before, after = map(float, out.split())
    assert after > before + 0.1, (before, after)
