"""The playground of a service that requires API keys."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
from playwright.async_api import expect

from tests.browser.conftest import OpenPlayground
from tests.browser.test_copied_code import copied, run_by_python, run_by_shell

STORED = """async () => JSON.stringify([
  { ...localStorage }, { ...sessionStorage }, document.cookie, location.href, history.state,
  await indexedDB.databases(), await caches.keys(),
])"""


async def test_a_key_is_asked_for_and_kept_in_memory_alone(
    open_playground: OpenPlayground, guarded: str, key: str, tmp_path: Path
) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    playground = await open_playground(guarded, permissions=permissions)
    page = playground.page
    box = page.get_by_label("API key", exact=True)
    await expect(box).to_be_focused()

    await playground.use_key("wrong-key")
    await expect(page.get_by_role("alert").first).to_contain_text("not valid")
    await playground.use_key("two words")
    await expect(page.get_by_role("alert").first).to_contain_text("no spaces")
    await playground.use_key(key)
    await expect(page.locator("#key-form")).to_be_hidden()

    await playground.sample("Answer a question")
    assert await box.input_value() == ""
    stored = await page.evaluate(STORED)
    assert key not in stored
    assert stored == f'[{{}},{{}},"","{guarded}/playground",null,[],[]]'

    command = await copied(playground, "curl")
    assert key not in command
    environment = {"PATH": os.environ["PATH"], "RERANK_KEY": key}
    assert len(run_by_shell("sh", command, tmp_path, **environment)["results"]) == 5
    program = await copied(playground, "Python")
    assert len(run_by_python(program, tmp_path, **environment)) == 5

    await page.reload()
    await expect(box).to_be_focused()


async def test_a_key_is_forgotten(open_playground: OpenPlayground, guarded: str, key: str) -> None:
    playground = await open_playground(guarded)
    await playground.use_key(key)
    await playground.page.get_by_role("button", name="API key").click()
    await playground.page.get_by_role("button", name="Forget key").click()
    await playground.page.get_by_role("button", name="Answer a question").click()
    await expect(playground.page.locator(".notice.bad").last).to_contain_text("401 unauthorized")


async def test_the_page_itself_needs_no_key(guarded: str) -> None:
    page = httpx.get(f"{guarded}/playground")
    assert page.status_code == 200
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert httpx.get(f"{guarded}/playground/app.js").status_code == 200
    assert httpx.get(f"{guarded}/info").status_code == 401


async def test_the_bounds_of_the_service_are_the_pages(
    open_playground: OpenPlayground, guarded: str, key: str
) -> None:
    playground = await open_playground(guarded)
    await playground.use_key(key)
    await playground.paste([f"Text {number}." for number in range(21)])
    await playground.ask("a text")
    notices = playground.page.locator("#notices")
    await expect(notices).to_contain_text("These are 21 documents; one request may have 20.")
    assert playground.sent == []
