"""`gmr rerank`: ranks texts and pictures by a running service, or by a model in this process.

Does not depend on httpx until it runs. Invariant: what is wrong with the options or the input ends
the command before anything is sent.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from model_store.commands.console import FAILED, misuse, refusing
from model_store.commands.options import finite
from service.cli.client.options import KeyFile, Model, Url

if TYPE_CHECKING:
    from service.cli.documents.items import Document

_SHOWN_ON_TERMINAL = 20

Query = Annotated[
    str | None,
    typer.Argument(
        help="Text of the query. With --query-image, a first file or folder is a document.",
        show_default=False,
    ),
]
Documents = Annotated[
    list[str] | None,
    typer.Argument(
        help=(
            "Texts; pictures (.png, .jpg, .webp) and folders of them; .txt and .md files; rows of"
            " .jsonl, .csv and .tsv files. Without any, or for '-': standard input."
        ),
        show_default=False,
    ),
]
QueryText = Annotated[
    str | None,
    typer.Option(
        "--query", "-q", help="Text of the query; all arguments are then documents.", metavar="TEXT"
    ),
]
QueryImage = Annotated[
    Path | None, typer.Option(help="Picture of the query, alone or with a text.", metavar="FILE")
]
Instruction = Annotated[
    str | None,
    typer.Option(
        help="Task for the model: a text, or a name of `gmr instructions`.", metavar="TEXT|NAME"
    ),
]
Top = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=1_000_000,
        metavar="N",
        help="Number of results; 0: all. Default: 20 in the table of a terminal, else all.",
        show_default=False,
    ),
]
MinScore = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        callback=finite,
        metavar="X",
        help="Leave out results with a lower score (0 to 1).",
    ),
]
MinScoreOn = Annotated[
    Literal["relevance_score", "probability"] | None,
    typer.Option(
        help=(
            "The score that --min-score is of; a probability needs a calibrated model. Default:"
            " relevance_score."
        ),
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer of `POST /rerank` as JSON.")]
Format = Annotated[
    Literal["text", "jsonl", "csv", "tsv"],
    typer.Option(
        "--format",
        "-f",
        metavar="FORMAT",
        help="Standard input is text (a document a line), jsonl, csv or tsv.",
    ),
]
Column = Annotated[
    str | None,
    typer.Option(help="Column of tables, or field of JSON rows, with the text.", metavar="NAME"),
]
IdColumn = Annotated[
    str | None, typer.Option(help="The same for the documents' ids.", metavar="NAME")
]
OnlyTexts = Annotated[
    bool,
    typer.Option("--only-texts", help="Take arguments as texts, even if files have those names."),
]
NoThumbnails = Annotated[
    bool, typer.Option("--no-thumbnails", help="Show no pictures in the table.")
]
Batch = Annotated[
    int, typer.Option(min=1, max=100_000, metavar="N", help="Documents of one request.")
]
Concurrency = Annotated[
    int, typer.Option(min=1, max=256, metavar="N", help="Requests at the same time.")
]


def rerank(
    query: Query = None,
    documents: Documents = None,
    *,
    query_text: QueryText = None,
    query_image: QueryImage = None,
    instruction: Instruction = None,
    top: Top = None,
    min_score: MinScore = None,
    min_score_on: MinScoreOn = None,
    as_json: AsJson = False,
    url: Url = None,
    model: Model = None,
    key_file: KeyFile = None,
    stdin_format: Format = "text",
    column: Column = None,
    id_column: IdColumn = None,
    only_texts: OnlyTexts = False,
    no_thumbnails: NoThumbnails = False,
    batch: Batch = 100,
    concurrency: Concurrency = 4,
) -> None:
    """Rank texts and pictures by their relevance to a query.

    Example: `gmr rerank "two red circles" pictures/` asks the service at RERANK_URL, and
    `gmr rerank --model gmr-tiny "sort a list" notes.txt "Close the file."` needs none.

    A terminal gets a table; a pipe gets lines of score, logit, id and text, separated by tabs. The
    exit code is 1 if any document has no score: those are listed below the table, and the rest is
    ranked.
    """
    from rich.console import Console

    from service.cli.client.ranking import Question, RequestSizes
    from service.cli.client.run import Target, run_ranking
    from service.cli.documents.arguments import read_query
    from service.cli.documents.items import Unusable
    from service.cli.documents.rows import Columns
    from service.cli.documents.sources import Sources, read_documents
    from service.cli.instruction import named_or_text

    asked = named_or_text(instruction)
    with refusing(Unusable):
        given = [] if query is None else [query, *(documents or ())]
        item, arguments = read_query(given, query_text, query_image, only_texts=only_texts)
        if not arguments and sys.stdin.isatty():
            misuse("There are no documents: give texts, files or folders, or pipe them in.")
        columns = Columns(column, id_column)
        ranked = read_documents(Sources(arguments, stdin_format, columns, only_texts))

    tabular = not as_json and Console().is_terminal
    top_n = _SHOWN_ON_TERMINAL if top is None and tabular else top
    answer = run_ranking(
        Question(item, None, asked, top_n, min_score, min_score_on),
        ranked,
        RequestSizes(documents=batch, concurrency=concurrency),
        Target(url, model, key_file),
    )
    _print(answer, ranked, as_json=as_json, thumbnails=not no_thumbnails)


def _print(
    answer: dict[str, Any], documents: Sequence[Document], *, as_json: bool, thumbnails: bool
) -> None:
    """Print the answer; a document without a score makes the exit code 1."""
    from rich.console import Console

    from service.cli.client.output import print_errors, print_json, print_lines, print_table

    console = Console()
    if as_json:
        print_json(answer)
    elif not console.is_terminal:
        print_lines(answer, documents)
    else:
        colours = console.color_system in ("truecolor", "256")
        pictures = thumbnails and colours and not console.options.ascii_only
        if isinstance(sys.stdout, io.TextIOWrapper):  # for encodings without all characters
            sys.stdout.reconfigure(errors="replace")
        print_table(console, answer, documents, pictures=pictures)

    print_errors(answer, documents)
    if answer["errors"]:
        raise typer.Exit(FAILED)
