"""`gmr publish`: the command line of it.

Knows options alone; what it runs is imported when it runs. Invariant: as in `endings`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from model_store.commands.endings import fail, misuse

_STAGES = 9


def register(app: typer.Typer) -> None:
    """Add `gmr publish`."""
    app.command()(publish)


Base = Annotated[
    str,
    typer.Argument(
        help="The checkpoint that was trained on: a name that ships, a folder, NAME@production."
    ),
]
Learnt = Annotated[
    Path,
    typer.Argument(
        help="A finished run of `gmr train`, or a LoRA adapter's folder, as peft writes it."
    ),
]
Output = Annotated[Path, typer.Argument(help="The folder to make; it must not be there.")]
Name = Annotated[str | None, typer.Option(help="What it is called; default: the folder's name.")]
Unmerged = Annotated[
    bool,
    typer.Option("--unmerged", help="Publish the adapter alone, to be served beside its base."),
]
Dtype = Annotated[
    str | None,
    typer.Option(help="float32, bfloat16 or float16 of the stored weights; default: the base's."),
]
Device = Annotated[str, typer.Option(help="Where golden pairs are scored: cpu or cuda.")]
PythonVllm = Annotated[
    Path | None, typer.Option(help="An interpreter that has vLLM, to hold the result against it.")
]
Data = Annotated[
    list[str] | None, typer.Option(help="A line of the card on the data; may be given again.")
]
About = Annotated[Path | None, typer.Option(help="A Markdown file that the card begins with.")]
Licence = Annotated[str, typer.Option(help="The weights' licence, for the card.")]
Config = Annotated[
    Path | None, typer.Option(help="The training's settings, for the card; default: the run's.")
]
Metrics = Annotated[
    Path | None,
    typer.Option(help="One JSON object of figures, for the card; default: the run's last."),
]
Golden = Annotated[
    Path | None, typer.Option(help="A folder with golden.json, for a base that has none.")
]
Registry = Annotated[
    str | None,
    typer.Option(envvar="RERANK_REGISTRY", help="Also upload to this registry, a folder or a URL."),
]
Revision = Annotated[str | None, typer.Option(help="Commit of a base from the hub, 40 hex digits.")]
Cache = Annotated[
    Path | None, typer.Option(envvar="RERANK_MODEL_CACHE", help="Where pulled models are kept.")
]


def publish(
    base: Base,
    learnt: Learnt,
    output: Output,
    *,
    name: Name = None,
    unmerged: Unmerged = False,
    dtype: Dtype = None,
    device: Device = "cpu",
    python_vllm: PythonVllm = None,
    about: About = None,
    data: Data = None,
    licence: Licence = "not stated",
    config: Config = None,
    metrics: Metrics = None,
    golden: Golden = None,
    registry: Registry = None,
    revision: Revision = None,
    cache: Cache = None,
) -> None:
    """Merge a LoRA adapter into its base, check every way of scoring it, and write the folder."""
    with _refusing(base, revision):
        from model_store.checkpoint import resolve
        from model_store.golden import read_golden
        from model_store.synthetic.questions import golden_questions
        from model_store.training.publish import run
        from model_store.training.publish.card import read_story
        from model_store.training.publish.runs import open_run

        if dtype not in (None, *run.DTYPES):
            misuse(f"--dtype is one of {', '.join(run.DTYPES)}.")
        checkpoint = resolve(base, revision=revision, cache=cache, registry=registry)
        adapter, story = open_run(
            learnt,
            checkpoint,
            read_story(
                about=about, data=data or (), licence=licence, config=config, metrics=metrics
            ),
        )
        job = run.Job(
            base=checkpoint,
            adapter=adapter,
            output=output,
            name=name or output.name,
            story=story,
            dtype=dtype,
            device=device,
            python_vllm=python_vllm,
            questions=read_golden(golden) if golden else golden_questions(),
        )
        with _stages() as report:
            run.publish(job, merged=not unmerged, report=report)
        typer.echo(f"{job.name} is in {output}.")
        _upload(output, registry)


def expect_base(base: str, revision: str | None = None) -> None:
    """Refuse a base that cannot be, before torch is imported, which takes seconds."""
    from model_store.checkpoint import expect_named
    from model_store.manifest import CheckpointUnusable

    try:
        expect_named(base, revision)
    except CheckpointUnusable as refusal:
        fail(str(refusal))


def _upload(folder: Path, registry: str | None) -> None:
    if not registry:
        return
    from model_store.commands.models import moving
    from model_store.registry.storage import place_of
    from model_store.registry.versions import upload

    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    with moving(f"uploading {folder.name}", size) as tell:
        version = upload(place_of(registry), folder, tell)
    typer.echo(
        f"{version.name}@sha256:{version.digest} is in the registry: `gmr models promote` puts it"
        " in use."
    )


@contextmanager
def _stages() -> Iterator[Callable[[str], None]]:
    """A bar over the stages on a terminal, a line a stage elsewhere, both on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda line: typer.echo(line, err=True)
        return
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console
    ) as progress:
        task = progress.add_task("", total=_STAGES)
        yield lambda line: progress.update(task, description=line, advance=1)


@contextmanager
def _refusing(base: str, revision: str | None) -> Iterator[None]:
    """What must not be published ends the process with its sentence."""
    expect_base(base, revision)
    from model_store.manifest import CheckpointUnusable
    from model_store.training.publish.pairs import PublishRefused

    try:
        yield
    except (CheckpointUnusable, PublishRefused) as refusal:
        fail(str(refusal))
