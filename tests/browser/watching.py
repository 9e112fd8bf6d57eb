"""The problems of a page that a browser reports: errors of its scripts, of its content security
policy, and requests to other origins, which are not sent."""

from __future__ import annotations

from urllib.parse import urlsplit

from playwright.async_api import BrowserContext, ConsoleMessage, Page, Route, WebError

_REFUSED = "Failed to load resource: the server responded with a status of "
"""Chromium's message for an answer that is not a success."""
_API_PATHS = ("/rerank", "/v1/", "/v2/", "/info", "/score", "/openapi.json")


async def watch(context: BrowserContext, url: str, problems: list[str]) -> None:
    """Add each problem of a context's pages to `problems`; `url` is of the origin that they may
    ask."""
    origin = _origin(url)

    async def same_origin(route: Route) -> None:
        if _origin(route.request.url) == origin:
            await route.continue_()
            return
        problems.append(f"a request to another origin: {route.request.url}")
        await route.abort()

    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not _is_refusal(message):
            problems.append(f"{message.type}: {message.text}")

    def on_error(error: WebError) -> None:
        problems.append(f"uncaught: {error.error}")

    def on_page(page: Page) -> None:
        page.on("console", on_console)

    await context.route("**/*", same_origin)
    context.on("page", on_page)
    context.on("weberror", on_error)


def _origin(url: str) -> str:
    """A URL's scheme, host and port; empty for URLs that are inside the page."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""


def _is_refusal(message: ConsoleMessage) -> bool:
    """Whether a message tells of an API's answer: what a page makes of it is the test's matter."""
    path = urlsplit(message.location["url"]).path
    return message.text.startswith(_REFUSED) and path.startswith(_API_PATHS)
