"""A real Chromium, started once for all tests of pages, and pages that report what goes wrong in
them."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, ViewportSize, async_playwright

from tests.browser.playground import Playground
from tests.browser.samples import PICTURES
from tests.browser.watching import watch
from tests.conftest import CALM, free_port, running

WIDE = ViewportSize(width=1280, height=900)
PHONE = ViewportSize(width=360, height=740)


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


OpenPlayground = Callable[..., Awaitable[Playground]]


@pytest.fixture
def open_playground(open_page: OpenPage, server: str) -> OpenPlayground:
    """A function that opens the playground of `server`, or of another service, in a new context."""

    async def opened(service: str = server, **options: Any) -> Playground:
        page = await open_page(f"{service}/playground", **options)
        playground = Playground(page)
        await playground.loaded()
        return playground

    return opened


@pytest.fixture(scope="session")
def key() -> str:
    """The API key of `guarded`."""
    return "a-key-of-the-tests-0123456789"


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory, key: str) -> Iterator[str]:
    """The URL of a service with a key, an alias for its model, and a low bound of documents."""
    settings = {
        "RERANK_API_KEYS": key,
        "RERANK_MODEL_ALIASES": "rerank-alias=gmr-tiny",
        "RERANK_MAX_DOCUMENTS": "20",
    }
    log = tmp_path_factory.mktemp("guarded") / "log"
    with running("serve", port=free_port(), log=log, **CALM, **settings) as url:
        yield url


@pytest.fixture
def torn(tmp_path: Path) -> Path:
    """The first half of a picture, which has a header that can be read."""
    data = (PICTURES / "purple-ring.png").read_bytes()
    path = tmp_path / "torn.png"
    path.write_bytes(data[: len(data) // 2])
    return path
