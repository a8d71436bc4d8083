"""Runs TextWorldExpress inside its place, with its Java machine: does actions, answers scores."""


class Judge:
    def __init__(self, game, parameters):
        from textworld_express import TextWorldExpressEnv

        self._inside = TextWorldExpressEnv(envStepLimit=10_000)
        self._inside.load(gameName=game, gameParams=parameters)

    def begin(self, seed, fold):
        seen, info = self._inside.reset(seed=seed, gameFold=fold, generateGoldPath=True)
        gold = [str(action) for action in self._inside.getGoldActionSequence()]
        wanted = str(info.get("taskDescription", ""))
        return self._turn(seen, info) | {"gold": gold, "wanted": wanted}

    def step(self, action):
        seen, _, _, info = self._inside.step(action)
        return self._turn(seen, info)

    def _turn(self, seen, info):
        score = info["scoreRaw"] if "scoreRaw" in info else info["score"]
        return {
            "seen": str(seen),
            "valid": [str(action) for action in info["validActions"]],
            "score": float(score),
            "won": bool(info["tasksuccess"]),
            "lost": bool(info["taskfailure"]),
        }
