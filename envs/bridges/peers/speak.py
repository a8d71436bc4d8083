"""A peer's protocol, with the standard library alone: lines of JSON on stdin and stdout.

    {"do": "begin", "options": {...}}   -> {"instructions": text}
    {"do": "reset", "seed": n}          -> {"seen": text}
    {"do": "step", "action": text}      -> {"seen": text, "reward": number or null,
                                            "ended": bool, "truncated": bool}
    {"do": "random", "seed": n}         -> {"action": text}
The answer is `refused` if an action cannot be read, `failed` if the package itself failed.
"""

import json
import os
import sys
import traceback


class Refused(Exception):
    """An action that cannot be read, and why. Nothing has changed."""


def speak(make):
    """Serves the object that `make(options)` returns, until stdin ends.

    What the package prints goes to stderr.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    inside = None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            match asked["do"]:
                case "begin":
                    inside = make(asked["options"])
                    told = {"instructions": inside.instructions}
                case "reset":
                    told = {"seen": inside.reset(asked["seed"])}
                case "step":
                    step = inside.step(asked["action"])
                    told = dict(zip(("seen", "reward", "ended", "truncated"), step, strict=True))
                case "random":
                    told = {"action": inside.random(asked["seed"])}
        except Refused as refused:
            told = {"refused": str(refused)[:300]}
        except Exception as failed:
            traceback.print_exc()
            told = {"failed": f"{type(failed).__name__}: {failed}"[:500]}
        answers.write(json.dumps(told) + "\n")
        answers.flush()
    if inside is not None and hasattr(inside, "close"):
        inside.close()
