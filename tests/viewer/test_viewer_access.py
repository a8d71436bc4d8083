"""Who cannot see well, or uses no mouse, can read the viewer: names, contrast, focus, size."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.viewer.conftest import Served, Watched

_AXE = "axe-core@4.10.3"

CONTRAST = """() => {
  const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return { c: n.slice(0, 3), a: n[3] ?? 1 }; };
  const mix = (over, under) => over.c.map((v, i) => v * over.a + under[i] * (1 - over.a));
  const light = (c) => { const [r, g, b] = c.map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (e) => { const above = []; for (let at = e; at; at = at.parentElement) above.push(parse(getComputedStyle(at).backgroundColor)); return above.reverse().reduce((under, over) => mix(over, under), [255, 255, 255]); };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || e.closest("svg, :disabled, [aria-hidden=true], option, script, noscript")) continue;
    const style = getComputedStyle(e), box = e.getBoundingClientRect();
    if (!box.width || !box.height || style.visibility === "hidden" || Number(style.opacity) === 0 || e.closest("#said")) continue;
    const under = ground(e), ink = mix(parse(style.color), under);
    const [high, low] = [light(ink), light(under)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05), size = parseFloat(style.fontSize);
    const enough = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    if (ratio < enough) found.push([walk.currentNode.textContent.trim().slice(0, 40), ratio.toFixed(2), e.className]);
  }
  return found;
}"""
NAMELESS = """() => [...document.querySelectorAll('a, button, input, select, textarea, img, [role=img], dialog, nav, aside')].filter((e) => {
  if (!e.getClientRects().length) return false;
  const named = e.getAttribute('aria-label') || e.getAttribute('alt') || e.title || e.innerText?.trim() || e.closest('label')?.innerText.trim() || e.getAttribute('placeholder');
  return !named;
}).map((e) => e.outerHTML.slice(0, 120))"""


def screens(served: Served) -> list[str]:
    return [
        served.home,
        served.at(),
        served.at("episodes"),
        served.at("episode", served.keys["attempt 1"]),
        served.at("episode", served.keys["calls"], asked="turn=1&view=chat"),
        served.at("group", asked="group=g-1"),
        served.at("timeline"),
        served.at("options"),
        served.at("versions"),
        served.at("store"),
    ]


@pytest.mark.parametrize("theme", ("light", "dark"))
def test_all_text_has_contrast_and_all_controls_and_pictures_a_name(
    served: Served, chromium: Any, theme: str
) -> None:
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, color_scheme=theme)
    watched = Watched(context.new_page())
    for address in screens(served):
        page = watched.open(address)
        page.wait_for_timeout(250)
        assert page.evaluate(CONTRAST) == [], address
        assert page.evaluate(NAMELESS) == [], address
        assert page.evaluate("() => document.querySelectorAll('h1').length") == 1, address
        ids = page.evaluate("() => [...document.querySelectorAll('[id]')].map((e) => e.id)")
        assert len(ids) == len(set(ids))
    context.close()
    assert watched.wrong == []


def test_focus_is_seen_on_everything_that_takes_it(served: Served, watched: Watched) -> None:
    page = watched.open(served.at("episode", served.keys["calls"]))
    unseen = []
    for _ in range(25):
        page.keyboard.press("Tab")
        outline = page.evaluate(
            "() => { const s = getComputedStyle(document.activeElement); return [s.outlineStyle, parseFloat(s.outlineWidth), document.activeElement.outerHTML.slice(0, 80)]; }"
        )
        if outline[0] == "none" or outline[1] < 2:
            unseen.append(outline)
    assert [one for one in unseen if not one[2].startswith(("<body", "<main"))] == []


def test_twice_the_size_is_readable_without_scrolling_sideways(
    served: Served, chromium: Any
) -> None:
    """A window of 1280 pixels at 200 % has 640 of them."""
    context = chromium.new_context(viewport={"width": 640, "height": 450}, device_scale_factor=2)
    watched = Watched(context.new_page())
    for address in screens(served):
        page = watched.open(address)
        assert page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0, (
            address
        )
    context.close()
    assert watched.wrong == []


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """axe-core's script, fetched by npm for these tests alone."""
    folder = tmp_path_factory.mktemp("axe")
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    done = subprocess.run(
        ["npm", "pack", _AXE], cwd=folder, capture_output=True, text=True, timeout=120
    )
    packed: list[Path] = list(folder.glob("*.tgz"))
    if done.returncode or not packed:
        pytest.skip(f"npm cannot fetch {_AXE} here: {done.stderr[-200:]}")
    with tarfile.open(packed[0]) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()


@pytest.mark.long
@pytest.mark.parametrize("theme", ("light", "dark"))
@pytest.mark.parametrize("width", (1280, 390))
def test_axe_core_finds_nothing_serious(
    served: Served, chromium: Any, axe: str, theme: str, width: int
) -> None:
    # axe is run from outside the page, whose policy lets no foreign script in.
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, color_scheme=theme, bypass_csp=True
    )
    watched = Watched(context.new_page())
    found = []
    for address in screens(served):
        page = watched.open(address)
        page.wait_for_timeout(300)
        page.evaluate(axe)
        result = page.evaluate(
            "async () => (await axe.run(document)).violations.map((v) => [v.impact, v.id, v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160))])"
        )
        found += [
            (address.rpartition("#")[2], *one)
            for one in result
            if one[0] in ("serious", "critical")
        ]
    context.close()
    assert found == []
