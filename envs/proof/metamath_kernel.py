"""A Metamath kernel: reads a database, and checks proofs one step at a time.

As specified by Megill & Wheeler, "Metamath: A Computer Language for Mathematical Proofs", 2019,
ch. 4. A proof is a list of labels that work a stack. An assertion takes its hypotheses off the
stack, finds what each variable stands for, and puts its conclusion on the stack, provided that
variables that must be distinct are distinct. Statements are tuples of symbols. The proofs of a
database, compressed or not, can be unpacked to labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from experience.errors import MissingPartError

Statement = tuple[str, ...]
Pair = frozenset[str]


@dataclass(frozen=True)
class Hypothesis:
    """$f, the type of a variable (`floating`), or $e, something assumed."""

    label: str
    statement: Statement
    floating: bool


@dataclass(frozen=True)
class Assertion:
    """$a or $p: from `hypotheses`, in this order, follows `statement`.

    `active` holds all hypotheses in scope; its own proof may use them. `proof` is as it stands in
    the database, which may be compressed.
    """

    label: str
    statement: Statement
    hypotheses: tuple[Hypothesis, ...]
    distinct: frozenset[Pair]
    active: Mapping[str, Hypothesis] = field(repr=False)
    active_distinct: frozenset[Pair] = field(repr=False)
    proof: tuple[str, ...] = field(repr=False)
    start: int = 0
    """Where the statement begins in the database's text: its proof may use all that is before."""

    @property
    def proved(self) -> bool:
        return bool(self.proof)


@dataclass
class _Scope:
    variables: set[str] = field(default_factory=set)
    hypotheses: dict[str, Hypothesis] = field(default_factory=dict)
    distinct: set[Pair] = field(default_factory=set)


class Database:
    """The assertions of a .mm file, in order, up to `most` proved ones.

    `text` is the file with blanks in place of its comments, in which the reference program would
    look for markup. Places in the text stay the same.
    """

    def __init__(self, path: Path, most: int) -> None:
        if not path.exists():
            raise MissingPartError(
                f"no Metamath database at {path}", "./xp setup worlds, or give database=PATH"
            )
        self.text = re.sub(
            r"\$\(\s.*?\s\$\)",
            lambda comment: " " * len(comment[0]),
            path.read_text(),
            flags=re.DOTALL,
        )
        self.assertions: dict[str, Assertion] = {}
        self.order: dict[str, int] = {}
        proved = 0
        for assertion in self._read():
            self.order[assertion.label] = len(self.order)
            self.assertions[assertion.label] = assertion
            proved += assertion.proved
            if proved >= most:
                break

    def _read(self) -> Iterator[Assertion]:
        scopes = [_Scope()]
        label = ""
        tokens = _tokens(self.text)
        for token, where in tokens:
            if token == "${":
                # An inner scope sees all of the outer one, and leaves nothing in it.
                top = scopes[-1]
                scopes.append(_Scope(set(top.variables), dict(top.hypotheses), set(top.distinct)))
            elif token == "$}":
                scopes.pop()
            elif token == "$c":
                _until(tokens, "$.")
            elif token == "$v":
                scopes[-1].variables.update(_until(tokens, "$."))
            elif token == "$d":
                apart = _until(tokens, "$.")
                scopes[-1].distinct.update(
                    frozenset((a, b)) for i, a in enumerate(apart) for b in apart[i + 1 :]
                )
            elif token in ("$f", "$e"):
                scopes[-1].hypotheses[label] = Hypothesis(
                    label, tuple(_until(tokens, "$.")), token == "$f"
                )
            elif token in ("$a", "$p"):
                axiom = token == "$a"
                statement = tuple(_until(tokens, "$." if axiom else "$="))
                proof = () if axiom else tuple(_until(tokens, "$."))
                yield _assertion(label, statement, scopes[-1], proof, self._start_of(label, where))
            else:
                label = token

    def _start_of(self, label: str, where: int) -> int:
        return self.text.rindex(label, 0, where)

    def unpack(self, assertion: Assertion) -> list[str]:
        """The proof in the database as a list of labels.

        A compressed proof (appendix B of the book) is a list of labels in brackets, then letters:
        U to Y and A to T spell the number of a label, Z marks a subproof, and higher numbers
        repeat a marked subproof. Raises ValueError for a proof with a step left open.
        """
        if not assertion.proof or assertion.proof[0] != "(":
            return list(assertion.proof)
        closing = assertion.proof.index(")")
        labels = [h.label for h in assertion.hypotheses] + list(assertion.proof[1:closing])
        stack: list[list[str]] = []
        saved: list[list[str]] = []
        number = 0
        for letter in "".join(assertion.proof[closing + 1 :]):
            if "U" <= letter <= "Y":
                number = number * 5 + ord(letter) - ord("U") + 1
            elif letter == "Z":
                saved.append(stack[-1])
            elif letter == "?":
                raise ValueError(f"{assertion.label} is not proved in the database")
            else:
                index = number * 20 + ord(letter) - ord("A")
                number = 0
                if index < len(labels):
                    label = labels[index]
                    taken = 0  # a hypothesis takes nothing from the stack
                    if label in self.assertions:
                        taken = len(self.assertions[label].hypotheses)
                    parts = stack[len(stack) - taken :]
                    del stack[len(stack) - taken :]
                    stack.append([*(step for part in parts for step in part), label])
                else:
                    stack.append(saved[index - len(labels)])
        return stack[0]


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    """Tokens, each with its place in the text. Raises ValueError for an included file."""
    for match in re.finditer(r"\S+", text):
        if match[0] == "$[":
            raise ValueError("a database that includes files is not read")
        yield match[0], match.start()


def _until(tokens: Iterator[tuple[str, int]], end: str) -> list[str]:
    """The tokens before the next `end`, which is taken too."""
    found: list[str] = []
    for token, _ in tokens:
        if token == end:
            return found
        found.append(token)
    raise ValueError(f"the database ends before {end}")


def _assertion(
    label: str, statement: Statement, scope: _Scope, proof: tuple[str, ...], where: int
) -> Assertion:
    """The assertion with its mandatory hypotheses and distinct pairs, as the book defines them.

    Mandatory are all $e in scope, and the $f of each variable that stands in the statement or in
    one of these $e.
    """
    used = {s for s in statement if s in scope.variables}
    for hypothesis in scope.hypotheses.values():
        if not hypothesis.floating:
            used |= {s for s in hypothesis.statement if s in scope.variables}
    mandatory = tuple(
        h for h in scope.hypotheses.values() if not h.floating or h.statement[1] in used
    )
    return Assertion(
        label,
        statement,
        mandatory,
        frozenset(p for p in scope.distinct if p <= used),
        scope.hypotheses,
        frozenset(scope.distinct),
        proof,
        where,
    )


class Proof:
    """A proof in the making: its steps, and the stack that they have left.

    A step that breaks a rule changes nothing.
    """

    def __init__(self, database: Database, goal: Assertion) -> None:
        self._database, self.goal = database, goal
        self.steps: list[str] = []
        self.stack: list[Statement] = []
        self._before: list[list[Statement]] = []

    @property
    def complete(self) -> bool:
        return self.stack == [self.goal.statement]

    def push(self, label: str) -> None:
        """Applies one label.

        Raises ValueError if the label is unknown, comes later than the goal, or does not fit the
        stack.
        """
        if label in self.goal.active:
            new = [*self.stack, self.goal.active[label].statement]
        else:
            used = self._database.assertions.get(label)
            if used is None or self._database.order[label] >= self._database.order[self.goal.label]:
                raise ValueError(f"{label[:30]} is not a label that may be used here")
            new = self._applied(used)
        self._before.append(self.stack)
        self.stack = new
        self.steps.append(label)

    def pop(self) -> None:
        if not self.steps:
            raise ValueError("nothing to take back")
        self.steps.pop()
        self.stack = self._before.pop()

    def _applied(self, used: Assertion) -> list[Statement]:
        """The stack after `used`. Raises ValueError if `used` does not fit the stack."""
        count = len(used.hypotheses)
        if len(self.stack) < count:
            raise ValueError(
                f"{used.label} takes {count} from the stack, which has {len(self.stack)}"
            )
        given = self.stack[len(self.stack) - count :]
        # All variables get their meaning first: the $e and the conclusion are read with it.
        stands_for: dict[str, Statement] = {}
        for hypothesis, statement in zip(used.hypotheses, given, strict=True):
            if hypothesis.floating:
                if statement[0] != hypothesis.statement[0]:
                    raise ValueError(
                        f"{used.label} wants a {hypothesis.statement[0]} there, not "
                        f"{' '.join(statement)}"
                    )
                stands_for[hypothesis.statement[1]] = statement[1:]
        for hypothesis, statement in zip(used.hypotheses, given, strict=True):
            if not hypothesis.floating and _replaced(hypothesis.statement, stands_for) != statement:
                wanted = " ".join(_replaced(hypothesis.statement, stands_for))
                raise ValueError(f"{used.label} wants {wanted}, not {' '.join(statement)}")
        variables = {h.statement[1] for h in self.goal.active.values() if h.floating}
        for pair in used.distinct:
            # What stands for one variable must share no variable with what stands for the other,
            # and each pair of theirs must be declared distinct where the goal is stated.
            a, b = tuple(pair)
            for x in set(stands_for.get(a, ())) & variables:
                for y in set(stands_for.get(b, ())) & variables:
                    if x == y or frozenset((x, y)) not in self.goal.active_distinct:
                        raise ValueError(f"{used.label} needs {x} and {y} to be distinct")
        return [*self.stack[: len(self.stack) - count], _replaced(used.statement, stands_for)]


def _replaced(statement: Statement, stands_for: Mapping[str, Statement]) -> Statement:
    return tuple(s for symbol in statement for s in stands_for.get(symbol, (symbol,)))
