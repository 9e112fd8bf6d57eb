"""`gmr data feedback` and `gmr data forget`: feedback of a service as training rows, and its
removal.

Does not depend on what a row holds; what it runs is imported when it runs. Invariant: exit codes as
in `console`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model_store.commands.data import refusing_data
from model_store.commands.options import ImageModeOption, Images, finite

if TYPE_CHECKING:
    from model_store.training.data.feedback.rows import Outcome

MAX_GRADE = 100.0
MAX_COUNT = 1_000_000

Folder = Annotated[
    Path, typer.Argument(help="Folder of feedback, RERANK_FEEDBACK_FOLDER of the gateways.")
]
Tenants = Annotated[
    list[str] | None,
    typer.Option("--tenant", help="Of this tenant alone; may be repeated. Default: all."),
]


def register(app: typer.Typer) -> None:
    """Add `gmr data feedback` and `gmr data forget`, beside the commands of `gmr data`."""
    app.command()(feedback)
    app.command()(forget)


def feedback(
    folder: Folder,
    rows: Annotated[Path, typer.Argument(help="The .jsonl file of training rows to write.")],
    *,
    log: Annotated[
        Path | None,
        typer.Option(
            help=(
                "Your own log, where the service keeps no content: JSON lines with request_id,"
                " query and documents as they were sent."
            )
        ),
    ] = None,
    tenant: Tenants = None,
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Feedback from this day on (UTC)."),
    ] = None,
    min_grade: Annotated[
        float,
        typer.Option(
            min=0.0, max=MAX_GRADE, callback=finite, help="Mean grade from which it is relevant."
        ),
    ] = 1.0,
    min_clicks: Annotated[
        int, typer.Option(min=1, max=MAX_COUNT, help="Clicks from which it is relevant.")
    ] = 1,
    min_click_share: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, callback=finite, help="Share of impressions that must be clicked."
        ),
    ] = 0.0,
    min_impressions: Annotated[
        int, typer.Option(min=1, max=MAX_COUNT, help="Impressions from which clicks count.")
    ] = 1,
    min_skips: Annotated[
        int,
        typer.Option(
            min=1,
            max=MAX_COUNT,
            help="Times above the last click, and never clicked, from which it is irrelevant.",
        ),
    ] = 1,
    judgements: Annotated[
        Path | None,
        typer.Option(help="Folder for judgements.jsonl, too, as `gmr eval judgements` reads it."),
    ] = None,
    images: Images = ImageModeOption.copy,
) -> None:
    """Turn clicks and grades into training rows: a document for each query is relevant, is not, or
    is left out.

    Relevant: clicked, or graded from --min-grade on. Not relevant: shown above the last click and
    passed over, or graded below. Requests of equal query and instruction become one row.
    """
    with refusing_data():
        from model_store.training.data.feedback.pairs import Thresholds
        from model_store.training.data.feedback.rows import Source, write_rows

        begin = 0.0 if since is None else since.replace(tzinfo=UTC).timestamp()
        outcome = write_rows(
            Source(folder, log, tuple(tenant or ()), begin),
            rows,
            Thresholds(min_grade, min_clicks, min_impressions, min_click_share, min_skips),
            judgements=judgements,
            image_mode=images.value,
        )
        for line in _report(outcome):
            typer.echo(line)
        typer.echo(f"Written to {rows}, with counts in {rows.name}.report.json")


def forget(
    folder: Folder,
    *,
    request_id: Annotated[
        list[str] | None,
        typer.Option("--request-id", help="A request to be forgotten; may be repeated."),
    ] = None,
    tenant: Annotated[
        list[str] | None,
        typer.Option(
            "--tenant",
            help="A tenant to be forgotten, or whose requests are meant; may be repeated.",
        ),
    ] = None,
) -> None:
    """Remove what feedback keeps of a request or of a tenant, and what was asked to be forgotten
    before."""
    with refusing_data():
        from model_store.training.data.feedback.forgetting import forget as forget_lines

        counts = forget_lines(folder, request_ids=request_id or (), tenants=tenant or ())
        typer.echo(f"{counts.lines} lines and {counts.pictures} pictures removed.")
        if counts.young_pictures:
            typer.echo(
                f"{counts.young_pictures} pictures are less than a minute old: the same command"
                " removes them later.",
                err=True,
            )
        if counts.open_lines:
            typer.echo(
                f"{counts.open_lines} lines are in files that a gateway appends to: they do not"
                " count any more, and are removed by the same command once the files are closed,"
                " each day and when a gateway ends.",
                err=True,
            )


def _report(outcome: Outcome) -> list[str]:
    """The sentences of an outcome."""
    counts, found = outcome.counts, outcome.pairs.counts
    lines = [
        f"{outcome.feedback.events} events on {found.answers} answers;"
        f" {outcome.feedback.repeated} events were there twice, {found.without_signal} answers have"
        f" neither clicks nor grades, {found.without_content} no content.",
        f"{counts.rows} rows with {counts.positives} positives and {counts.negatives} hard"
        f" negatives; {counts.without_negative} rows have no negative.",
        f"Left out: {counts.without_positive} queries without a positive, {counts.undecided} pairs"
        " of too little feedback.",
    ]
    lines += [f"Left out: {reason}: {count}" for reason, count in outcome.left_out.items()]
    if any(found.impressions):
        shares = [
            f"{clicks / shown:.0%}" if shown else "-"
            for clicks, shown in zip(found.clicks, found.impressions, strict=True)
        ]
        lines.append(f"Clicks by position, of what was shown there: {' '.join(shares)}")
    if counts.judged:
        lines.append(f"{counts.judged} judged queries.")
    return lines
