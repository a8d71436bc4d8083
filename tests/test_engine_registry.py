"""The registry of engines: one file adds an engine, by its name here or from outside."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from actors import ROOT
from actors.config.schema import Policy, load
from actors.engines import registry
from actors.engines.engine import Situation
from actors.engines.registry import check_engine, find, make_engine, make_model, names
from actors.running.assembly import make_learner
from experience.errors import ConfigError, EngineError, MissingPartError
from experience.models.weights import Weights
from experience.reward import RewardModel
from experience.shards.catalog import Catalog

PAGE = (ROOT / "docs" / "add-an-engine.md").read_text()


def parrot(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine of the page, as a newcomer saves it."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (folder / "parrot.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "parrot", raising=False)


def test_the_engine_of_the_page_acts_and_takes_no_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parrot(tmp_path, monkeypatch)
    policy = Policy(engine="parrot:Parrot", learns=False)
    check_engine(policy)
    assert make_model(policy, 0) is None
    engine = make_engine(policy, 3)
    (decision,) = engine.act([Situation("a room", actions=("go", "wait"))], 1.0)
    assert (decision.text, decision.behaviour_id) == ("go", "parrot")
    with pytest.raises(EngineError, match="learns nothing"):
        engine.load(Weights(1, b"", ""))


def test_the_command_of_the_page_runs_and_its_steps_are_the_engines(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "parrot.py").write_text(code)
    words = [
        *("run", "policy.engine=parrot:Parrot", "policy.learns=false", "workers=0"),
        *("budget.updates=1", "collecting.slots=2", "collecting.group_size=2"),
        *("worlds=[{id: envs:KeyDoor-v0, groups: 1, demonstrations: 0}]",),
        *("evaluation.episodes=0", "evaluation.final_episodes=1", "runs_dir=runs", "--json"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "actors", *words],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    run = next((tmp_path / "runs").glob("*/shards"))
    steps = [step for steps in Catalog(run).follow() for step in steps]
    acted = {s.decision.behaviour_id for s in steps if s.is_training and s.decision}
    assert acted == {"parrot"}


def test_a_file_in_the_folder_is_an_engine_and_nothing_else_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from actors import engines

    (tmp_path / "registry.py").write_text("")
    (tmp_path / "echo_engine.py").write_text(
        "from actors.engines.registry import EngineKind\n"
        "KIND = EngineKind(lambda policy, seed, trained: ('echo', seed))\n"
    )
    monkeypatch.setattr(registry, "__file__", str(tmp_path / "registry.py"))
    monkeypatch.setattr(engines, "__path__", [*engines.__path__, str(tmp_path)])
    assert names() == ["echo"]
    config, _ = load([], ["policy.engine=echo", "worlds=[{id: envs:KeyDoor-v0}]"])
    assert make_engine(config.policy, 7) == ("echo", 7)


def test_the_configuration_takes_the_names_of_the_folder_and_no_other() -> None:
    assert names() == ["hugging_face", "openai", "small", "table", "vllm"]
    for name in names():
        assert find(name).make_engine is not None
    for wrong in ("smal", "a:b:c", "my-package:Engine", ":Engine", "package:"):
        with pytest.raises(ConfigError, match="is not one of hugging_face, openai, small, table"):
            load([], [f"policy.engine='{wrong}'", "worlds=[{id: envs:KeyDoor-v0}]"])
        with pytest.raises(ConfigError, match="is not one of hugging_face"):
            find(wrong)


def test_names_are_known_without_importing_any_engine_or_what_is_named_from_outside() -> None:
    code = (
        "import sys; from actors.config.schema import load\n"
        "load([], ['policy.engine=nowhere_at_all:E', 'worlds=[{id: envs:KeyDoor-v0}]'])\n"
        "print(sorted(m for m in sys.modules if m.endswith('_engine') or m == 'torch'))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("nowhere_at_all:Engine", ConfigError, "no module 'nowhere_at_all' is found"),
        ("json.nowhere:Engine", ConfigError, "no module 'json.nowhere' is found"),
        ("json:Engine", ConfigError, "json has no class 'Engine'"),
        ("lacking_a_part:Engine", MissingPartError, "needs 'part_that_is_nowhere'"),
        ("broken_engine_file:Engine", ConfigError, "cannot be imported: ValueError: broken"),
    ],
)
def test_an_engine_from_outside_that_is_not_there_is_refused_with_what_to_do(
    name: str,
    error: type[ConfigError],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "lacking_a_part.py").write_text("import part_that_is_nowhere")
    (tmp_path / "broken_engine_file.py").write_text("raise ValueError('broken')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(error, match=re.escape(says)) as raised:
        check_engine(Policy(engine=name))
    assert raised.value.hint


def test_a_policy_without_a_model_cannot_be_learned_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parrot(tmp_path, monkeypatch)
    words = ["policy.engine=parrot:Parrot", "worlds=[{id: envs:KeyDoor-v0}]"]
    config, _ = load([], words)
    with pytest.raises(ConfigError, match=r"parrot:Parrot has no model.*\n?.*policy.learns=false"):
        make_learner(config, make_model(config.policy, 0), RewardModel({}))


def test_the_engine_samples_from_the_very_model_that_is_trained() -> None:
    import torch

    policy = Policy(layers=1, width=32, heads=4, context=128, max_tokens=12)
    trained = make_model(policy, 1)
    assert trained is not None
    engine = make_engine(policy, 1, trained)
    asked = [Situation("go", draw=5)]
    (before,) = engine.act(asked, 1.0)
    with torch.no_grad():
        for weights in trained.model.parameters():
            weights.add_(torch.ones_like(weights) * 0.3)
    (after,) = engine.act(asked, 1.0)
    assert before.logprobs.tolist() != after.logprobs.tolist()
    (own,) = make_engine(policy, 1).act(asked, 1.0)
    assert own.logprobs.tolist() == before.logprobs.tolist()
