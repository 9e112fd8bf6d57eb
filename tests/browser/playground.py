"""The playground as a user sees it: its list of documents, the ranking, and drops of files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playwright.async_api import Page, Request, expect

RANKED = 15_000
"""Milliseconds that a ranking may take on a busy machine."""


class Playground:
    """A loaded playground in a page; `sent` are the bodies of the requests that it sent."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.sent: list[dict[str, Any]] = []
        page.on("request", self._note)

    async def loaded(self) -> None:
        await self.page.locator("html[data-ready]").wait_for()

    async def sample(self, title: str) -> None:
        """Load a sample, and wait for its ranking."""
        await self.page.get_by_role("button", name=title).click()
        await self.page.locator(".summary").wait_for(timeout=RANKED)

    async def paste(self, texts: Sequence[str]) -> None:
        """Add texts, one document a line."""
        await self.page.get_by_label("Texts to add").fill("\n".join(texts))
        await self.page.get_by_role("button", name="Add texts").click()

    async def ask(self, query: str) -> None:
        """Type a query, and wait for the ranking that answers it."""
        await self.page.get_by_label("Query", exact=True).fill(query)
        await self.rerank()

    async def rerank(self) -> None:
        """Press Rerank, and wait until it is done."""
        button = self.page.get_by_role("button", name="Rerank")
        await button.click()
        await expect(button).to_have_attribute("aria-disabled", "false", timeout=RANKED)

    async def drop(self, *paths: Path, on: str = "#adder") -> None:
        """Drop files or folders as a file manager does."""
        box = await self.page.locator(on).bounding_box()
        assert box
        files = [str(path) for path in paths]
        where = {"x": box["x"] + 20, "y": box["y"] + 20}
        devtools = await self.page.context.new_cdp_session(self.page)
        data = {"items": [], "files": files, "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            await devtools.send("Input.dispatchDragEvent", {"type": kind, "data": data, **where})

    async def use_key(self, key: str) -> None:
        """Type an API key, and wait until the service has judged it."""
        await self.page.get_by_label("API key", exact=True).fill(key)
        await self.page.get_by_role("button", name="Use key").click()
        await self.page.wait_for_load_state("networkidle")

    async def names(self, column: int = 0) -> list[str]:
        """The documents of a list from top to bottom: names of pictures, or texts."""
        return await self.page.locator(".ranking").nth(column).locator(".text").all_inner_texts()

    async def scores(self, column: int = 0) -> list[str]:
        numbers = self.page.locator(".ranking").nth(column).locator(".score .number")
        return await numbers.all_inner_texts()

    async def expect_documents(self, count: int) -> None:
        await expect(self.page.locator(".ranking").first.locator(".card")).to_have_count(count)

    async def expect_said(self, words: str) -> None:
        """Expect words in the live region, which screen readers read."""
        await expect(self.page.get_by_role("status")).to_contain_text(words, timeout=RANKED)

    def _note(self, request: Request) -> None:
        if request.method == "POST" and request.post_data:
            self.sent.append(json.loads(request.post_data))
