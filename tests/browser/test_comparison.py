"""Two instructions or two models, side by side in the playground."""

from __future__ import annotations

from playwright.async_api import expect

from tests.browser.conftest import PHONE, WIDE, OpenPlayground
from tests.browser.playground import Playground

REFUTES = "Given a claim, find documents that refute the claim."


async def ranks(playground: Playground, column: int) -> dict[str, int]:
    names = await playground.names(column)
    return {name: position + 1 for position, name in enumerate(names)}


async def test_two_instructions_are_compared(open_playground: OpenPlayground) -> None:
    playground = await open_playground()
    page = playground.page
    await playground.sample("Find a picture")
    await page.get_by_label("Compare side by side").check()
    await page.get_by_role("textbox", name="Instruction of side B").fill(REFUTES)
    await playground.rerank()

    first, second = playground.sent[-2:]
    assert "instruction" not in first
    assert second["instruction"] == REFUTES
    assert first["documents"] == second["documents"]

    on_a, on_b = await ranks(playground, 0), await ranks(playground, 1)
    assert sorted(on_a) == sorted(on_b)
    assert on_a != on_b, "the two instructions rank alike, and the test shows nothing"
    for name, rank in on_b.items():
        up = on_a[name] - rank
        card = page.get_by_role("region", name="Side B").locator(".card", has_text=name).first
        shown = {0: ""}.get(up, f"{'▲' if up > 0 else '▼'} {abs(up)}")
        await expect(card.locator(".score")).to_contain_text(shown)
    moved = sum(on_a[name] != rank for name, rank in on_b.items())
    assert await page.locator(".gutter path:not(.same)").count() == moved
    assert await page.get_by_role("region", name="Side A").locator(".moved").count() == 0
    await playground.expect_said("Side A. Ranked 13 documents")
    await playground.expect_said("Side B. Ranked 13 documents")

    await page.get_by_label("Compare side by side").uncheck()
    assert await page.locator(".ranking").count() == 1
    assert len(await playground.scores()) == 13


async def test_two_models_are_compared(
    open_playground: OpenPlayground, guarded: str, key: str
) -> None:
    playground = await open_playground(guarded)
    page = playground.page
    await playground.use_key(key)
    await playground.sample("Answer a question")
    await page.keyboard.press("Alt+V")
    models = page.get_by_role("combobox", name="Model")
    await models.nth(1).select_option("rerank-alias")
    await playground.rerank()

    first, second = playground.sent[-2:]
    assert "model" not in first
    assert second["model"] == "rerank-alias"
    assert await playground.scores(0) == await playground.scores(1)
    await expect(page.get_by_role("region", name="Side B")).to_contain_text("rerank-alias")

    await page.get_by_role("button", name="Copy as code").click()
    await page.get_by_role("combobox", name="Side").select_option("B")
    await expect(page.locator("#code")).to_contain_text('"model": "rerank-alias"')


async def test_both_instructions_are_shown_whole_and_equal_ranks_on_one_level(
    open_playground: OpenPlayground,
) -> None:
    playground = await open_playground()
    page = playground.page
    await playground.sample("Change a picture")
    await page.get_by_label("Compare side by side").check()
    await playground.rerank()

    level = r"path => /^M0 ([\d.]+) C.* ([\d.]+)$/.exec(path.getAttribute('d')).slice(1)"
    lines = await page.locator(".gutter path").all()
    assert len(lines) == len(await playground.names(0))
    for path in lines:
        start, end = await path.evaluate(level)
        assert start == end

    for size in (WIDE, PHONE):
        await page.set_viewport_size(size)
        for side in ("A", "B"):
            box = page.get_by_role("textbox", name=f"Instruction of side {side}")
            hidden = "box => box.scrollHeight - box.clientHeight"
            await page.wait_for_function(
                f"([box]) => ({hidden})(box) <= 0", arg=[await box.element_handle()]
            )
