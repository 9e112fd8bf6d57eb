"""The report of all runs: `ablations.json`, images, and the page `ablations.md`.

Depends on the names of these files. Invariant: the page is written last, so the images that it
shows exist.
"""

from __future__ import annotations

from pathlib import Path

from model_store.recipes.ablations.figures import draw
from model_store.recipes.ablations.results import Summary, write
from model_store.recipes.ablations.tables import IMAGES, document
from model_store.training.data.row_files import output_file

PAGE, SUMMARY = "ablations.md", "ablations.json"


def publish(summary: Summary, folder: Path) -> Path:
    """Write the report into `folder`; returns the page's path. Raises `DataError` where the disk
    refuses."""
    page = document(summary)
    write(folder / SUMMARY, summary)
    draw(summary, folder / IMAGES, page)
    with output_file(folder / PAGE) as put:
        put(page.encode())
    return folder / PAGE
