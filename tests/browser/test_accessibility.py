"""The playground by keyboard alone, and by axe-core's rules in every state and look."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.async_api import Page, ViewportSize, expect

from tests.browser.accessibility import violations
from tests.browser.conftest import PHONE, WIDE, OpenPlayground
from tests.browser.playground import Playground

LOOKS: list[tuple[Literal["light", "dark"], ViewportSize]] = [
    ("light", WIDE),
    ("dark", WIDE),
    ("light", PHONE),
    ("dark", PHONE),
]


async def violations_in_every_look(page: Page) -> list[Any]:
    found: list[Any] = []
    for scheme, size in LOOKS:
        await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        await page.set_viewport_size(size)
        found += [(scheme, size, rule) for rule in await violations(page)]
    await page.set_viewport_size(WIDE)
    return found


async def test_axe_finds_no_violation(open_playground: OpenPlayground, torn: Path) -> None:
    playground = await open_playground()
    page = playground.page
    assert await violations_in_every_look(page) == []

    await playground.sample("Find a picture")
    await page.get_by_text("Timings").click()
    await page.get_by_text("Options").click()
    await playground.drop(torn)
    await playground.expect_documents(14)
    await playground.ask("three green stars")
    assert await violations_in_every_look(page) == []

    await page.get_by_label("Compare side by side").check()
    await page.get_by_label("A bad document").select_option("fail")
    await playground.rerank()
    await expect(page.locator(".notice.bad")).to_have_count(2)
    assert await violations_in_every_look(page) == []

    await page.get_by_role("button", name="Copy as code").click()
    assert await violations_in_every_look(page) == []
    await page.keyboard.press("Escape")
    await page.get_by_label("Query", exact=True).fill("")
    await playground.rerank()
    await expect(page.locator("#notices")).to_contain_text("Type a query")
    assert await violations_in_every_look(page) == []


async def test_axe_finds_no_violation_where_a_key_is_asked_for(
    open_playground: OpenPlayground, guarded: str
) -> None:
    playground = await open_playground(guarded)
    await playground.use_key("wrong-key")
    await expect(playground.page.locator("#key-problem")).not_to_be_empty()
    assert await violations(playground.page) == []


async def test_everything_is_done_by_keyboard(open_playground: OpenPlayground) -> None:
    playground = await open_playground()
    page = playground.page
    await page.keyboard.press("Alt+Q")
    await page.keyboard.type("how do I sort a list")
    await page.keyboard.press("Alt+N")
    await page.keyboard.type("Close the file.\nSort the list in ascending order.\nA circle.")
    await page.keyboard.press("Alt+Enter")
    await playground.expect_said("3 added.")
    await page.keyboard.press("Control+Enter")
    await playground.expect_said("First: Sort the list in ascending order.")

    # down the list by its buttons: the third document is edited, then removed
    await focus_by_tab(page, "Edit the text of Sort the list in ascending order.")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("ArrowDown")
    last = (await playground.names())[-1]
    await expect(page.get_by_role("button", name=f"Edit the text of {last}")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.type(" It is sorted.")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Control+Enter")
    await playground.expect_said("Ranked 3 documents")
    await focus_by_tab(page, f"Remove {last} It is sorted.")
    await page.keyboard.press("Enter")
    await playground.expect_documents(2)
    assert await focused_name(page) != "", "the focus is lost with the document"

    await page.keyboard.press("Alt+V")
    await expect(page.get_by_role("region", name="Side B")).to_be_visible()
    await page.keyboard.press("Alt+C")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_be_hidden()


async def focus_by_tab(page: Page, name: str) -> None:
    """Press Tab until the element of a name has the focus."""
    for _ in range(80):
        if await focused_name(page) == name:
            return
        await page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {name!r}")


async def focused_name(page: Page) -> str:
    name: str = await page.evaluate(FOCUSED_NAME)
    return name


FOCUSED_NAME = """() => {
  const { activeElement: focused, body } = document;
  if (focused === body) return "";
  return focused.getAttribute("aria-label") ?? focused.textContent.trim();
}"""


async def test_tab_reaches_every_control_and_the_focus_is_seen(
    open_playground: OpenPlayground,
) -> None:
    playground = await open_playground()
    await playground.sample("Answer a question")
    await playground.page.get_by_text("Options").click()
    await playground.page.evaluate(NUMBER_CONTROLS)
    await playground.page.get_by_role("link", name="Skip to the ranking").focus()
    await playground.page.keyboard.press("Shift")  # from here on, the focus is the keyboard's
    reached: set[str] = set()
    while True:
        number, is_seen = await playground.page.evaluate(FOCUSED)
        if number in reached or number is None:
            break
        assert is_seen, f"control {number} shows no focus"
        reached.add(number)
        await playground.page.keyboard.press("Tab")
    assert reached == set(await playground.page.evaluate(NUMBERS))


NUMBER_CONTROLS = """() => {
  const controls = document.querySelectorAll("button, a, input, select, textarea, summary");
  [...controls].filter(control => control.checkVisibility()).forEach((control, index) => {
    control.dataset.number = String(index);
  });
}"""
NUMBERS = "[...document.querySelectorAll('[data-number]')].map(({ dataset }) => dataset.number)"
FOCUSED = """() => {
  const focused = document.activeElement;
  const seen = [focused, focused.parentElement].some(element => {
    const { outlineStyle, outlineWidth } = getComputedStyle(element);
    return outlineStyle !== "none" && Number.parseFloat(outlineWidth) >= 1;
  });
  return [focused.dataset.number ?? null, seen];
}"""


async def test_the_theme_is_switched(open_playground: OpenPlayground) -> None:
    playground = await open_playground(color_scheme="light")
    button = playground.page.get_by_role("button", name="Colour theme")
    scheme = "getComputedStyle(document.documentElement).colorScheme"
    shown: list[Any] = []
    for _ in range(3):
        await button.click()
        shown.append(await playground.page.evaluate(scheme))
    assert shown == ["light", "dark", "light dark"]


async def test_the_reading_order_is_that_of_the_ranking(playground_ranked: Playground) -> None:
    tree = await playground_ranked.page.get_by_role("list", name="Documents").aria_snapshot()
    ranks = [line.split("Rank ")[1] for line in tree.splitlines() if "Rank " in line]
    assert [rank.strip('"') for rank in ranks] == [str(rank) for rank in range(1, 6)]


@pytest.fixture
async def playground_ranked(open_playground: OpenPlayground) -> Playground:
    playground = await open_playground()
    await playground.sample("Answer a question")
    return playground
