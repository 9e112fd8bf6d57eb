"""`gmr models`: what is in a registry, whether it is whole, and which version is in use.

Knows the command line alone; each command imports what it needs. Invariant: as in
`endings`; what the gate holds back could not be done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model_store.commands.endings import fail, misuse

if TYPE_CHECKING:
    from model_store.registry.channels import Promotion
    from model_store.registry.storage import Storage
    from model_store.registry.versions import Version

Registry = Annotated[
    str | None,
    typer.Option(
        envvar="RERANK_REGISTRY", help="Folder or URL (s3://, gs://, ...) of the registry."
    ),
]
Model = Annotated[
    str, typer.Argument(help="NAME@production, NAME@sha256:..., a folder, or a name that ships.")
]
Name = Annotated[str, typer.Argument(help="The name under which it was published.")]
Channel = Annotated[str, typer.Option(help="Which use: production, staging, ...")]
Cache = Annotated[
    Path | None, typer.Option(envvar="RERANK_MODEL_CACHE", help="Where pulled models are kept.")
]
Revision = Annotated[
    str | None,
    typer.Option(envvar="RERANK_MODEL_REVISION", help="Commit of a hub model, 40 hex digits."),
]

models = typer.Typer(
    name="models",
    no_args_is_help=True,
    help="What is published, whether it is whole, and which is in use.",
)


def register(app: typer.Typer) -> None:
    """Add `gmr models`."""
    app.add_typer(models)


@models.command("list")
def list_models(registry: Registry = None) -> None:
    """List what ships, and every version in the registry with the channels it is in."""
    with _refusing():
        from model_store.checkpoint import shipped
        from model_store.registry.channels import channels
        from model_store.registry.versions import names, versions

        place = _place(registry) if registry else None
        published = names(place) if place else []
        for name in shipped():
            typer.echo(f"{name}  ships")
        for name in published:
            assert place
            used = channels(place, name)
            for version in versions(place, name):
                where = ",".join(
                    channel
                    for channel, promotion in used.items()
                    if promotion.digest == version.digest
                )
                kind = "adapter" if version.manifest.base else "checkpoint"
                typer.echo(
                    f"{name}@sha256:{version.digest[:12]}  {kind}  {version.bytes / 1e6:.1f} MB "
                    f" {where}".rstrip()
                )


@models.command()
def show(model: Model, registry: Registry = None) -> None:
    """Print a version's description, and its channels with their history."""
    import json

    with _refusing():
        from model_store.checkpoint import SHIPPED, shipped
        from model_store.manifest import read_manifest
        from model_store.registry.channels import channels, history

        folder = SHIPPED / model if model in shipped() else Path(model)
        if folder.is_dir():
            manifest = read_manifest(folder)
            typer.echo(manifest.model_dump_json(indent=2) if manifest else "{}")
            return
        place, version = _located(model, registry)
        records = {
            channel: history(place, version.name, channel)
            for channel in channels(place, version.name)
        }
        shown = {
            "digest": f"sha256:{version.digest}",
            "manifest": version.manifest.model_dump(mode="json"),
            "channels": {
                channel: [_line(record) for record in told] for channel, told in records.items()
            },
        }
        typer.echo(json.dumps(shown, indent=2))


@models.command()
def verify(model: Model, registry: Registry = None) -> None:
    """Read every file of a version and compare it with its manifest."""
    with _refusing():
        from model_store.checkpoint import SHIPPED, shipped
        from model_store.manifest import CheckpointUnusable, manifest_digest, read_manifest
        from model_store.manifest import verify as verify_folder
        from model_store.registry.versions import check

        folder = SHIPPED / model if model in shipped() else Path(model)
        if folder.is_dir():
            manifest = read_manifest(folder)
            if manifest is None:
                raise CheckpointUnusable(f"{folder.name} has no manifest.json to compare with.")
            verify_folder(folder, manifest)
            typer.echo(f"{manifest.name}@sha256:{manifest_digest(folder)} is whole.")
            return
        place, version = _located(model, registry)
        with moving(f"verifying {version.name}", version.bytes) as tell:
            check(place, version, tell)
        typer.echo(f"{version.name}@sha256:{version.digest} is whole.")


@models.command()
def pull(
    model: Model, registry: Registry = None, cache: Cache = None, revision: Revision = None
) -> None:
    """Load a version, or a hub model at a commit, verify it, and print its folder."""
    with _refusing():
        from model_store.checkpoint import resolve
        from model_store.registry.references import is_reference, kept_in
        from model_store.registry.versions import pull as load

        if not is_reference(model):
            typer.echo(resolve(model, revision=revision, cache=cache).folder)
            return
        place, version = _located(model, registry)
        with moving(f"pulling {version.name}", version.bytes) as tell:
            folder = load(place, version, kept_in(cache), tell)
        typer.echo(folder)


@models.command()
def promote(
    name: Name,
    digest: Annotated[
        str, typer.Argument(help="The digest of the version, or its first 8 digits or more.")
    ],
    *,
    channel: Channel = "production",
    evaluation: Annotated[
        Path | None, typer.Option(help="The candidate's results, as `gmr eval` writes them.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Results of the promoted version, in place of those kept.")
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Promote whatever the comparison says; the record says so."),
    ] = False,
    registry: Registry = None,
) -> None:
    """Put a version in use, unless a paired bootstrap finds it worse than the one in use."""
    with _refusing():
        from model_store.evaluation.promoting import NotPromoted, promote_checked
        from model_store.evaluation.results import ResultsUnusable

        try:
            record, verdict = promote_checked(
                _place(registry),
                name,
                digest,
                channel,
                evaluation=evaluation,
                baseline=baseline,
                force=force,
            )
        except (NotPromoted, ResultsUnusable) as held:
            fail(str(held))
        if verdict:
            typer.echo(verdict.sentence())
        typer.echo(f"{name}@{channel}: {_line(record)}")


@models.command()
def rollback(name: Name, channel: Channel = "production", registry: Registry = None) -> None:
    """Put the version before the current one in use again."""
    with _refusing():
        from model_store.registry.channels import rollback as go_back

        typer.echo(f"{name}@{channel}: {_line(go_back(_place(registry), name, channel))}")


@contextmanager
def moving(title: str, total: int, *, unit: str = "bytes") -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a line at every tenth elsewhere, both on standard error; gives what is
    told of progress."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    if console.is_terminal:
        amount = (
            (DownloadColumn(), TransferSpeedColumn())
            if unit == "bytes"
            else (MofNCompleteColumn(),)
        )
        columns = (title, BarColumn(), *amount, TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(title, total=total)
            yield lambda count: progress.advance(task, count)
        return
    moved = tenths = 0

    def tell(count: int) -> None:
        nonlocal moved, tenths
        moved += count
        while tenths < 10 and moved * 10 >= (tenths + 1) * total:
            tenths += 1
            typer.echo(f"{title}: {tenths}0 %", err=True)

    yield tell


def _place(registry: str | None) -> Storage:
    from model_store.registry.storage import place_of

    if not registry:
        misuse(
            "There is no registry: give --registry, or set RERANK_REGISTRY, to a folder or a URL."
        )
    return place_of(registry)


def _located(model: str, registry: str | None) -> tuple[Storage, Version]:
    from model_store.registry.references import locate, split
    from model_store.registry.storage import place_of

    root, name, which = split(model, registry)
    place = place_of(root)
    return place, locate(place, name, which)


def _line(record: Promotion) -> str:
    said = " (forced)" if record.forced else ""
    return (
        f"{record.number}: {record.action} sha256:{record.digest} at {record.at:%Y-%m-%d %H:%M:%S}"
        f" UTC{said}"
    )


@contextmanager
def _refusing() -> Iterator[None]:
    """What a registry refuses ends the process with its sentence."""
    from model_store.manifest import CheckpointUnusable

    try:
        yield
    except CheckpointUnusable as refusal:
        fail(str(refusal))
