"""Which of reasoning-gym's datasets pay an answer that is always the same: python -m
benchmarks.worlds.constants

Of each dataset 100 tasks are answered with each of a dozen common words, and with the right answers
of 12 other tasks; the best of them, and what it averages, is a line. Those that average 0.3 or more
belong into `CONSTANT` of envs/bridges/reasoning.py, which is printed last.
"""

from __future__ import annotations

import statistics

from envs.bridges.reasoning import datasets, entry, judges
from experience.errors import EnvironmentFailure

WORDS = ("", "0", "1", "2", "-1", "True", "False", "None", "yes", "no", "Yes", "No", "[]", "A", "a")
TASKS, OTHERS, LEAST = 100, 12, 0.3


def paid(dataset: str, text: str) -> float:
    """What `text` averages over the first TASKS tasks, scored as the world scores it."""
    scores = []
    with judges().open() as episode:
        for index in range(TASKS):
            score = float(episode.ask("score", dataset=dataset, index=index, text=text))
            right = entry(dataset, index)["answer"].strip()
            scores.append(0.0 if score < 1 and right in text else score)
            if index == 24 and statistics.mean(scores) < LEAST / 3:
                break
    return statistics.mean(scores)


def best(dataset: str) -> tuple[float, str]:
    """(what the best constant answer averages, that answer).

    One that breaks the verifier pays nothing.
    """
    others = [entry(dataset, TASKS + i)["answer"] for i in range(OTHERS)]
    found = (0.0, "")
    for text in dict.fromkeys((*WORDS, *others)):
        try:
            found = max(found, (paid(dataset, text), text))
        except EnvironmentFailure as failed:
            print(f"{dataset} {text[:40]!r}: {failed}")
    return found


def main() -> None:
    marked = {}
    for dataset in datasets():
        try:
            mean, text = best(dataset)
        except EnvironmentFailure as failed:  # `composite` is a mixture that must be told of what
            print(f"{dataset:32} makes no tasks: {failed}")
            continue
        print(f"{dataset:32} {mean:.2f} {text[:60]!r}", flush=True)
        if mean >= LEAST:
            marked[dataset] = round(mean, 2)
    print("CONSTANT =", marked)


if __name__ == "__main__":
    main()
