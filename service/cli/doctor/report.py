"""The results of checks, and the terminal that shows them: a table, lines, or JSON.

Depends on neither HTTP nor what is checked. Invariant: the exit code is 1 where a check failed, and
no text of a service controls the terminal.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli.client.output import printable

Status = Literal["ok", "failed", "skipped"]
STATUSES: tuple[Status, ...] = ("ok", "failed", "skipped")
_STYLES: dict[Status, str] = {"ok": "green", "failed": "bold red", "skipped": "yellow"}


@dataclass(frozen=True, slots=True)
class Check:
    """One check and its result."""

    name: str
    status: Status
    found: str


@dataclass(frozen=True, slots=True)
class Compared:
    """A pair of a golden set, compared with the service's score of it."""

    golden_set: str
    pair: str
    status: Status
    expected: float
    found: float | None
    allowed: float
    reason: str
    """The source of the expected score, or the reason why there is none."""

    @property
    def difference(self) -> float | None:
        """The difference to the expected score; None without a score."""
        return None if self.found is None else self.found - self.expected


@dataclass(slots=True)
class Report:
    """All results, in order."""

    url: str
    checks: list[Check] = field(default_factory=list)
    pairs: list[Compared] = field(default_factory=list)

    @property
    def failures(self) -> int:
        """Checks that failed; a golden set is one."""
        return sum(check.status == "failed" for check in self.checks)


def print_report(report: Report, *, as_json: bool) -> None:
    """Print the results; a failure is a sentence on standard error, and the exit code 1."""
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(report), indent=2))
    else:
        _print_tables(report)

    if report.failures:
        total = len(report.checks)
        typer.echo(f"{report.failures} of {total} checks of {report.url} failed.", err=True)
        raise typer.Exit(1)


def _print_tables(report: Report) -> None:
    console = Console(highlight=False)
    checks = [(check.status, check.name, printable(check.found)) for check in report.checks]
    _print(console, ("", "check", "found"), checks)
    if report.pairs:
        typer.echo("")
        headings = ("", "set", "pair", "expected", "found", "difference", "allowed", "source")
        _print(console, headings, [_pair_cells(pair) for pair in report.pairs])


def _pair_cells(pair: Compared) -> tuple[Status, str, str, str, str, str, str, str]:
    found = "" if pair.found is None else f"{pair.found:.4f}"
    difference = "" if pair.difference is None else f"{pair.difference:+.4f}"
    return (
        pair.status,
        pair.golden_set,
        printable(pair.pair),
        f"{pair.expected:.4f}",
        found,
        difference,
        f"{pair.allowed:.4f}",
        printable(pair.reason),
    )


def _print(
    console: Console, headings: Sequence[str], rows: Sequence[tuple[Status, *tuple[str, ...]]]
) -> None:
    """Rows of a status and texts: a table on a terminal, and lines with tabs elsewhere."""
    if not console.is_terminal:
        for row in rows:
            typer.echo("\t".join(row))
        return

    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for status, *texts in rows:
        table.add_row(Text(status, _STYLES[status]), *map(Text, texts))
    console.print(table)
