"""`gmr convert`: its options, a command a layout.

Does not depend on the layouts; what it runs is imported when it runs. Invariant: exit codes as in
`console`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model_store.commands.console import Advance, progress
from model_store.commands.data import data, refusing_data
from model_store.commands.options import ImageModeOption, Images, Seed

if TYPE_CHECKING:
    from model_store.training.data.converters.outcomes import Outcomes

_MAX_BAD = 10_000_000
_MAX_GRADE = 1_000
_MAX_INSTRUCTION_CHARS = 10_000
"""As in `training.data`, which is imported only when a command runs."""


def _instruction(text: str | None) -> str | None:
    if text is not None and len(text) > _MAX_INSTRUCTION_CHARS:
        raise typer.BadParameter(
            f"it has {len(text)} characters, and {_MAX_INSTRUCTION_CHARS} are allowed"
        )
    return text


Out = Annotated[
    Path,
    typer.Argument(help="The .jsonl file to write; its corpus becomes *.corpus.jsonl beside it."),
]
RowsFile = Annotated[Path, typer.Argument(help="The .jsonl file to write.")]
SourceFiles = Annotated[
    Path,
    typer.Argument(help="JSON lines (.jsonl, .jsonl.gz) or parquet; a file, or a folder of them."),
]
Instruction = Annotated[
    str | None, typer.Option(callback=_instruction, help="The instruction of every row.")
]
DefaultInstruction = Annotated[
    str | None,
    typer.Option(
        callback=_instruction, help="The instruction of rows that have none of their own."
    ),
]
Root = Annotated[Path, typer.Option(help="Folder that image paths are relative to.")]
MinGrade = Annotated[
    int, typer.Option(min=1, max=_MAX_GRADE, help="The least grade of a relevant document.")
]
MaxBad = Annotated[
    int,
    typer.Option(
        min=0,
        max=_MAX_BAD,
        help="Bad rows per file that are skipped and counted; one more ends the command.",
    ),
]

conversions = typer.Typer(
    name="convert",
    no_args_is_help=True,
    help="Convert public data sets, in their own layouts, to training rows.",
)


def register(app: typer.Typer) -> None:
    """Add `gmr convert` and `gmr data`."""
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
        typer.Option(help="Only queries and candidates of one task: T-T, T-IT, IT-I, ..."),
    ] = None,
    instructions: Annotated[
        Path | None,
        typer.Option(help="query_instructions.tsv; each query draws one of its prompts."),
    ] = None,
    images: Images = ImageModeOption.reference,
    seed: Seed = 0,
    max_bad: MaxBad = 100,
) -> None:
    """Convert M-BEIR's queries and candidates, with their images."""
    with refusing_data():
        from model_store.training.data.converters.mbeir import convert_mbeir

        done = convert_mbeir(
            queries,
            pool,
            out,
            root=root,
            instructions=instructions,
            image_mode=images.value,
            task=task,
            seed=seed,
            max_bad=max_bad,
            show_progress=_converting,
        )
        _print_counts(out, *done)


@conversions.command()
def vidore(
    source: Annotated[
        Path,
        typer.Argument(help="A folder with corpus, queries and qrels, or rows of query and image."),
    ],
    out: Out,
    *,
    instruction: Instruction = None,
    language: Annotated[str | None, typer.Option(help="Only queries of this language.")] = None,
    min_grade: MinGrade = 1,
    max_bad: MaxBad = 100,
) -> None:
    """Convert the layouts of ViDoRe and mteb: parquet or JSON lines with image bytes."""
    with refusing_data():
        from model_store.errors import WrongUsage
        from model_store.training.data.converters.vidore import (
            convert_pages,
            convert_vidore,
            find_qrels,
        )

        if find_qrels(source) is not None:
            done = convert_vidore(
                source,
                out,
                instruction=instruction,
                language=language,
                min_grade=min_grade,
                max_bad=max_bad,
                show_progress=_converting,
            )
            _print_counts(out, *done)
            return
        if language is not None or min_grade != 1:
            raise WrongUsage(
                "--language and --min-grade are of a folder with corpus, queries and qrels."
            )
        _print_counts(
            out,
            *convert_pages(
                source, out, instruction=instruction, max_bad=max_bad, show_progress=_converting
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
        Path | None, typer.Option(help="triples.train.small.tsv, in place of the other three.")
    ] = None,
    instruction: Instruction = None,
    min_grade: MinGrade = 1,
    max_bad: MaxBad = 100,
) -> None:
    """Convert the layouts of MS MARCO and BEIR: texts and judgements, or triples."""
    with refusing_data():
        from model_store.errors import WrongUsage
        from model_store.training.data.converters.msmarco import convert_msmarco, convert_triples

        if triples is not None and (collection, queries, qrels, min_grade) == (None, None, None, 1):
            _print_counts(
                out,
                convert_triples(
                    triples,
                    out,
                    instruction=instruction,
                    max_bad=max_bad,
                    show_progress=_converting,
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
                show_progress=_converting,
            )
            _print_counts(out, *done)
        else:
            raise WrongUsage("Give either --triples, or --collection, --queries and --qrels.")


@conversions.command()
def flagembedding(
    source: SourceFiles,
    out: RowsFile,
    instruction: DefaultInstruction = None,
    max_bad: MaxBad = 100,
) -> None:
    """Convert FlagEmbedding's rows: query, pos, neg, prompt."""
    with refusing_data():
        from model_store.training.data.converters.flagembedding import convert_flagembedding

        _print_counts(
            out,
            convert_flagembedding(
                source, out, instruction=instruction, max_bad=max_bad, show_progress=_converting
            ),
        )


@conversions.command()
def swift(
    source: SourceFiles,
    out: RowsFile,
    *,
    root: Root = Path(),
    instruction: DefaultInstruction = None,
    images: Images = ImageModeOption.link,
    max_bad: MaxBad = 100,
) -> None:
    """Convert ms-swift's rows: messages, positive_messages, negative_messages, and their images."""
    with refusing_data():
        from model_store.training.data.converters.swift import convert_swift

        done = convert_swift(
            source,
            out,
            root=root,
            instruction=instruction,
            image_mode=images.value,
            max_bad=max_bad,
            show_progress=_converting,
        )
        _print_counts(out, done)


def _converting(unit: str) -> AbstractContextManager[Advance]:
    return progress("converting", unit=unit)


def _print_counts(out: Path, *converted: Outcomes) -> None:
    """Print what became of a source's rows; two counts are those of the corpus and the rows."""
    units = ("documents", "examples") if len(converted) == 2 else ("examples",)
    for unit, counts in zip(units, converted, strict=True):
        reasons = [f"; {reason}: {n}" for reason, n in sorted(counts.counts.items()) if n]
        typer.echo(f"{counts.written} {unit}{''.join(reasons)}")
        if counts.bad:
            _print_bad_rows(counts, unit)
    typer.echo(f"Written to {out}")


def _print_bad_rows(counts: Outcomes, unit: str) -> None:
    shown = len(counts.bad_rows)
    first = f" The first {shown}:" if counts.bad > shown else ""
    typer.echo(f"{counts.bad} bad rows among the source's {unit}.{first}", err=True)
    for sentence in counts.bad_rows:
        typer.echo(f"  {sentence}", err=True)
