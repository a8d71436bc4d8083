# %% [markdown]
# # A run as data
#
# Opens a run, looks at it, plots it, gives it another reward, and compares two of its versions.
# Every cell works on any run: set `RUN` to yours. What each call gives: [python-api.md](python-api.md).

# %%
import os

import matplotlib.pyplot as plt

import experience as xp

RUN = os.environ.get("XP_NOTEBOOK_RUN", "runs/latest")
run = xp.open(RUN)
run

# %% [markdown]
# ## Open and look
#
# One row an episode. `where` and `order` are SQL over its columns; only the page that is asked for
# is made.

# %%
columns = ["key", "split", "source", "last_version", "steps", "total_reward", "ending"]
run.episodes(order="total_reward desc", limit=5).select(columns).to_pandas()

# %% [markdown]
# An episode by its key, turn by turn: what was seen, what was done, what it earned.

# %%
best = run.episodes("total_reward is not null", order="total_reward desc, key", limit=1)
episode = run.episode(best["key"][0].as_py())
for step in episode.steps[:2]:
    print(step.obs_text[:200], "\n→", step.decision.text, "\n  reward", step.reward, "\n")
print("…", len(episode.steps), "turns in all; it ended as", episode.ending)

# %% [markdown]
# Rows as Arrow, Polars, pandas, or a DuckDB relation. Signals are columns by name.

# %%
steps = run.steps(where="action_text is not null")
steps.relation().query(
    "steps",
    "select source, split, count(*) as turns, round(avg(reward), 4) as mean_reward "
    "from steps group by all order by all",
).df()

# %% [markdown]
# ## Plot
#
# Held-out returns by policy version: the mean and its 95 % interval (Student's t over episodes).

# %%
from experience.evaluation.statistics import mean_with_interval

held_out = run.episodes(
    "split = 'heldout' and source = 'real' and total_reward is not null and behaviour_id <> 'random'"
).to_pandas()
curve = [
    (version, mean_with_interval(of["total_reward"].tolist()))
    for version, of in held_out.groupby("last_version")
]
known = [(version, mean) for version, mean in curve if mean.half is not None]
figure, axes = plt.subplots(figsize=(5, 2.6), dpi=72, layout="constrained")
axes.errorbar(
    [version for version, _ in known],
    [mean.mean for _, mean in known],
    [mean.half for _, mean in known],
    marker="o",
    capsize=3,
)
axes.set_xlabel("policy version")
_ = axes.set_ylabel("held-out return")
# %% [markdown]
# ## Another reward, without collecting again
#
# A reward is a function of signals. Here the last two signals count 1; choose weights that you mean.
# Nothing is written: `reward_again` in [add-a-reward.md](add-a-reward.md) keeps a reward for good.

# %%
worlds = sorted(set(run.episodes()["env_id"].to_pylist()))
signals = [c.removeprefix("signal.") for c in steps.columns if c.startswith("signal.")]
again = run.with_reward(
    xp.RewardModel({world: dict.fromkeys(signals[-2:], 1.0) for world in worlds})
)
before, after = (of.episodes("source = 'real'").to_pandas() for of in (run, again))
print("signals:", ", ".join(signals), "| counted:", ", ".join(signals[-2:]))
print("mean return before", mean_with_interval(before["total_reward"].dropna().tolist()))
print("mean return after ", mean_with_interval(after["total_reward"].dropna().tolist()))

# %% [markdown]
# ## Compare two versions
#
# The first and the last version on the same held-out tasks: which tasks got worse?

# %%
by_task = held_out.pivot_table(index="seed", columns="last_version", values="total_reward")
if by_task.shape[1] > 1:
    first, last = by_task.columns[0], by_task.columns[-1]
    gain = (by_task[last] - by_task[first]).dropna()
    print(f"version {first} and {last}: {len(gain)} tasks of both, {(gain < 0).sum()} got worse")
    print("gain task by task:", mean_with_interval(gain.tolist()))
else:
    print("this run evaluated fewer than two versions")

# %% [markdown]
# ## Learn from it elsewhere
#
# A dataset for PyTorch: any number of workers, each row once a pass.

# %%
dataset = run.torch(("action_ids", "reward", "discount"), "split = 'train'", k=4, batch=64, seed=0)
batch = next(iter(dataset.loader()))
{name: getattr(column, "shape", len(column)) for name, column in batch.items()}
