"""`gmr convert`, as people type it.

Knows options; everything else is imported once it is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model_store.training.console import Images, Keep, Seed, refusing
from model_store.training.data_commands import data

if TYPE_CHECKING:
    from model_store.training.converters.assemble import Converted

Out = Annotated[Path, typer.Argument(help="The .jsonl file to write; its corpus goes beside it as *.corpus.jsonl.")]
Told = Annotated[str | None, typer.Option(help="The instruction of every row.")]

conversions = typer.Typer(name="convert", no_args_is_help=True, help="Public data sets, in their own layouts, to training rows.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(conversions)
    app.add_typer(data)


@conversions.command()
def mbeir(
    queries: Annotated[Path, typer.Argument(help="Query rows: qid, query_txt, query_img_path, pos_cand_list, ...")],
    pool: Annotated[Path, typer.Argument(help="Candidate rows: did, txt, img_path, modality.")],
    out: Out,
    *,
    root: Annotated[Path, typer.Option(help="The folder that image paths are relative to.")],
    instructions: Annotated[
        Path | None, typer.Option(help="query_instructions.tsv: each query draws one of its prompts.")
    ] = None,
    images: Images = Keep.reference,
    seed: Seed = 0,
) -> None:
    """Convert M-BEIR's layout."""
    with refusing():
        from model_store.training.converters.mbeir import convert_mbeir

        done = convert_mbeir(queries, pool, out, root=root, instructions=instructions, keeping=images.value, seed=seed)
        _tell(out, *done)


@conversions.command()
def vidore(
    source: Annotated[Path, typer.Argument(help="A folder with corpus, queries and qrels; or rows of query and image.")],
    out: Out,
    instruction: Told = None,
    language: Annotated[str | None, typer.Option(help="Take queries of this language alone.")] = None,
) -> None:
    """Convert ViDoRe's layouts, parquet or JSON lines with image bytes."""
    with refusing():
        from model_store.training.converters.vidore import convert_pages, convert_vidore

        if (source / "qrels").is_dir():
            _tell(out, *convert_vidore(source, out, instruction=instruction, language=language))
        else:
            _tell(out, *convert_pages(source, out, instruction=instruction))


@conversions.command()
def msmarco(
    out: Out,
    collection: Annotated[Path | None, typer.Option(help="collection.tsv")] = None,
    queries: Annotated[Path | None, typer.Option(help="queries.train.tsv")] = None,
    qrels: Annotated[Path | None, typer.Option(help="qrels.train.tsv")] = None,
    triples: Annotated[Path | None, typer.Option(help="triples.train.small.tsv, instead of the three.")] = None,
    instruction: Told = None,
) -> None:
    """Convert MS MARCO's layout."""
    with refusing():
        from model_store.training.converters.msmarco import convert_msmarco, convert_triples
        from model_store.training.data import WrongUsage

        if triples is not None and (collection, queries, qrels) == (None, None, None):
            _tell(out, convert_triples(triples, out, instruction=instruction))
        elif triples is None and collection and queries and qrels:
            _tell(out, *convert_msmarco(collection, queries, qrels, out, instruction=instruction))
        else:
            raise WrongUsage("Give either --triples, or --collection, --queries and --qrels.")


def _tell(out: Path, *done: Converted) -> None:
    for what, converted in zip(("documents", "examples") if len(done) == 2 else ("examples",), done, strict=True):
        counts = "".join(f"; {reason}: {count}" for reason, count in sorted(converted.counts.items()) if count)
        typer.echo(f"{converted.written} {what}{counts}")
    typer.echo(f"Written to {out}")
