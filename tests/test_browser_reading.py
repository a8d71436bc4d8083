"""What agents read of pages, and how a site's program is answered: no browser is needed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from envs.browser.chrome.accessibility import ax_lines, control_lines, numbered_lines
from envs.browser.chrome.routing import Reply, Request, serve_only
from envs.browser.mediawiki import _read_output
from envs.browser.miniwob_experts import EXPERTS, ShownPage


def node(number: int, role: str, name: str = "", **more: Any) -> dict[str, Any]:
    """An AXNode whose element has 100 more than its own number."""
    given = {"nodeId": str(number), "backendDOMNodeId": 100 + number, "childIds": []}
    return given | {"role": {"value": role}, "name": {"value": name}} | more


def checked(value: str) -> dict[str, Any]:
    return {"properties": [{"name": "checked", "value": {"value": value}}]}


TREE = [
    node(1, "RootWebArea", "shop", childIds=["2", "5", "7", "9"]),
    node(5, "textbox", "Note", value={"value": "tea"}),
    node(2, "form", childIds=["3", "8"]),
    node(3, "button", " Send ", childIds=["4"]),
    node(4, "StaticText", "Send"),
    node(7, "checkbox", "Agree", **checked("true")),
    node(8, "StaticText", "Note"),
]
"""In no order, as Chromium may give it; child 9 is missing."""


def test_lines_are_in_the_documents_order_and_say_nothing_twice() -> None:
    assert ax_lines(TREE, lambda element: element) == [
        "[102] form",
        '[103] button "Send"',
        '[108] text "Note"',
        '[105] textbox "Note" = tea',
        '[107] checkbox "Agree" (checked)',
    ]


def test_a_name_means_the_field_and_not_its_label() -> None:
    lines, elements = numbered_lines(TREE)
    assert lines[2:4] == ['[4] text "Note"', '[5] textbox "Note" = tea']
    number, rest = elements.find("Note for Ann")
    assert elements.node(number) == 105 and rest == "for Ann"
    assert elements.node(elements.find("Send")[0]) == 103


def test_controls_are_listed_with_their_values() -> None:
    size = node(1, "combobox", "Size", value={"value": "small"}, childIds=["2", "3"])
    tree = [size, node(2, "option", "small"), node(3, "option", "large")]
    assert control_lines(tree)[0] == ["list Size=small (small|large)"]
    assert control_lines(TREE)[0] == ["button  Send ", "text Note=tea", "check Agree=on"]
    assert control_lines([])[0] == []


def test_a_page_deeper_than_pythons_stack_is_read() -> None:
    deep = [node(n, "group", childIds=[str(n + 1)]) for n in range(5000)]
    assert len(ax_lines(deep, lambda element: element)) == 5000
    assert control_lines(deep)[0] == []


class _Context:
    """Keeps the handlers that a Playwright context would call."""

    def __init__(self) -> None:
        self.routes: list[Any] = []

    async def route(self, _: str, handler: Any) -> None:
        self.routes.append(handler)

    async def route_web_socket(self, _: str, handler: Any) -> None:
        self.routes.append(handler)


class _Route:
    """One request of a page, as Playwright shows it."""

    headers = {"content-type": "text/plain"}
    method = "POST"
    post_data_buffer = None

    def __init__(self, url: str) -> None:
        self.url = url
        self.request = self
        self.ended: Any = None

    async def abort(self, reason: str) -> None:
        self.ended = reason

    async def fulfill(self, **reply: Any) -> None:
        self.ended = reply


def test_only_requests_to_the_own_origin_are_answered() -> None:
    asked: list[Request] = []

    def handler(request: Request) -> Reply:
        asked.append(request)
        return Reply(200, "text/plain", b"yes")

    async def ended(url: str) -> Any:
        context, route = _Context(), _Route(url)
        await serve_only(context, "http://site.test", handler)
        await context.routes[0](route)
        return route.ended

    found = asyncio.run(ended("http://site.test/a?b=c"))
    assert found == {"status": 200, "body": b"yes", "content_type": "text/plain"}
    assert asked == [Request("POST", "/a", "b=c", b"", "text/plain")]
    for url in ("https://site.test/", "http://site.test:81/", "http://site.test.evil.org/"):
        assert asyncio.run(ended(url)) == "blockedbyclient", url
    assert len(asked) == 1


def test_a_cgi_programs_output_is_headers_cookies_and_body() -> None:
    head = b"Status: 302 Found\r\nLocation: /x\r\nSet-Cookie: a=b=c; path=/\r\nset-cookie: d=e"
    headers, cookies, body = _read_output(head + b"\r\n\r\nbody\r\n\r\nmore")
    assert headers == {"status": "302 Found", "location": "/x"}
    assert cookies == {"a": "b=c", "d": "e"}
    assert body == b"body\r\n\r\nmore"


def test_an_expert_reads_the_page_as_it_is_shown() -> None:
    page = ShownPage(
        'Select tea, ink and click Submit "now".',
        (
            '[1] checkbox "tea"',
            '[2] checkbox "ink" (checked)',
            '[4] text "tea"',
            '[7] button "Submit"',
        ),
    )
    assert page.listed() == ["tea", "ink"] and page.quoted() == ["now"]
    assert page.find("ink") == 2 and page.find("tea", "text") == 4
    assert page.first("checkbox", 1) == 2 and page.numbers() == [1, 2, 4, 7]
    assert EXPERTS["click-checkboxes"](page) == ["click 1", "click 2", "click 7"]
    with pytest.raises(ValueError, match="no button Cancel"):
        page.find("Cancel", "button")
    later = ShownPage(page.utterance, (*page.lines[:3], '[8] button "Done"'))
    assert later.difference(page).splitlines()[1:] == [
        '- [7] button "Submit"',
        '+ [8] button "Done"',
    ]
