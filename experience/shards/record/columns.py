"""The columns of the record, each with its type and its meaning: a row is one turn of a stream.

Later formats add columns, which may be null, and never change one.
`docs/reference-columns.md` is made from this list (see reference).
"""

from __future__ import annotations

import pyarrow as pa

from experience.shards.record.column import Column
from experience.shards.record.model_columns import CALL, MODEL_COLUMNS

# Of fixed size: an id costs no offsets, and numpy reads a column of them as V16.
ID = pa.binary(16)
BLOB = pa.struct(
    [
        ("hash", pa.binary(32)),
        ("media", pa.string()),
        ("nbytes", pa.int64()),
        ("w", pa.int32()),
        ("h", pa.int32()),
        ("role", pa.string()),
    ]
)
SPAN = pa.struct([("version", pa.int64()), ("n_tokens", pa.int32())])
SIGNAL = pa.struct([("code", pa.int16()), ("value", pa.float64()), ("evidence", pa.string())])
_IDS = pa.list_(pa.int32())
_NS = "nanoseconds since 1970, UTC"

COLUMNS: tuple[Column, ...] = (
    Column("stream_id", ID, False, "whose", "The stream that the row belongs to."),
    Column(
        "t",
        pa.int64(),
        False,
        "whose",
        "The row's number in its stream: 0, 1, 2 … gapless.",
        "rows",
    ),
    Column("episode", pa.int64(), True, "whose", "The number of the episode, given by its writer."),
    Column(
        "step_in_episode",
        pa.int32(),
        True,
        "whose",
        "The row's number in its episode, from 0.",
        "rows",
    ),
    Column(
        "work_id",
        ID,
        False,
        "whose",
        "The piece of work that the episode fulfils: equal in every attempt at it.",
    ),
    Column(
        "group_id",
        pa.string(),
        False,
        "whose",
        "Episodes of one task from one start share it, for group baselines; empty: no group.",
    ),
    Column("env_id", pa.string(), False, "where", "The environment, e.g. envs:Reactor-v0."),
    Column(
        "env_version", pa.string(), False, "where", "The environment's version; empty: unknown."
    ),
    Column("task_id", pa.string(), False, "where", "The task within the environment."),
    Column(
        "split",
        pa.string(),
        False,
        "where",
        "`train`, or held-out rows that nobody may learn from.",
    ),
    Column("seed", pa.int64(), False, "where", "The seed that the episode was reset with."),
    Column(
        "sandbox_tier",
        pa.string(),
        False,
        "where",
        "How the environment's programs were isolated; empty: it runs none.",
    ),
    Column("t_start_ns", pa.int64(), False, "when", "When the turn began.", _NS),
    Column("t_end_ns", pa.int64(), False, "when", "When the turn was answered.", _NS),
    Column(
        "source", pa.string(), False, "from what", "`real`, `imagined`, `demonstration` or `human`."
    ),
    Column(
        "parent_stream",
        ID,
        True,
        "from what",
        "The stream of the step that an imagined or branched step starts from; null: no branch.",
    ),
    Column("parent_t", pa.int64(), True, "from what", "The t of that step.", "rows"),
    Column(
        "model_version",
        pa.int64(),
        True,
        "from what",
        "The version of the world model that imagined the step; null: not imagined.",
    ),
    Column(
        "uncertainty",
        pa.float32(),
        True,
        "from what",
        "The world model's own uncertainty about an imagined step.",
        "as the model defines it",
    ),
    Column("obs_text", pa.large_string(), False, "seen", "The observation O_t as text."),
    Column(
        "obs_blobs",
        pa.list_(BLOB),
        True,
        "seen",
        "Large observations by the SHA-256 of their bytes, with media type, size (bytes), width "
        "and height (pixels; 0: unknown) and what they show.",
    ),
    Column("obs_struct", pa.large_binary(), True, "seen", "Reserved: no writer fills it yet."),
    Column("state_key", pa.uint64(), False, "seen", "A 64-bit hash of the canonical state."),
    Column(
        "prompt_prefix_len",
        pa.int32(),
        False,
        "asked",
        "How many leading tokens the prompt keeps of the last context (a prompt and its action).",
        "tokens",
    ),
    Column("prompt_ids", _IDS, False, "asked", "The prompt's token ids after that prefix."),
    Column(
        "action_text",
        pa.large_string(),
        True,
        "done",
        "The action A_t as text; null: a closing row.",
    ),
    Column(
        "action_ids", _IDS, False, "done", "The action's token ids; empty: the engine cannot tell."
    ),
    Column(
        "action_logprobs",
        pa.list_(pa.float32()),
        False,
        "done",
        "For each action token, its log-probability under the distribution it was sampled from.",
        "nats",
    ),
    Column(
        "version_spans",
        pa.list_(SPAN),
        False,
        "done",
        "Which weights sampled which run of action tokens, as (version, number of tokens).",
    ),
    Column("policy_version", pa.int64(), True, "done", "The version of the policy that decided."),
    Column(
        "behaviour_id",
        pa.string(),
        False,
        "done",
        "Who decided, e.g. a model's name, `random`, `expert` or `option:NAME`.",
    ),
    Column("decoder", pa.string(), False, "done", "How the action was chosen, e.g. temperature=1."),
    Column(
        "token_exact",
        pa.bool_(),
        False,
        "done",
        "Whether the token ids are exactly those that the engine read and wrote.",
    ),
    Column(
        "tool_calls",
        pa.list_(CALL),
        True,
        "done",
        "The calls of tools that the action asks for, with their arguments as JSON; null: none.",
    ),
    Column(
        "action_struct",
        pa.large_binary(),
        True,
        "done",
        "The action as the environment's own bytes, where text is not what it takes.",
    ),
    Column(
        "option_id",
        pa.int64(),
        True,
        "under which intent",
        "The option that was running: a hash of its name; null: none.",
    ),
    Column(
        "option_step",
        pa.int32(),
        True,
        "under which intent",
        "Turns since the option began; 0: the row only starts it, and the world was not acted in.",
        "rows",
    ),
    Column("plan_id", pa.int64(), True, "under which intent", "The plan that the step follows."),
    Column(
        "value_estimate",
        pa.float32(),
        True,
        "under which intent",
        "The return that was expected from here when the action was chosen.",
        "as the reward",
    ),
    Column(
        "signals",
        pa.list_(SIGNAL),
        False,
        "answered",
        "What was measured after the action: a code (a position in the shard's own signal "
        "catalogue), the value (null: unknown) and the evidence.",
        "by the catalogue",
    ),
    Column(
        "reward",
        pa.float64(),
        True,
        "answered",
        "R_{t+1}, computed from the signals by `reward_version`; null: unknown.",
        "by the reward version",
    ),
    Column(
        "reward_version", pa.string(), False, "answered", "The reward function that computed it."
    ),
    Column(
        "discount",
        pa.float32(),
        False,
        "answered",
        "γ_{t+1}: 0 where the world terminated, and only there.",
    ),
    Column(
        "ending",
        pa.string(),
        False,
        "answered",
        "`none`, `terminated`, `truncated`, or a failure: `env_error`, `engine_error`, `timeout`, "
        "`cancelled`.",
    ),
    Column(
        "boundary",
        pa.uint8(),
        False,
        "marks",
        "Bits: 1 terminated, 2 truncated, 4 reset, 8 option end, 16 a summary or a note of the "
        "agent itself, 32 worker restart, 64 gap, 128 continues without a reset.",
    ),
    Column("info", pa.large_binary(), True, "marks", "What else the environment said, as JSON."),
    Column(
        "subject",
        pa.string(),
        True,
        "about whom",
        "Whom the row is about, e.g. a user's pseudonym: rows are deleted by it on request.",
        since=2,
    ),
    Column(
        "sampled",
        pa.bool_(),
        True,
        "how it was decoded",
        "Whether the action is a plain sample of the distribution that `action_logprobs` tell of, "
        "so that an importance ratio may be taken.",
        since=3,
    ),
    Column(
        "temperature",
        pa.float64(),
        True,
        "how it was decoded",
        "The sampling temperature; 0: the likeliest, scored at 1; null: unknown, or no sample.",
        since=3,
    ),
    Column(
        "allowed_ids",
        _IDS,
        True,
        "how it was decoded",
        "The token ids that the decoder could choose from, token after token.",
        since=3,
    ),
    Column(
        "allowed_counts",
        _IDS,
        True,
        "how it was decoded",
        "How many of `allowed_ids` belong to each action token; 0: the whole vocabulary.",
        "tokens",
        since=3,
    ),
    Column(
        "prompt_cut",
        pa.int32(),
        True,
        "how it was decoded",
        "How many tokens of the prompt were left out for want of room; null: unknown.",
        "tokens",
        since=3,
    ),
    Column(
        "action_cut",
        pa.bool_(),
        True,
        "how it was decoded",
        "Whether the limit of tokens ended the action; null: unknown.",
        since=3,
    ),
    *MODEL_COLUMNS,
)

AS_THEY_ARE = (
    "stream_id",
    "t",
    "env_id",
    "obs_text",
    "source",
    "episode",
    "step_in_episode",
    "work_id",
    "group_id",
    "env_version",
    "task_id",
    "split",
    "seed",
    "sandbox_tier",
    "t_start_ns",
    "t_end_ns",
    "model_version",
    "uncertainty",
    "state_key",
    "option_id",
    "option_step",
    "plan_id",
    "value_estimate",
    "reward",
    "reward_version",
    "discount",
    "ending",
)
"""Columns that a step holds under the same name and in the same form."""
