"""Keys of earlier versions: each is an error that names the key which took its place."""

from __future__ import annotations

from actors.config.reader import Node, Problems

MOVED = {
    "planning.model": "planning.model.kind",
    "planning.layers": "planning.model.layers",
    "planning.width": "planning.model.width",
    "planning.retrieve": "planning.model.retrieve",
    "planning.first_steps": "planning.model.first_steps",
    "planning.fit_steps": "planning.model.fit_steps",
    "planning.trusted_accuracy": "planning.model.trusted_accuracy",
    "planning.groups": "planning.branches.groups",
    "planning.horizon": "planning.branches.horizon, planning.lookahead.horizon, and, as twice "
    "as many turns, planning.sweeps.first_turns",
    "planning.roots": "planning.sweeps.roots",
    "planning.states": "planning.sweeps.states and planning.lookahead.states",
    "planning.candidates": "planning.lookahead.candidates",
    "planning.search": "planning.lookahead.search",
    "planning.rollouts": "planning.lookahead.rollouts",
    "planning.thought": "planning.lookahead.simulator",
    "planning.updates": "planning.table.updates",
    "planning.curiosity": "planning.table.curiosity",
    "planning.options": "planning.options.library",
    "planning.skills": "planning.options.skills",
    "learning.objective": "learning.recipe",
    "learning.advantage": "learning.recipe: group is grpo, state is gigpo, turn is turn_ppo",
    "learning.clip_below": "learning.recipe.clip_below",
    "learning.clip_above": "learning.recipe.clip_above",
    "learning.kl_weight": "learning.recipe.kl_weight",
    "learning.negative_weight": "learning.recipe.negative_weight",
}


def report_moved(read: Node, problems: Problems) -> None:
    """Reports the old keys of one file or override, and takes them out of `read`.

    Works on what was just read, before it is merged: a newer mapping would hide the old value.
    """
    for old, new in MOVED.items():
        section_name, _, key = old.partition(".")
        section = read.value.get(section_name)
        if section is None or not isinstance(section.value, dict) or key not in section.value:
            continue
        value = section.value[key]
        if isinstance(value.value, dict):
            continue  # a section that has the name of an old key
        # Out of the tree, or it would be reported once more as unknown.
        del section.value[key]
        problems.add(value.place, f"{old}: this key has moved", f"set {new}")
