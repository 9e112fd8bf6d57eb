"""The page at `/runbook`: what to do at each alert, as `docs/runbook.md` has it.

`python -m deploy.runbook` writes the page; depends on static pages alone. Invariant: the page needs
no key and holds nothing of a caller or of this installation.
"""

from __future__ import annotations

from pathlib import Path

from service.web.static_files import StaticPage

PATH = "/runbook"
_FOLDER = Path(__file__).parent


def runbook_page() -> StaticPage:
    """The page, with a section for each alert at its name in small letters."""
    files = {name: _FOLDER / name for name in ("page.css", "icon.svg")}
    return StaticPage(PATH, _FOLDER / "index.html", files)
