"""Runs TextWorldExpress inside its place, with its Java machine: does actions, answers scores."""


class Judge:
    def __init__(self, game, parameters):
        from textworld_express import TextWorldExpressEnv

        self._inside = TextWorldExpressEnv(envStepLimit=10_000)
        self._inside.load(gameName=game, gameParams=parameters)

    def begin(self, seed, fold):
        told, info = self._inside.reset(seed=seed, gameFold=fold, generateGoldPath=True)
        gold = [str(action) for action in self._inside.getGoldActionSequence()]
        return self._told(told, info) | {
            "gold": gold,
            "wanted": str(info.get("taskDescription", "")),
        }

    def step(self, action):
        told, _, _, info = self._inside.step(action)
        return self._told(told, info)

    def _told(self, told, info):
        score = info["scoreRaw"] if "scoreRaw" in info else info["score"]
        return {
            "told": str(told),
            "valid": [str(action) for action in info["validActions"]],
            "score": float(score),
            "won": bool(info["tasksuccess"]),
            "lost": bool(info["taskfailure"]),
        }
