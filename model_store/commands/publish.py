"""`gmr publish`: its options.

Does not depend on networks; what it runs is imported when it runs. Invariant: exit codes as in
`console`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from model_store.commands.console import misuse, progress, refusing
from model_store.commands.options import Cache, Family, finite
from model_store.commands.publish_cascade import publish_cascade


def register(app: typer.Typer) -> None:
    """Add `gmr publish`."""
    app.command()(publish)


Base = Annotated[
    str,
    typer.Argument(
        help=(
            "The checkpoint that was trained on: a name that ships, a folder, NAME@production; with"
            " --cascade, the folder to write."
        )
    ),
]
Learnt = Annotated[
    Path | None,
    typer.Argument(
        help="A finished run of `gmr train`, or a LoRA adapter's folder, as peft writes it."
    ),
]
NewFolder = Annotated[Path | None, typer.Argument(help="The folder to write; it must not exist.")]
NewName = Annotated[
    str | None, typer.Option(help="Name of the new checkpoint; default: the folder's name.")
]
Unmerged = Annotated[
    bool,
    typer.Option("--unmerged", help="Publish the adapter alone, to be served beside its base."),
]
Dtype = Annotated[
    str | None,
    typer.Option(help="Stored weights: float32, bfloat16 or float16; default: as the base's."),
]
ScoringDevice = Annotated[str, typer.Option(help="Where golden pairs are scored: cpu or cuda.")]
VllmInterpreter = Annotated[
    Path | None,
    typer.Option(help="An interpreter that has vLLM, whose scores are compared as well."),
]
Data = Annotated[
    list[str] | None, typer.Option(help="A line of the card about the data; may be repeated.")
]
About = Annotated[Path | None, typer.Option(help="A Markdown file that the card begins with.")]
Licence = Annotated[str, typer.Option(help="The weights' licence, for the card.")]
Config = Annotated[
    Path | None, typer.Option(help="The training's settings, for the card; default: the run's.")
]
Metrics = Annotated[
    Path | None,
    typer.Option(help="A JSON object of figures, for the card; default: the run's last values."),
]
Golden = Annotated[
    Path | None,
    typer.Option(help="For a base without golden pairs: a folder that has golden.json."),
]
UploadTo = Annotated[
    str | None,
    typer.Option(
        envvar="RERANK_REGISTRY",
        help="Folder or URL of a registry that the result is uploaded to as well.",
    ),
]
CascadeFile = Annotated[
    Path | None,
    typer.Option(
        help=(
            "Publish a cascade instead: a JSON file of its stages. It is measured against its last"
            " stage alone on generated queries."
        )
    ),
]
Queries = Annotated[
    int, typer.Option(help="Of --cascade: generated queries per cell.", min=20, max=2000)
]
Cells = Annotated[
    str | None,
    typer.Option(
        help=(
            "Of --cascade: kinds of generated pairs, such as T-I,T-IT, where the cascade is for no"
            " others; default: all nine."
        )
    ),
]
MaxLoss = Annotated[
    float,
    typer.Option(
        help=(
            "Of --cascade: points of nDCG@10 that it may lose, by the far end of the interval, or"
            " it is refused."
        ),
        min=0,
        max=100,
        callback=finite,
    ),
]
BaseRevision = Annotated[str | None, typer.Option(help="Commit of a hub base, 40 hex digits.")]


def publish(
    base: Base,
    learnt: Learnt = None,
    output: NewFolder = None,
    *,
    cascade: CascadeFile = None,
    queries: Queries = 200,
    cells: Cells = None,
    max_loss: MaxLoss = 0.3,
    name: NewName = None,
    unmerged: Unmerged = False,
    dtype: Dtype = None,
    device: ScoringDevice = "cpu",
    python_vllm: VllmInterpreter = None,
    about: About = None,
    data: Data = None,
    licence: Licence = "not stated",
    config: Config = None,
    metrics: Metrics = None,
    golden: Golden = None,
    registry: UploadTo = None,
    revision: BaseRevision = None,
    family: Family = None,
    cache: Cache = None,
) -> None:
    """Merge a LoRA adapter into its base, check every way of scoring it, and write the folder; or
    measure a cascade, and write its folder."""
    if cascade is not None:
        of_checkpoints = [unmerged, dtype, python_vllm, about, data, config, metrics, golden]
        _refuse_others([learnt, *of_checkpoints, revision, family])
        publish_cascade(
            cascade,
            Path(base),
            name=name,
            queries=queries,
            cells=cells,
            max_loss=max_loss,
            registry=registry,
            cache=cache,
        )
        if registry:
            upload_folder(Path(base), registry)
        return
    if learnt is None or output is None:
        misuse("Give the base, what was learnt, and the folder to write.")

    expect_base(base, revision)
    from model_store.checkpoint import resolve
    from model_store.golden import read_golden
    from model_store.manifest import CheckpointUnusable
    from model_store.synthetic.questions import golden_questions
    from model_store.training.publish.card import read_story
    from model_store.training.publish.job import DTYPES, PublishJob
    from model_store.training.publish.pairs import PublishRefused
    from model_store.training.publish.run import publish as publish_job
    from model_store.training.publish.runs import open_run

    if dtype not in (None, *DTYPES):
        misuse(f"--dtype is one of {', '.join(DTYPES)}.")

    with refusing(CheckpointUnusable, PublishRefused):
        checkpoint = resolve(base, revision=revision, cache=cache, registry=registry, family=family)
        story = read_story(
            about=about, data=data or (), licence=licence, config=config, metrics=metrics
        )
        trained = open_run(learnt, checkpoint, story)
        job = PublishJob(
            base=checkpoint,
            adapter=trained.folder,
            output=output,
            name=name or output.name,
            story=trained.story,
            read_out=trained.read_out,
            template=trained.template,
            dtype=dtype,
            device=device,
            python_vllm=python_vllm,
            questions=read_golden(golden) if golden else golden_questions(),
        )
        publish_job(job, merged=not unmerged, report=lambda line: typer.echo(line, err=True))
        typer.echo(f"{job.name} is in {output}.")
        if registry:
            upload_folder(output, registry)


def _refuse_others(given: Sequence[object]) -> None:
    """Exit with 2 where a cascade was given what is for checkpoints."""
    if any(given):
        misuse(
            "With --cascade, give the folder to write, and no other options than --name,"
            " --queries, --cells, --max-loss, --registry and --cache."
        )


def expect_base(base: str, revision: str | None = None) -> None:
    """Exit with 1 where a base cannot exist, before torch is imported, which takes seconds."""
    from model_store.checkpoint import expect_named
    from model_store.manifest import CheckpointUnusable

    with refusing(CheckpointUnusable):
        expect_named(base, revision)


def upload_folder(folder: Path, registry: str) -> None:
    """Upload a published folder to a registry, and print its reference."""
    from model_store.registry.storage import open_storage
    from model_store.registry.versions import upload

    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    with progress(f"uploading {folder.name}", size, unit="bytes") as advance:
        version = upload(open_storage(registry), folder, advance)
    typer.echo(
        f"{version.name}@sha256:{version.digest} is in the registry: `gmr models promote` puts it"
        " in use."
    )
