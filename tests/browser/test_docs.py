"""The page at `/docs` in a real Chromium: it works without any other host, its examples run, and a
key is taken where one is needed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from io import BytesIO

import pytest
from PIL import Image
from playwright.async_api import Locator, Page, expect
from pydantic import SecretStr

from service.gateway.app import create_gateway
from service.gateway.settings import GatewaySettings
from service.gateway.stream.endpoint import STREAM_PATH
from tests.browser.conftest import PHONE, OpenPage
from tests.gateway.stand_in import StandIn, good
from tests.web.listening import listening

KEY = "a-key-for-the-page"


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """The URL of a gateway that requires a key, over a worker that scores by position."""
    settings = GatewaySettings(api_keys=SecretStr(KEY))
    with listening(create_gateway(settings, [StandIn(good).client])) as port:
        yield f"http://127.0.0.1:{port}"


async def opened(page: Page, path: str) -> Locator:
    """The operation of a path, unfolded."""
    operation = page.locator(".opblock", has=page.locator(f'[data-path="{path}"]'))
    await operation.locator(".opblock-summary-control").click()
    await expect(operation.locator("button.execute")).to_be_visible()
    return operation


async def executed(operation: Locator) -> int:
    """Run the operation as it stands, and return the status of the answer that is shown."""
    async with operation.page.expect_response(lambda answer: answer.request.method == "POST") as it:
        await operation.locator("button.execute").click()
    status = (await it.value).status
    shown = operation.locator(".live-responses-table tbody .response-col_status").first
    await expect(shown).to_contain_text(str(status))
    return status


async def authorized(page: Page) -> None:
    """Type the key into the page."""
    await page.locator(".auth-wrapper .authorize").first.click()
    await page.locator(".modal-ux input").fill(KEY)
    await page.locator(".modal-ux button.authorize").click()
    await page.locator(".modal-ux .btn-done").click()


async def test_an_example_is_chosen_and_run(server: str, open_page: OpenPage) -> None:
    page = await open_page(f"{server}/docs")
    operation = await opened(page, "/v1/rerank")
    names = await operation.locator(".examples-select-element option").all_inner_texts()
    assert any("Pictures and texts" in name for name in names)
    assert any("TEI" in name for name in names)

    chosen = next(name for name in names if "Pictures and texts" in name)
    await operation.locator(".examples-select-element").first.select_option(label=chosen)
    assert await executed(operation) == 200

    shown = await operation.locator(".live-responses-table .microlight").first.inner_text()
    answer = json.loads(shown)
    assert answer["results"][0]["id"] == "circle"


async def test_the_lines_of_a_stream_are_sent_as_lines(guarded: str, open_page: OpenPage) -> None:
    page = await open_page(f"{guarded}/docs")
    await authorized(page)
    operation = await opened(page, STREAM_PATH)
    typed = '{"id": 7, "query": "q", "documents": ["a"]}\n' * 2
    for lines, ids in ((None, ["first", "second", "third"]), (typed, [7, 7])):
        if lines:
            await operation.locator("textarea").fill(lines)
        async with page.expect_response(f"**{STREAM_PATH}") as it:
            await operation.locator("button.execute").click()
        answer = await it.value
        assert answer.status == 200
        assert len((answer.request.post_data or "").splitlines()) == len(ids)
        answered = [json.loads(line)["id"] for line in (await answer.text()).splitlines()]
        assert sorted(answered) == ids


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_follows_the_colour_scheme_and_fits_a_phone(
    guarded: str, open_page: OpenPage, scheme: str
) -> None:
    page = await open_page(f"{guarded}/docs", color_scheme=scheme, viewport=PHONE)
    await expect(page.locator(".opblock").first).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]

    colour = await page.evaluate("getComputedStyle(document.querySelector('.swagger-ui')).color")
    channels = [int(channel) for channel in re.findall(r"\d+", colour)[:3]]
    background = await page.screenshot(clip={"x": 1, "y": 1, "width": 1, "height": 1})
    pixel = Image.open(BytesIO(background)).convert("L").getpixel((0, 0))
    assert isinstance(pixel, int)
    assert (pixel < 128) == (scheme == "dark")
    assert abs(pixel - sum(channels) / 3) > 96


async def test_it_takes_a_key_and_keeps_it_in_memory_alone(
    guarded: str, open_page: OpenPage
) -> None:
    page = await open_page(f"{guarded}/docs/")
    assert page.url == f"{guarded}/docs"
    operation = await opened(page, "/rerank")
    assert await executed(operation) == 401

    await authorized(page)
    assert await executed(operation) == 200

    stored = await page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert KEY not in stored + json.dumps(await page.context.cookies())
