"""What a person would do on some pages of MiniWoB++: read once from what a page shows at first."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class ShownPage:
    """The task in words, and one line an element: [number] role "name" = value (states)."""

    utterance: str
    lines: tuple[str, ...] = ()

    def text(self) -> str:
        return "\n".join([self.utterance, *self.lines])

    def difference(self, before: ShownPage) -> str:
        """The task, and the lines that are gone or new since `before`."""
        gone = [f"- {line}" for line in before.lines if line not in self.lines]
        new = [f"+ {line}" for line in self.lines if line not in before.lines]
        return "\n".join([self.utterance, *gone, *new])

    def numbers(self) -> list[int]:
        return [_number(line) for line in self.lines]

    def find(self, name: str, role: str = r"\w+") -> int:
        """The number of the first element of that name and role.

        Raises ValueError if there is none.
        """
        for line in self.lines:
            found = re.match(rf'\[(\d+)\] {role} "(.*?)"(?: = .*| \(.*)?$', line)
            if found and found[2] == name:
                return int(found[1])
        raise ValueError(f"no {role} {name}")

    def first(self, role: str, nth: int = 0) -> int:
        """The number of the nth element of a role, from 0."""
        return [_number(n) for n in self.lines if n.partition("] ")[2].startswith(role)][nth]

    def quoted(self) -> list[str]:
        """What stands between quotation marks in the task."""
        return re.findall(r'"([^"]*)"', self.utterance)

    def listed(self) -> list[str]:
        """What stands between "Select" and "and click Submit" in the task."""
        wanted = re.sub(r"^Select (.*?) and click Submit.*$", r"\1", self.utterance)
        return [] if wanted == "nothing" else wanted.split(", ")


def _number(line: str) -> int:
    return int(line[1 : line.index("]")])


def _button(name: str) -> Callable[[ShownPage], list[str]]:
    return lambda page: [f"click {page.find(name, 'button')}"]


def _submit(page: ShownPage) -> str:
    return f"click {page.find('Submit', 'button')}"


def _click_button_sequence(page: ShownPage) -> list[str]:
    return [f"click {page.find(name, 'button')}" for name in ("ONE", "TWO")]


def _enter_text(page: ShownPage) -> list[str]:
    return [f"fill {page.first('textbox')} {page.quoted()[0]}", _submit(page)]


def _enter_password(page: ShownPage) -> list[str]:
    password = page.quoted()[0]
    fields = (page.first("textbox"), page.first("textbox", 1))
    return [*(f"fill {field} {password}" for field in fields), _submit(page)]


def _click_checkboxes(page: ShownPage) -> list[str]:
    boxes = [page.find(name, "checkbox") for name in page.listed()]
    return [*(f"click {box}" for box in boxes), _submit(page)]


def _choose_list(page: ShownPage) -> list[str]:
    # The task reads: Select OPTION from the list and click Submit.
    option = page.utterance.removeprefix("Select ").partition(" from the list")[0]
    return [f"select {page.first('combobox')} {option}", _submit(page)]


def _login(page: ShownPage) -> list[str]:
    name, password = page.quoted()
    return [
        f"fill {page.first('textbox')} {name}",
        f"fill {page.first('textbox', 1)} {password}",
        f"click {page.find('Login', 'button')}",
    ]


EXPERTS: dict[str, Callable[[ShownPage], list[str]]] = {
    "click-test": _button("Click Me!"),
    "click-test-2": _button("ONE"),
    "click-button": lambda page: [f"click {page.find(page.quoted()[0], 'button')}"],
    "click-button-sequence": _click_button_sequence,
    "click-link": lambda page: [f"click {page.find(page.quoted()[0])}"],
    "click-dialog": _button("Close"),
    "focus-text": lambda page: [f"click {page.first('textbox')}"],
    "enter-text": _enter_text,
    "enter-password": _enter_password,
    "click-checkboxes": _click_checkboxes,
    "click-option": lambda page: [f"click {page.find(page.listed()[0], 'radio')}", _submit(page)],
    "choose-list": _choose_list,
    "login-user": _login,
}
"""Page -> the actions that solve it."""
