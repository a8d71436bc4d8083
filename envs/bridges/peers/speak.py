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

_STEP = ("seen", "reward", "ended", "truncated")


class Refused(Exception):
    """An action that cannot be read, and why. Nothing has changed."""


def speak(make):
    """Serves the object that `make(options)` returns, until stdin ends.

    What the package prints goes to stderr.
    """
    # The copy of stdout is ours alone: one line that a package prints would be read as an answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    inside = None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            match asked["do"]:
                case "begin":
                    inside = make(asked["options"])
                    answer = {"instructions": inside.instructions}
                case "reset":
                    answer = {"seen": inside.reset(asked["seed"])}
                case "step":
                    step = inside.step(asked["action"])
                    answer = dict(zip(_STEP, step, strict=True))
                case "random":
                    answer = {"action": inside.random(asked["seed"])}
        except Refused as refused:
            answer = {"refused": str(refused)[:300]}
        except Exception as failed:
            # The other end reads stderr only if this process dies; the answer says the error now.
            traceback.print_exc()
            answer = {"failed": f"{type(failed).__name__}: {failed}"[:500]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    if inside is not None and hasattr(inside, "close"):
        inside.close()
