"""`gmr mine`, as people type it.

Knows options; everything else is imported once it is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from model_store.commands.console import Images, Keep, Seed, counting, finite, refusing

if TYPE_CHECKING:
    from model_store.training.negatives.mining import Miner, Run
    from model_store.training.negatives.opening import Choice

MAX_MARGIN = 1_000_000.0
MAX_ACTORS = 10_000
MAX_GPUS = 64.0
MAX_SHARDS = 1_000_000

_NO_GUARD = (
    "No margin is given, as in the paper: candidates that are relevant but not known to be stay"
    " among the negatives."
)
_NO_SEARCH = "No hard negatives are asked for: nothing is searched, and all negatives are random."

Margin = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=MAX_MARGIN,
        callback=finite,
        help="Drop candidates less than this below the row's positive.",
    ),
]
RelativeMargin = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=MAX_MARGIN,
        callback=finite,
        help="The same, as a share of the positive's score.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("mine")(mine)


def mine(
    source: Annotated[Path, typer.Argument(help="Training rows; their negatives are replaced.")],
    out: Annotated[
        Path, typer.Argument(help="The .jsonl file to write, and *.report.json beside it.")
    ],
    *,
    corpus: Annotated[Path, typer.Option(help="Documents to search: rows of id, text, image.")],
    retriever: Annotated[
        str, typer.Option(help="bm25, dense (sentence-transformers), gme, gme-vllm, or none.")
    ] = "bm25",
    model: Annotated[
        str | None, typer.Option(help="The retriever's model: a folder or a hub id.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Of a hub id: the commit.")] = None,
    device: Annotated[
        str | None, typer.Option(help="As torch names it; default: a GPU if there is one.")
    ] = None,
    query_form: Annotated[
        str | None, typer.Option(help="For dense: a text with {instruction} and {query}.")
    ] = None,
    vectors: Annotated[
        Path | None, typer.Option(help="Where the corpus's vectors are kept; default: beside it.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=1000, help="Candidates for each query.")] = 100,
    hard: Annotated[
        int,
        typer.Option(
            min=0, max=100, help="Hard negatives for each row, drawn from the candidates."
        ),
    ] = 8,
    random: Annotated[
        int | None, typer.Option(min=0, max=100, help="Random ones; default: as many.")
    ] = None,
    margin: Margin = None,
    relative_margin: RelativeMargin = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the rows' own negatives as well.")
    ] = False,
    images: Images = Keep.link,
    seed: Seed = 0,
    shard: Annotated[
        str | None,
        typer.Option(help="I/N: do part I of N, from 0; a run without it then finishes."),
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option("--ray", min=1, max=MAX_ACTORS, help="Use so many of Ray's actors."),
    ] = None,
    gpus: Annotated[
        float,
        typer.Option(min=0.0, max=MAX_GPUS, callback=finite, help="Each actor's share of GPUs."),
    ] = 0,
) -> None:
    """Mine negatives, seeded: hard ones among a retriever's best, and as many at random.

    An interrupted run goes on where it stopped. Shards share the folder of OUT, on one machine or
    several.
    """
    with refusing():
        from model_store.training.negatives.choosing import Rules, check_rules
        from model_store.training.negatives.mining import Run, check_before
        from model_store.training.negatives.opening import Choice

        choice = Choice(retriever, model, revision, device, query_form, vectors)
        choice.check()
        part = None if shard is None else _shard(shard)
        rules = Rules(hard, hard if random is None else random, top, margin, relative_margin, seed)
        check_rules(rules, choice.name)
        choice = choice if rules.searches else Choice("none")
        run = Run(source, corpus, out, rules, keep, images.value)
        check_before(run)
        if not rules.guarded:
            typer.echo(_NO_GUARD if rules.hard else _NO_SEARCH, err=True)
        if actors is not None:
            _on_cluster(run, choice, actors, gpus)
        _here(run, choice, part)


def _here(run: Run, choice: Choice, shard: tuple[int, int] | None) -> None:
    """What is left to do of a run, or of a shard of it, in this process."""
    miner = _miner(run, choice)
    if (report := miner.finished()) is not None:
        typer.echo("It was mined before.")
        _tell(report, run.target)
        return
    with counting("examples", miner.examples) as progress:
        miner.mine(range(miner.parts) if shard is None else miner.shard(*shard), _summed(progress))
    if shard is None:
        _tell(miner.finish(), run.target)
    else:
        typer.echo(f"Shard {shard[0]}/{shard[1]} is done. A run without --shard puts all together.")


def _miner(run: Run, choice: Choice) -> Miner:
    from model_store.training.data.corpus import Corpus
    from model_store.training.negatives.mining import Miner
    from model_store.training.negatives.opening import open_retriever

    corpus = Corpus(run.corpus)
    with counting("documents", len(corpus)) as progress:
        retriever = open_retriever(choice, corpus, _summed(progress))
    return Miner(run, corpus, retriever)


def _on_cluster(run: Run, choice: Choice, actors: int, gpus: float) -> None:
    from model_store.training.negatives.cluster import mine_on_cluster

    with counting("parts") as progress:
        mine_on_cluster(run, choice, actors=actors, gpus=gpus, progress=_summed(progress))


def _shard(written: str) -> tuple[int, int]:
    from model_store.training.data.rows import WrongUsage

    number, _, of = written.partition("/")
    if re.fullmatch(r"[0-9]{1,7}/[0-9]{1,7}", written) and int(number) < int(of) <= MAX_SHARDS:
        return int(number), int(of)
    raise WrongUsage(
        f"A --shard is I/N with I from 0 to N - 1 and N up to {MAX_SHARDS:,}, not {written[:40]!r}."
    )


def _summed(progress: Callable[[int], None]) -> Callable[[int], None]:
    """From steps to what they come to."""
    done = 0

    def step(more: int) -> None:
        nonlocal done
        done += more
        progress(done)

    return step


def _tell(report: dict[str, Any], out: Path) -> None:
    typer.echo(
        f"{report['examples']} examples: {report['hard']} hard negatives, {report['random']} random"
        " ones."
    )
    for count, sentence in (
        ("fewer_hard", "examples have fewer hard negatives than asked for."),
        ("fewer_random", "examples have fewer random negatives than asked for."),
        ("without_negatives", "examples have no negative at all."),
        ("dropped_as_relevant", "drawn candidates were the query or a positive, and were dropped."),
        ("dropped_as_copies", "drawn candidates were the same as a negative, and were dropped."),
        (
            "dropped_as_too_relevant",
            "candidates were dropped: too near their positive's score, or above it.",
        ),
        ("random_dropped_as_too_relevant", "random draws were dropped for the same reason."),
        (
            "not_guarded",
            "examples had no positive that could be scored, so no margin was kept for them.",
        ),
    ):
        if report[count]:
            typer.echo(f"{report[count]} {sentence}")
    if missing := report["run"]["retriever"].get("documents_without_text"):
        typer.echo(
            f"{missing} of {report['run']['retriever']['documents']} documents have no text: BM25"
            " reads words alone, so they are no hard negatives; --retriever gme reads images."
        )
    typer.echo(f"Written to {out}, with scores in {out.name}.report.json")
