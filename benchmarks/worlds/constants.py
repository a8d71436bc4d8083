"""`python -m benchmarks.worlds.constants`: datasets of reasoning-gym that pay a constant answer.

100 tasks of each dataset are answered with each of some common words, and with the right answers of
12 other tasks. A line names a dataset's best constant answer and its mean score. The datasets with
a mean of 0.3 or more are printed last: they belong in `CONSTANT` of envs/bridges/reasoning.py.
"""

from __future__ import annotations

import statistics

from envs.bridges.reasoning import datasets, entry, judges
from experience.errors import EnvironmentFailure

WORDS = ("", "0", "1", "2", "-1", "True", "False", "None", "yes", "no", "Yes", "No", "[]", "A", "a")
TASKS = 100
OTHERS = 12
LEAST = 0.3


def paid(dataset: str, text: str) -> float:
    """The mean score of `text` over the first TASKS tasks, scored as the world scores it."""
    scores = []
    with judges().open() as episode:
        for index in range(TASKS):
            score = float(episode.ask("score", dataset=dataset, index=index, text=text))
            right = entry(dataset, index)["answer"].strip()
            # The world pays nothing for a text that only contains the right answer.
            scores.append(0.0 if score < 1 and right in text else score)
            # A quarter of the tasks rules most texts out.
            if index == 24 and statistics.mean(scores) < LEAST / 3:
                break
    return statistics.mean(scores)


def best(dataset: str) -> tuple[float, str]:
    """(mean score of the best constant answer, that answer).

    An answer that breaks the verifier scores nothing.
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
        except EnvironmentFailure as failed:  # `composite` needs a list of datasets to mix
            print(f"{dataset:32} makes no tasks: {failed}")
            continue
        print(f"{dataset:32} {mean:.2f} {text[:60]!r}", flush=True)
        if mean >= LEAST:
            marked[dataset] = round(mean, 2)
    print("CONSTANT =", marked)


if __name__ == "__main__":
    main()
