"""The tasks of desktop/office: ten families, each about some words and numbers.

family      words                               numbers
formula     the function, the items             their prices
cell        the text to write, the items        their prices, the row to write into
replace     the old word, the new one, a name   a day
note        the line to add, the lines before
rename      the old name, the new one, other files
move        the file, the folder, other files
calculate                                       two factors
maximise    the window, a word of no meaning
close       the window, a word of no meaning
count       the word to count, the lines of the log
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FAMILIES = (
    "formula",
    "cell",
    "replace",
    "note",
    "rename",
    "move",
    "calculate",
    "maximise",
    "close",
    "count",
)
FUNCTIONS = {"sum": "SUM", "average": "AVERAGE", "largest": "MAX", "smallest": "MIN"}
"""A function in words, as a task asks for it -> its name in Calc."""
_WORDS = (
    "tea",
    "milk",
    "rice",
    "soap",
    "ink",
    "bread",
    "glue",
    "paper",
    "salt",
    "corn",
    "wool",
    "nails",
)
_NAMES = ("Ann", "Bob", "Cyd", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida", "Jon", "Kim", "Leo")
_EDITORS = ("notes.txt", "plan.txt")
_WINDOWS = (*_EDITORS, "galculator")


@dataclass(frozen=True)
class DesktopTask:
    """What to do, with the words and numbers that it is about (see the table above)."""

    family: str
    words: tuple[str, ...]
    numbers: tuple[float, ...] = ()

    @property
    def goal(self) -> str:
        """What the agent is told to do."""
        w = self.words
        n = self.numbers
        last = last_row(self)
        match self.family:
            case "formula":
                return (
                    f"In prices.ods put a formula for the {w[0]} of B2 to B{last} into "
                    f"B{last + 1}; save"
                )
            case "cell":
                return f"In prices.ods write {w[0]} into D{int(n[-1])}; save it"
            case "replace":
                return f"In letter.odt replace {w[0]} by {w[1]} everywhere; save it"
            case "note":
                return f"In notes.txt add the line {w[0]} at the end; save it"
            case "rename":
                return f"Rename {w[0]}.txt to {w[1]}.txt"
            case "move":
                return f"Move {w[0]}.txt into the folder {w[1]}"
            case "calculate":
                factors = f"{n[0]:g} * {n[1]:g}"
                return f"Compute {factors} and write the result into answer.txt, alone; save it"
            case "maximise":
                return f"Maximise the window of {w[0]}"
            case "close":
                return f"Close the window of {w[0]} and leave the others open"
            case "count":
                return (
                    f"Write the number of lines of log.txt with the word {w[0]} into count.txt, "
                    "alone"
                )
        raise ValueError(f"no family {self.family!r}; there are {', '.join(FAMILIES)}")

    @property
    def uses_libreoffice(self) -> bool:
        return self.family in ("formula", "cell", "replace")

    @property
    def signature(self) -> str:
        """The text that names a task.

        A task's split follows from its signature: the text keeps its first form, whatever the
        class is called, so that no task moves between training and held-out tasks.
        """
        return f"Errand(family={self.family!r}, words={self.words!r}, numbers={self.numbers!r})"


def last_row(task: DesktopTask) -> int:
    """The row of the last price in prices.ods: the first row holds titles."""
    return len(task.numbers) + 1


def draw_task(rng: np.random.Generator) -> DesktopTask:
    """A task of any family."""
    # The order of the draws is part of the seed's meaning: another order gives other tasks.
    family = FAMILIES[int(rng.integers(len(FAMILIES)))]
    words = tuple(str(word) for word in rng.choice(_WORDS, size=6, replace=False))
    numbers = tuple(float(v) for v in rng.integers(2, 99, size=int(rng.integers(3, 6))))
    match family:
        case "formula":
            function = str(rng.choice(list(FUNCTIONS)))
            return DesktopTask(family, (function, *words[: len(numbers)]), numbers)
        case "cell":
            row = float(rng.integers(2, 9))
            return DesktopTask(family, words[:4], (*numbers[:3], row))
        case "replace":
            return DesktopTask(family, (*words[:2], str(rng.choice(_NAMES))), numbers[:1])
        case "calculate":
            return DesktopTask(family, (), numbers[:2])
        case "maximise":
            return DesktopTask(family, (str(rng.choice(_EDITORS)), words[0]))
        case "close":
            return DesktopTask(family, (str(rng.choice(_WINDOWS)), words[0]))
        case "count":
            lines = rng.choice(words[:3], size=int(rng.integers(6, 14)))
            return DesktopTask(family, (words[0], *map(str, lines)))
    return DesktopTask(family, words[:4])
