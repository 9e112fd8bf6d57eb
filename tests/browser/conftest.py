"""A real Chromium, started once for all tests of pages, and pages that report what goes wrong in
them."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from tests.browser.watching import watch

WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium; `make test` installs it."""
    program = shutil.which("chromium")
    assert program, "The tests of pages need chromium: apt-get install chromium"

    # Chromium refuses its sandbox to root
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=program, args=flags)
        yield started
        await started.close()


OpenPage = Callable[..., Awaitable[Page]]


@pytest.fixture
async def open_page(browser: Browser) -> AsyncIterator[OpenPage]:
    """A function that opens a URL in a new context, with that context's options as keywords.

    The test fails at its end if a page logged an error, broke its content security policy, threw,
    or asked any other origin for anything.
    """
    contexts: list[BrowserContext] = []
    problems: list[str] = []

    async def opened(url: str, **options: Any) -> Page:
        context = await browser.new_context(**{"viewport": WIDE, **options})
        contexts.append(context)
        await watch(context, url, problems)

        page = await context.new_page()
        await page.goto(url)
        return page

    yield opened
    for context in contexts:
        await context.close()
    assert problems == []


@asynccontextmanager
async def answers(page: Page, path: str) -> AsyncIterator[list[int]]:
    """The statuses of the answers from a path while the `async with` block runs."""
    statuses: list[int] = []

    def note(response: Any) -> None:
        if response.url.endswith(path):
            statuses.append(response.status)

    page.on("response", note)
    try:
        yield statuses
    finally:
        page.remove_listener("response", note)
