"""The progress of an evaluation on the terminal: the search for candidates, then the queries.

Depends on the terminal alone. Invariant: what fails is said once, and a run of failures does not
fill a log.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Self

import typer

from model_store.evaluation.runs.query_result import QueryResult
from service.cli.bulk.progress import LINE_SECONDS, rows_progress

MAX_FAILURES = 20
"""Queries whose failure is a line; further ones are counted at the end."""


class ShownProgress:
    """The progress of one process of a run."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._advance: Callable[[int], None] = lambda queries: None
        self._dataset = ""
        self._found: dict[str, int] = {}
        self._shown = time.monotonic()
        self._failures = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def preparing(self, dataset: str) -> None:
        """A dataset is read, and its candidates are found."""
        self._dataset, self._found = dataset, {}
        typer.echo(f"{dataset}: reading the data, finding candidates.", err=True)

    def waiting(self, dataset: str) -> None:
        """Another process of the run finds candidates."""
        typer.echo(f"{dataset}: another process of this run finds candidates.", err=True)

    def notice(self, sentence: str) -> None:
        """A sentence on the data, or of the first stage."""
        typer.echo(sentence, err=True)

    def searched(self, unit: str, done: int) -> None:
        """So many more documents or queries are done."""
        self._found[unit] = self._found.get(unit, 0) + done
        if time.monotonic() - self._shown >= LINE_SECONDS:
            self._shown = time.monotonic()
            amounts = ", ".join(f"{count:,} {name}" for name, count in self._found.items())
            typer.echo(f"{self._dataset}: {amounts}", err=True)

    def begin(self, total: int, done: int) -> None:
        """Queries are scored from now on."""
        self._advance = self._stack.enter_context(rows_progress(total, done, unit="queries"))

    def scored(self, result: QueryResult) -> None:
        """A query has its result."""
        self._advance(1)
        if result.error:
            self._failures += 1
            if self._failures <= MAX_FAILURES:
                typer.echo(f"{result.query} failed: {result.error}", err=True)
