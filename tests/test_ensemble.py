"""The ensemble of numbers: it learns real dynamics, knows where it has not been, and refuses what
is no form of numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from actors.config.schema import load
from actors.run import run
from actors.runs.directory import RunDirectory
from experience.errors import RecordError
from experience.planning.world_models.ensemble import EnsembleModel
from experience.planning.world_models.gate import use_of
from experience.policy import Decision
from experience.shards.catalog import Catalog
from experience.signal import Signal
from experience.step import Step
from tests.conftest import make_step


def cartpole(n: int, seed: int) -> list[tuple[Step, Step]]:
    """Random transitions of Gymnasium's CartPole as text."""
    world = gymnasium.make("envs:Text-v0").unwrapped
    rng, found, seen, ended = np.random.default_rng(seed), [], "", True
    while len(found) < n:
        if ended:
            seen, _ = world.reset(seed=seed * 10_000 + len(found))
        action = str(rng.choice(world.actions))
        after, reward, terminated, truncated, _ = world.step(action)
        ended = terminated or truncated
        found.append(
            (
                make_step(
                    0,
                    obs_text=seen,
                    decision=Decision(action, 0),
                    reward=reward,
                    signals=(Signal("env_reward", reward, "1", "env_state"),),
                    ending="terminated" if terminated else "truncated" if truncated else "none",
                ),
                make_step(1, closing=True, obs_text=after),
            )
        )
        seen = after
    return found


def test_it_learns_cartpole_and_keeps_the_better_part() -> None:
    model = EnsembleModel(("0", "1"), ("env_reward",))
    model.add(cartpole(2000, 0))
    model.fit(400)
    error = model.calibrate()
    assert error is not None
    assert error.exact > 0.8 > 0.2 > error.copy
    assert error.exact_kept is not None and error.exact_kept >= error.exact
    answer = model.predict(["0.01 0.02 0.03 0.04"], ["1"])[0].answer
    assert answer is not None and not answer.ended
    position, velocity, *_ = map(float, answer.observation.split())
    assert position == pytest.approx(0.01, abs=0.005)  # it moves by velocity × 0.02 s
    assert velocity == pytest.approx(0.02 + 0.195, abs=0.05)  # a push of 10 N on 1.1 kg for 0.02 s
    assert answer.signals["env_reward"] == pytest.approx(1.0, abs=0.01)


def test_it_is_less_sure_where_it_has_never_been() -> None:
    model = EnsembleModel(("0", "1"), ("env_reward",))
    model.add(cartpole(600, 1))
    model.fit(150)
    near, far, strange = model.predict(
        ["0.01 0.02 0.03 0.04", "2 9 -0.2 -9", "0.01 0.02 0.03 0.04"], ["1", "1", "2"]
    )
    assert near.uncertainty < far.uncertainty
    assert (strange.answer, strange.uncertainty) == (None, float("inf"))


def test_another_process_predicts_as_it_does_and_a_stopped_one_goes_on_bit_by_bit() -> None:
    rows, asked = cartpole(400, 4), (["0.01 0.02 0.03 0.04", "hello"], ["1", "1"])
    model = EnsembleModel(("0", "1"), ("env_reward",))
    assert model.save() == model.export_weights() == {} and model.predict(*asked)[
        0
    ].uncertainty == float("inf")
    model.add(rows)
    model.fit(20)
    model.calibrate()
    elsewhere, again = EnsembleModel(), EnsembleModel(("0", "1"), ("env_reward",))
    elsewhere.load_weights(model.export_weights())
    assert (
        elsewhere.predict(*asked) == model.predict(*asked)
        and elsewhere.threshold == model.threshold
    )
    assert elsewhere.predict(*asked)[1].answer is None, (
        "a screen of another form is nothing that it can know"
    )
    again.add(rows)
    again.restore(model.save())
    assert (again.fit(5), again.predict(*asked)) == (model.fit(5), model.predict(*asked))


def test_a_run_plans_in_an_ensemble_and_goes_on_with_it(tmp_path: Path) -> None:
    def go(updates: int, directory: RunDirectory | None = None) -> RunDirectory:
        config, origins = load(
            [Path("configs/cartpole.yaml")],
            [
                f"budget.updates={updates}",
                f"runs_dir={tmp_path}",
                "policy.layers=1",
                "policy.width=32",
                "collecting.slots=8",
                "collecting.group_size=4",
                "planning.model.fit_steps=60",
                "planning.lookahead.horizon=3",
                "planning.lookahead.candidates=2",
                "evaluation.episodes=2",
                "evaluation.final_episodes=2",
            ],
        )
        directory = directory or RunDirectory.create(config, origins, ["test"])
        progress = run(config, directory)
        assert progress.model_error is not None and progress.version == updates
        return directory

    directory = go(2)
    rows = [
        s
        for shard in Catalog(directory.shards).follow()
        for s in shard
        if s.decision and s.source == "real"
    ]
    thought = [s for s in rows if s.decision and "lookahead in the model" in s.decision.decoder]
    assert thought and all(s.value_estimate is not None for s in thought), (
        "collectors think with what was pushed"
    )
    go(3, directory)


def test_screens_of_another_form_are_refused() -> None:
    model = EnsembleModel(("0", "1"), ())
    model.add(cartpole(1, 2))
    step, following = cartpole(1, 3)[0]
    with pytest.raises(RecordError, match="form"):
        model.add([(replace(step, obs_text="cart at 1"), following)])


def test_without_a_gate_the_ensemble_is_measured_though_nothing_was_held_out_to_set_one() -> None:
    model = EnsembleModel(("0", "1"), ("env_reward",), trusted_accuracy=0)
    model.add(cartpole(300, 3))
    model.fit(20)
    model.transitions.held_out["gate"].clear()
    error = model.calibrate()
    assert error is not None and error.n >= 8
    assert (model.threshold, error.kept, error.exact_kept) == (np.inf, 1.0, error.exact)


@pytest.mark.parametrize("trusted_accuracy", [0.0, 0.9])
def test_an_ensemble_that_only_believes_anothers_weights_measures_nothing(
    trusted_accuracy: float,
) -> None:
    taught = EnsembleModel(("0", "1"), ("env_reward",), trusted_accuracy=trusted_accuracy)
    taught.add(cartpole(600, 4))
    taught.fit(20)
    model = EnsembleModel(trusted_accuracy=trusted_accuracy)
    model.load_weights(taught.export_weights())
    model.transitions.held_out = taught.transitions.held_out
    assert model.calibrate() is None, (
        "how much is usual is not known without transitions that were fitted"
    )


def test_an_ensemble_that_knows_no_answer_has_no_ranking() -> None:
    model = EnsembleModel(("0", "1"), ("env_reward",), trusted_accuracy=0)
    model.add(cartpole(300, 5))
    model.fit(1)
    model.transitions.held_out["measured"] = [
        (o, "an action that is not listed", a) for o, _, a in model.transitions.held_out["measured"]
    ]
    error = model.calibrate()
    assert error is not None
    assert (error.exact, error.exact_kept, error.auroc, error.kept) == (0.0, None, None, 0.0)


def counted(seen: str, action: str, after: str, signal: float | None = 1.0) -> tuple[Step, Step]:
    return (
        make_step(
            0,
            obs_text=seen,
            decision=Decision(action, 0),
            signals=(Signal("gain", signal, "1", "env_state"),),
        ),
        make_step(1, closing=True, obs_text=after),
    )


def fitted_pairs(n: int) -> list[str]:
    return [f"x={i} y=0" for i in range(10 * n) if use_of(f"x={i} y=0", "on") == "fitted"][:n]


@pytest.mark.parametrize("pairs", [1, 2, 9])
def test_a_few_pairs_are_enough_to_begin_with(pairs: int) -> None:
    model = EnsembleModel(("on", "off"), ("gain",))
    model.add(counted(seen, "on", seen.replace("x=", "x=1")) for seen in fitted_pairs(pairs))
    assert np.isfinite(model.fit(3)) and model.skipped == 0
    assert model.predict(["x=3 y=0"], ["on"])[0].answer is not None


def test_what_was_always_the_same_is_predicted_as_it_was_and_learned_once_it_changes() -> None:
    model = EnsembleModel(("on", "off"), ("gain",))
    model.add(counted(f"x={i} y=0", "on", f"x={i + 1} y=0") for i in range(20))
    model.fit(2)
    answer = model.predict(["x=7 y=0"], ["on"])[0].answer
    assert answer is not None and (answer.observation, answer.signals) == ("x=8 y=0", {"gain": 1.0})
    model.add(
        counted(f"x={i} y={i % 7}", act, f"x={i + 1} y={i % 7 + (act == 'off')}", float(i % 2))
        for i in range(60)
        for act in ("on", "off")
    )
    assert (
        model.fit(2) < 10
    )  # in units of what is usual: 10¹¹ where a constant counted as a spread of 10⁻⁶


def test_large_numbers_are_written_as_the_world_writes_them() -> None:
    model = EnsembleModel(("on", "off"), ("gain",))
    model.add(
        counted(
            f"cash {1234567 + 50 * i} price {i % 5}.25",
            act,
            f"cash {1234617 + 50 * i} price {i % 5}.75",
        )
        for i in range(200)
        for act in ("on", "off")
    )
    model.fit(40)
    answer = model.predict(["cash 9999975 price 3.25"], ["on"])[0].answer
    assert answer is not None and answer.observation == "cash 10000025 price 3.75"
    error = model.calibrate()
    assert error is not None and error.exact == 1.0 and error.copy == 0.0
    again = model.predict([answer.observation, "cash 1.5e+20 price 1.25"], ["on", "on"])
    assert all(p.answer is not None for p in again)  # of the form that it knows, however large


def test_an_unknown_signal_is_not_learned_as_0() -> None:
    model = EnsembleModel(("on", "off"), ("gain",))
    model.add(
        counted(f"x={i} y=0", "on", f"x={i + 1} y=0", None if i % 2 else 4.0) for i in range(40)
    )
    model.fit(2)
    answer = model.predict(["x=7 y=0"], ["on"])[0].answer
    assert answer is not None and answer.signals == {"gain": 4.0}
