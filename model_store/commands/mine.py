"""`gmr mine`: its options.

Does not depend on retrievers; what it runs is imported when it runs. Invariant: exit codes as in
`console`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from model_store.commands.console import progress
from model_store.commands.data import refusing_data
from model_store.commands.options import ImageModeOption, Images, Seed, finite

if TYPE_CHECKING:
    from model_store.training.negatives.choosing import Rules
    from model_store.training.negatives.mining import Miner, Run
    from model_store.training.negatives.opening import Choice

MAX_MARGIN = 1_000_000.0
MAX_ACTORS = 10_000
MAX_GPUS = 64.0
MAX_SHARDS = 1_000_000
MAX_RANK = 1000
MAX_HARD = 1000

_NO_MARGIN = (
    "No margin is given, as in the paper: candidates that are relevant but not known to be stay"
    " among the negatives."
)
_NO_SEARCH = "No hard negatives are asked for: nothing is searched, and all negatives are random."

_COUNTS = {
    "fewer_hard": "examples have fewer hard negatives than asked for.",
    "fewer_random": "examples have fewer random negatives than asked for.",
    "without_negatives": "examples have no negative at all.",
    "dropped_as_relevant": "drawn candidates were the query or a positive, and were dropped.",
    "dropped_as_copies": "drawn candidates were the same as a negative, and were dropped.",
    "dropped_as_too_relevant": (
        "candidates were dropped: too near their positive's score, or above it."
    ),
    "random_dropped_as_too_relevant": "random draws were dropped for the same reason.",
    "not_guarded": "examples had no positive that could be scored, so no margin was kept for them.",
}
"""Counts of a run's report, and what each is a count of."""

Margin = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=MAX_MARGIN,
        callback=finite,
        help="Drop candidates that score less than this below the row's positive.",
    ),
]
RelativeMargin = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=MAX_MARGIN,
        callback=finite,
        help="The margin as a share of the positive's score.",
    ),
]


Bands = Annotated[
    list[str] | None,
    typer.Option(
        help=(
            "FIRST-LAST:COUNT: hard negatives drawn from these ranks of the retriever, in place of"
            " --hard and --top; repeated, as in 1-10:7, 11-100:6, 101-1000:6 (ERank)."
        )
    ),
]


def register(app: typer.Typer) -> None:
    """Add `gmr mine`."""
    app.command("mine")(mine)


def mine(
    source: Annotated[Path, typer.Argument(help="Training rows; their negatives are replaced.")],
    out: Annotated[
        Path, typer.Argument(help="The .jsonl file to write, and *.report.json beside it.")
    ],
    *,
    corpus: Annotated[Path, typer.Option(help="Documents to search: rows of id, text and image.")],
    retriever: Annotated[
        str, typer.Option(help="bm25, dense (sentence-transformers), gme, gme-vllm, or none.")
    ] = "bm25",
    model: Annotated[
        str | None, typer.Option(help="Model of the retriever: a folder or a hub id.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Commit of a model from the hub.")] = None,
    device: Annotated[
        str | None, typer.Option(help="Device, as torch names it; default: a GPU if there is one.")
    ] = None,
    query_form: Annotated[
        str | None,
        typer.Option(help="Form of a query for dense: a text with {instruction} and {query}."),
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option(help="Folder for the corpus's vectors; default: beside the corpus."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=1000, help="Candidates per query.")] = 100,
    hard: Annotated[
        int,
        typer.Option(min=0, max=100, help="Hard negatives per row, drawn from the candidates."),
    ] = 8,
    random: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=100,
            help="Random negatives per row; default: as many as hard ones, none with --band.",
        ),
    ] = None,
    band: Bands = None,
    margin: Margin = None,
    relative_margin: RelativeMargin = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the rows' own negatives too.")] = False,
    images: Images = ImageModeOption.link,
    seed: Seed = 0,
    shard: Annotated[
        str | None,
        typer.Option(help="I/N: mine part I of N, from 0; a run without it then finishes."),
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option("--ray", min=1, max=MAX_ACTORS, help="Mine with so many Ray actors."),
    ] = None,
    gpus: Annotated[
        float,
        typer.Option(min=0.0, max=MAX_GPUS, callback=finite, help="GPUs per actor."),
    ] = 0,
) -> None:
    """Mine negatives: hard ones from a retriever's best documents, and as many random ones.

    An interrupted run continues where it stopped. Shards share the folder of OUT, on one machine or
    several.
    """
    with refusing_data():
        from model_store.training.negatives.choosing import Rules, check_rules
        from model_store.training.negatives.mining import Run, check_before
        from model_store.training.negatives.opening import Choice

        choice = Choice(retriever, model, revision, device, query_form, vectors)
        choice.check()
        part = None if shard is None else _parse_shard(shard)
        rules = Rules(hard, hard if random is None else random, top, margin, relative_margin, seed)
        if band:
            rules = _with_bands(rules, band, random or 0)
        check_rules(rules, choice.name)
        if not rules.searches:
            choice = Choice("none")
        run = Run(source, corpus, out, rules, keep, images.value)
        check_before(run)

        if not rules.guarded:
            typer.echo(_NO_MARGIN if rules.hard else _NO_SEARCH, err=True)
        if actors is not None:
            _mine_on_cluster(run, choice, actors, gpus)
        _mine_here(run, choice, part)


def _mine_here(run: Run, choice: Choice, shard: tuple[int, int] | None) -> None:
    """Mine what is left of a run, or of a shard of it, in this process."""
    miner = _open_miner(run, choice)
    report = miner.finished()
    if report is not None:
        typer.echo("It was mined before.")
        _print_report(report, run.target)
        return

    parts = range(miner.parts) if shard is None else miner.shard(*shard)
    with progress("mining", miner.examples, unit="examples") as advance:
        miner.mine(parts, advance)

    if shard is None:
        _print_report(miner.finish(), run.target)
    else:
        typer.echo(f"Shard {shard[0]}/{shard[1]} is done. A run without --shard puts all together.")


def _open_miner(run: Run, choice: Choice) -> Miner:
    from model_store.training.data.corpus import Corpus
    from model_store.training.negatives.mining import Miner
    from model_store.training.negatives.opening import open_retriever

    corpus = Corpus(run.corpus)
    with progress("embedding", len(corpus), unit="documents") as advance:
        retriever = open_retriever(choice, corpus, advance)
    return Miner(run, corpus, retriever)


def _mine_on_cluster(run: Run, choice: Choice, actors: int, gpus: float) -> None:
    from model_store.training.negatives.cluster import mine_on_cluster

    with progress("mining", unit="parts") as advance:
        mine_on_cluster(run, choice, actors=actors, gpus=gpus, progress=advance)


def _with_bands(rules: Rules, texts: list[str], random: int) -> Rules:
    """The rules with bands of ranks, which follow one another."""
    from dataclasses import replace

    from model_store.errors import WrongUsage
    from model_store.training.negatives.choosing import Band

    bands: list[Band] = []
    for text in texts:
        match = re.fullmatch(r"([0-9]{1,4})-([0-9]{1,4}):([0-9]{1,3})", text)
        after = bands[-1].last if bands else 0
        if not match or not after < int(match[1]) <= int(match[2]) <= MAX_RANK:
            raise WrongUsage(
                f"A --band is FIRST-LAST:COUNT with ranks from 1 to {MAX_RANK} behind those of the"
                f" one before, not {text[:40]!r}."
            )
        bands.append(Band(*map(int, match.groups())))

    hard = sum(each.count for each in bands)
    if not 1 <= hard <= MAX_HARD:
        raise WrongUsage(f"--band asks for {hard} negatives in all; from 1 to {MAX_HARD} can be.")
    return replace(rules, hard=hard, random=random, top=bands[-1].last, bands=tuple(bands))


def _parse_shard(text: str) -> tuple[int, int]:
    from model_store.errors import WrongUsage

    match = re.fullmatch(r"([0-9]{1,7})/([0-9]{1,7})", text)
    if match and int(match[1]) < int(match[2]) <= MAX_SHARDS:
        return int(match[1]), int(match[2])
    raise WrongUsage(
        f"A --shard is I/N with I from 0 to N - 1 and N up to {MAX_SHARDS:,}, not {text[:40]!r}."
    )


def _print_report(report: dict[str, Any], out: Path) -> None:
    typer.echo(
        f"{report['examples']} examples: {report['hard']} hard negatives, {report['random']} random"
        " ones."
    )
    for count, sentence in _COUNTS.items():
        if report[count]:
            typer.echo(f"{report[count]} {sentence}")

    retriever = report["run"]["retriever"]
    missing = retriever.get("documents_without_text")
    if missing:
        typer.echo(
            f"{missing} of {retriever['documents']} documents have no text: BM25"
            " reads words alone, so they are no hard negatives; --retriever gme reads images."
        )
    typer.echo(f"Written to {out}, with scores in {out.name}.report.json")
