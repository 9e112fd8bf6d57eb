"""The report of all runs: `ablations.json`, images, and the page `ablations.md`.

Depends on the names of these files. Invariant: the page is written last, so the images that it
shows exist.
"""

from __future__ import annotations

from pathlib import Path

from model_store.output_files import output_file
from model_store.recipes.ablations.figures import draw
from model_store.recipes.ablations.results import Summary, read, write
from model_store.recipes.ablations.tables import IMAGES, document

PAGE, SUMMARY = "ablations.md", "ablations.json"


def publish(summary: Summary, folder: Path, *, beside: bool = False) -> Path:
    """Write the report into `folder`; returns the page's path.

    With `beside`, the report that is there already is kept, and the summary is shown beside it; a
    summary of the same facts replaces its own part. Raises `TrainingError` where that report cannot
    be read, and `DataError` where the disk refuses.
    """
    if beside:
        summary = read(folder / SUMMARY, Summary).with_beside(summary)
    page = document(summary)
    write(folder / SUMMARY, summary)
    draw(summary, folder / IMAGES, page)
    with output_file(folder / PAGE) as put:
        put(page.encode())
    return folder / PAGE
