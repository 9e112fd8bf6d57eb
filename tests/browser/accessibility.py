"""Accessibility of a page as axe-core finds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.async_api import Page

_AXE = Path(__file__).parent / "tools/node_modules/axe-core/axe.min.js"
_RUN = """
async () => {
  const { violations } = await axe.run(document);
  return violations.map(found => ({
    rule: found.id, help: found.help,
    nodes: found.nodes.map(node => `${node.target}: ${node.failureSummary}`),
  }));
}
"""


async def violations(page: Page) -> list[dict[str, Any]]:
    """The rules of axe-core that the page breaks as it is shown, with the elements.

    The script is evaluated by the browser's debugger, so a content security policy may forbid it.
    """
    await page.evaluate(_AXE.read_text(encoding="utf-8") + "; undefined")
    found: list[dict[str, Any]] = await page.evaluate(_RUN)
    return found
