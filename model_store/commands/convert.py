"""`gmr convert`, as people type it.

Knows options; everything else is imported once it is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model_store.commands.console import Images, Keep, Seed, counting, refusing
from model_store.commands.data import data

if TYPE_CHECKING:
    from model_store.training.data.converters.outcomes import Converted

MAX_BAD = 10_000_000
MAX_GRADE = 1_000
MAX_INSTRUCTION_CHARS = 10_000
"""As in `training.data`, which is not imported before it is needed."""


def _instruction(text: str | None) -> str | None:
    if text is not None and len(text) > MAX_INSTRUCTION_CHARS:
        raise typer.BadParameter(
            f"it has {len(text)} characters, and {MAX_INSTRUCTION_CHARS} are allowed"
        )
    return text


Out = Annotated[
    Path,
    typer.Argument(help="The .jsonl file to write; its corpus goes beside it as *.corpus.jsonl."),
]
Rows = Annotated[Path, typer.Argument(help="The .jsonl file to write.")]
Source = Annotated[
    Path,
    typer.Argument(help="JSON lines (.jsonl, .jsonl.gz) or parquet; a file or a folder of them."),
]
Told = Annotated[
    str | None, typer.Option(callback=_instruction, help="The instruction of every row.")
]
ToldElse = Annotated[
    str | None,
    typer.Option(
        callback=_instruction, help="The instruction of rows that have none of their own."
    ),
]
Root = Annotated[Path, typer.Option(help="The folder that image paths are relative to.")]
MinGrade = Annotated[
    int, typer.Option(min=1, max=MAX_GRADE, help="The least grade of a relevant document.")
]
MaxBad = Annotated[
    int,
    typer.Option(
        min=0,
        max=MAX_BAD,
        help="Bad rows of a file that are skipped and counted; one more ends the run.",
    ),
]

conversions = typer.Typer(
    name="convert",
    no_args_is_help=True,
    help="Public data sets, in their own layouts, to training rows.",
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(conversions)
    app.add_typer(data)


@conversions.command()
def mbeir(
    queries: Annotated[
        Path, typer.Argument(help="Query rows: qid, query_txt, query_img_path, pos_cand_list, ...")
    ],
    pool: Annotated[Path, typer.Argument(help="Candidate rows: did, txt, img_path, modality.")],
    out: Out,
    *,
    root: Root,
    task: Annotated[
        str | None,
        typer.Option(help="Take one task's queries and candidates alone: T-T, T-IT, IT-I, ..."),
    ] = None,
    instructions: Annotated[
        Path | None,
        typer.Option(help="query_instructions.tsv: each query draws one of its prompts."),
    ] = None,
    images: Images = Keep.reference,
    seed: Seed = 0,
    max_bad: MaxBad = 100,
) -> None:
    """Convert M-BEIR's layout."""
    with refusing():
        from model_store.training.data.converters.mbeir import convert_mbeir

        done = convert_mbeir(
            queries,
            pool,
            out,
            root=root,
            instructions=instructions,
            keeping=images.value,
            task=task,
            seed=seed,
            max_bad=max_bad,
            counting=counting,
        )
        _tell(out, *done)


@conversions.command()
def vidore(
    source: Annotated[
        Path,
        typer.Argument(help="A folder with corpus, queries and qrels; or rows of query and image."),
    ],
    out: Out,
    *,
    instruction: Told = None,
    language: Annotated[
        str | None, typer.Option(help="Take queries of this language alone.")
    ] = None,
    min_grade: MinGrade = 1,
    max_bad: MaxBad = 100,
) -> None:
    """Convert the layouts of ViDoRe and mteb, parquet or JSON lines with image bytes."""
    with refusing():
        from model_store.training.data.converters.vidore import (
            convert_pages,
            convert_vidore,
            qrels_of,
        )
        from model_store.training.data.rows import WrongUsage

        if qrels_of(source) is not None:
            done = convert_vidore(
                source,
                out,
                instruction=instruction,
                language=language,
                min_grade=min_grade,
                max_bad=max_bad,
                counting=counting,
            )
            _tell(out, *done)
            return
        if language is not None or min_grade != 1:
            raise WrongUsage(
                "--language and --min-grade are of a folder with corpus, queries and qrels."
            )
        _tell(
            out,
            *convert_pages(
                source, out, instruction=instruction, max_bad=max_bad, counting=counting
            ),
        )


@conversions.command()
def msmarco(
    out: Out,
    *,
    collection: Annotated[
        Path | None, typer.Option(help="collection.tsv, or BEIR's corpus.jsonl, or parquet.")
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(help="queries.train.tsv, or BEIR's queries.jsonl, or parquet.")
    ] = None,
    qrels: Annotated[
        Path | None, typer.Option(help="Judgements of TREC (4 columns) or BEIR (3, with a header).")
    ] = None,
    triples: Annotated[
        Path | None, typer.Option(help="triples.train.small.tsv, instead of the three.")
    ] = None,
    instruction: Told = None,
    min_grade: MinGrade = 1,
    max_bad: MaxBad = 100,
) -> None:
    """Convert the layouts of MS MARCO and BEIR."""
    with refusing():
        from model_store.training.data.converters.msmarco import convert_msmarco, convert_triples
        from model_store.training.data.rows import WrongUsage

        if triples is not None and (collection, queries, qrels, min_grade) == (None, None, None, 1):
            _tell(
                out,
                convert_triples(
                    triples, out, instruction=instruction, max_bad=max_bad, counting=counting
                ),
            )
        elif triples is None and collection and queries and qrels:
            done = convert_msmarco(
                collection,
                queries,
                qrels,
                out,
                instruction=instruction,
                min_grade=min_grade,
                max_bad=max_bad,
                counting=counting,
            )
            _tell(out, *done)
        else:
            raise WrongUsage("Give either --triples, or --collection, --queries and --qrels.")


@conversions.command()
def flagembedding(
    source: Source,
    out: Rows,
    instruction: ToldElse = None,
    max_bad: MaxBad = 100,
) -> None:
    """Convert FlagEmbedding's rows: query, pos, neg, prompt."""
    with refusing():
        from model_store.training.data.converters.flagembedding import convert_flagembedding

        _tell(
            out,
            convert_flagembedding(
                source, out, instruction=instruction, max_bad=max_bad, counting=counting
            ),
        )


@conversions.command()
def swift(
    source: Source,
    out: Rows,
    *,
    root: Root = Path(),
    instruction: ToldElse = None,
    images: Images = Keep.link,
    max_bad: MaxBad = 100,
) -> None:
    """Convert ms-swift's rows: messages, positive_messages, negative_messages, and their images."""
    with refusing():
        from model_store.training.data.converters.swift import convert_swift

        done = convert_swift(
            source,
            out,
            root=root,
            instruction=instruction,
            keeping=images.value,
            max_bad=max_bad,
            counting=counting,
        )
        _tell(out, done)


def _tell(out: Path, *done: Converted) -> None:
    for what, converted in zip(
        ("documents", "examples") if len(done) == 2 else ("examples",), done, strict=True
    ):
        counts = "".join(
            f"; {reason}: {count}" for reason, count in sorted(converted.counts.items()) if count
        )
        typer.echo(f"{converted.written} {what}{counts}")
        if converted.bad:
            first = (
                f" The first {len(converted.bad_rows)}:"
                if converted.bad > len(converted.bad_rows)
                else ""
            )
            typer.echo(f"{converted.bad} bad rows among the source's {what}.{first}", err=True)
            for sentence in converted.bad_rows:
                typer.echo(f"  {sentence}", err=True)
    typer.echo(f"Written to {out}")
