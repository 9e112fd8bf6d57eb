"""Reports as files: the form follows from the name.

Depends on the forms of reports. Invariant: a file appears whole or not at all.
"""

from __future__ import annotations

from pathlib import Path

from model_store.errors import WrongUsage
from model_store.output_files import check_outputs, output_file
from model_store.training.data.doubts.survey import Survey
from model_store.training.data.report.content import content_of
from model_store.training.data.report.markdown import markdown_report
from model_store.training.data.report.page import html_page

FORMS = {".html": html_page, ".md": markdown_report}


def check_report(path: Path, inputs: list[Path]) -> None:
    """Raise `WrongUsage` for another form, and `DataError` where the file cannot be written."""
    if path.suffix not in FORMS:
        raise WrongUsage(f"--report is a file that ends in {' or '.join(FORMS)}, not {path.name}.")
    check_outputs(path, inputs=inputs)


def write_report(survey: Survey, path: Path) -> None:
    """Write the report of a survey; raises `DataError`."""
    text = FORMS[path.suffix](content_of(survey))
    with output_file(path) as write:
        write(text.encode("utf-8", "replace"))
