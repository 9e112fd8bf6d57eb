"""`gmr data answers`: a teacher's generations for training rows, and the answers that are taught.

Does not depend on how a teacher writes; what it runs is imported when it runs. Invariant: exit
codes as in `console`; files are written whole or not at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model_store.commands.console import misuse, progress
from model_store.commands.data import refusing_data
from model_store.commands.options import Seed, finite

if TYPE_CHECKING:
    from model_store.training.erank.consensus import Chosen

Rows = Annotated[Path, typer.Argument(help="Training rows, .jsonl or .jsonl.gz.")]
Out = Annotated[Path, typer.Argument(help="The file of answers to write.")]
BaseModel = Annotated[
    str, typer.Option(help="The model to be trained, whose tokenizer counts tokens.")
]
GenerationsFile = Annotated[
    Path | None, typer.Option(help="A teacher's generations: rows of id, document, generations.")
]
Teacher = Annotated[
    str | None,
    typer.Option(help="A model of ERank's family that writes them; needs --write-generations."),
]
WriteTo = Annotated[
    Path | None, typer.Option("--write-generations", help="Where the teacher's texts go.")
]


def register(app: typer.Typer) -> None:
    """Add `gmr data answers`."""
    app.command("answers")(answers)


def answers(
    rows: Rows,
    out: Out,
    *,
    model: BaseModel,
    generations: GenerationsFile = None,
    teacher: Teacher = None,
    write_generations: WriteTo = None,
    count: Annotated[int, typer.Option(min=1, max=64, help="Generations of the teacher.")] = 3,
    temperature: Annotated[
        float, typer.Option(min=0.01, max=10.0, callback=finite, help="Of the teacher's sampling.")
    ] = 0.7,
    max_tokens: Annotated[
        int, typer.Option(min=8, max=32768, help="A longer generation is dropped.")
    ] = 2048,
    device: Annotated[str, typer.Option(help="Where the teacher runs: cpu or cuda.")] = "cpu",
    seed: Seed = 0,
) -> None:
    """Write the answers of ERank's first stage: of several generations for a pair, the one whose
    number is nearest to their mean."""
    if (generations is None) == (teacher is None):
        misuse("Give --generations, a file, or --teacher, a model that writes one.")
    if (teacher is None) != (write_generations is None):
        misuse("--teacher and --write-generations go together.")

    with refusing_data():
        from model_store.output_files import check_outputs
        from model_store.training.erank.teaching import Teaching, answering_family, generate, take

        if teacher is not None and write_generations is not None:
            check_outputs(out, write_generations, inputs=(rows,))
            answering_family(model)
            generations = write_generations
            asked = Teaching(teacher, count, temperature, max_tokens, seed, device)
            with progress("generating", unit="pairs") as advance:
                generate(rows, generations, asked, advance)
        assert generations is not None
        chosen = take(rows, generations, out, model, max_tokens)
    _print(chosen, out)


def _print(chosen: Chosen, out: Path) -> None:
    kept = sum(chosen.scores.values())
    typer.echo(f"{kept} answers to {chosen.pairs} pairs, of {chosen.generations} generations.")
    if chosen.unscored:
        typer.echo(f"{chosen.unscored} generations without a thought and a number were dropped.")
    if chosen.too_long:
        typer.echo(f"{chosen.too_long} generations were too long, and were dropped.")
    if chosen.lost:
        typer.echo(f"{chosen.lost} pairs have no generation left, and no answer.")
    shares = [f"{score}: {chosen.scores[score]}" for score in sorted(chosen.scores)]
    typer.echo(f"Numbers: {', '.join(shares)}.")
    typer.echo(f"Written to {out}")
