"""docs/decisions: records have consecutive numbers, ascending dates, the same sections, and an
index."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, links, name_of

FOLDER = ROOT / "docs" / "decisions"
INDEX = FOLDER / "README.md"
RECORDS = sorted(path for path in FOLDER.glob("*.md") if path != INDEX)
SECTIONS = ["Context", "Decision", "Measurements", "Consequences", "Dead ends"]


def date_of(record: Path) -> date:
    opening = re.match(
        r"# \d{4}: \S.*\n\nDate: (\d{4}-\d\d-\d\d)\n\n## ", record.read_text(encoding="utf-8")
    )
    assert opening, f"{name_of(record)} opens with its number and title, then its date"
    return date.fromisoformat(opening[1])


def test_records_are_numbered_without_gaps() -> None:
    assert [path.name[:5] for path in RECORDS] == [
        f"{number:04d}-" for number in range(1, len(RECORDS) + 1)
    ]


@pytest.mark.parametrize("record", RECORDS, ids=name_of)
def test_a_record_has_its_number_and_its_sections_in_order(record: Path) -> None:
    text = record.read_text(encoding="utf-8")
    assert text.startswith(f"# {record.name[:4]}: ")
    sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert sections == [name for name in SECTIONS if name in sections]


def test_dates_follow_the_numbers() -> None:
    dates = [date_of(record) for record in RECORDS]
    assert dates == sorted(dates)


def test_the_index_lists_each_record_with_its_date_and_title() -> None:
    rows = re.findall(
        r"^\| \[(\d{4})\]\((\S+)\) \| (\S+) \| (.+) \|$",
        INDEX.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    expected = []
    for record in RECORDS:
        title = record.read_text(encoding="utf-8").splitlines()[0].partition(": ")[2]
        expected.append((record.name[:4], record.name, date_of(record).isoformat(), title))
    assert rows == expected


@pytest.mark.parametrize("page", [INDEX, *RECORDS], ids=name_of)
def test_links_of_records_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if not re.match(r"[a-z]+:", link):
            assert (page.parent / link.partition("#")[0]).exists(), link
