"""The report of `gmr data check` in a browser: nothing of the rows runs, and all can be read."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from service.cli.main import app
from tests.browser.accessibility import violations
from tests.browser.conftest import PHONE, OpenPage
from tests.model_store.training.data.test_report import hostile


async def test_hostile_rows_are_shown_and_nothing_of_them_runs(
    open_page: OpenPage, tmp_path: Path
) -> None:
    report = tmp_path / "r.html"
    done = CliRunner().invoke(
        app, ["data", "check", str(hostile(tmp_path)), "--report", str(report)]
    )
    assert done.exit_code == 1

    page = await open_page(report.as_uri(), viewport=PHONE)
    for details in await page.locator("details").all():
        await details.evaluate("element => element.open = true")
    assert await page.locator("article.row .text", has_text="<script>alert(1)</script>").count()
    assert await page.evaluate("document.scripts.length") == 0
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    drawn = await page.locator("img").evaluate_all(
        "images => images.every(image => image.complete && image.naturalWidth > 0)"
    )
    assert drawn
    assert await violations(page) == []
