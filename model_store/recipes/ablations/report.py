"""From results to what people read: `ablations.json`, images, and `ablations.md`, which is made of
them.

Knows where things go. Invariant: the page is written last, so the images it shows are there.
"""

from __future__ import annotations

from pathlib import Path

from model_store.recipes.ablations.figures import draw
from model_store.recipes.ablations.results import Summary, write
from model_store.recipes.ablations.tables import IMAGES, document
from model_store.training.data.row_files import output_file

PAGE, SUMMARY = "ablations.md", "ablations.json"


def publish(summary: Summary, folder: Path) -> Path:
    """Write all of it into `folder`; gives the page. Raises `DataError` where the disk refuses."""
    page = document(summary)
    write(folder / SUMMARY, summary)
    draw(summary, folder / IMAGES, page)
    with output_file(folder / PAGE) as put:
        put(page.encode())
    return folder / PAGE
