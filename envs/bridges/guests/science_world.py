"""Runs ScienceWorld inside its place, with its Java machine: does actions, answers scores."""


class Judge:
    def __init__(self):
        from scienceworld import ScienceWorldEnv

        # The world's own `max_turns` ends an episode, long before this limit.
        self._inside = ScienceWorldEnv("", envStepLimit=10_000)

    def families(self):
        return list(self._inside.get_task_names())

    def variations(self, family):
        self._inside.load(family, 0, "easy", generateGoldPath=False)
        return {
            "train": [int(v) for v in self._inside.get_variations_train()],
            "heldout": [int(v) for v in self._inside.get_variations_test()],
        }

    def begin(self, family, variation):
        # Without a new load, a reset keeps the last variation and its gold path.
        self._inside.load(family, variation, "easy", generateGoldPath=True)
        seen, info = self._inside.reset()
        gold = [str(action) for action in self._inside.get_gold_action_sequence()]
        return {"seen": str(seen), "wanted": str(info["taskDesc"]), "gold": gold}

    def step(self, action):
        seen, _, over, info = self._inside.step(action)
        return {"seen": str(seen), "over": bool(over), "score": float(info["score"])}

    def valid(self):
        return sorted(map(str, self._inside.get_valid_action_object_combinations()))
