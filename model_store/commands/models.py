"""`gmr models`: the versions in a registry, their files, and the version in use in each channel.

Does not depend on how a registry stores them; each command imports what it needs when it runs.
Invariant: exit codes as in `console`; a promotion that the gate refuses exits with 1.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model_store.commands.console import misuse, progress, refusing
from model_store.commands.inspect import inspect
from model_store.commands.options import Cache, Family, Model, Registry, Revision

if TYPE_CHECKING:
    from model_store.registry.channels import Promotion
    from model_store.registry.storage import Storage
    from model_store.registry.versions import Version

Name = Annotated[str, typer.Argument(help="The model's name in the registry.")]
Channel = Annotated[str, typer.Option(help="Channel, such as production or staging.")]

models = typer.Typer(
    name="models",
    no_args_is_help=True,
    help="Describe models; list, verify, pull, promote and roll back published ones.",
)
models.command("inspect")(inspect)


def register(app: typer.Typer) -> None:
    """Add `gmr models`."""
    app.add_typer(models)


@models.command("list")
def list_models(registry: Registry = None) -> None:
    """List the models that ship, and every version in the registry with its channels."""
    from model_store.checkpoint import shipped
    from model_store.manifest import CheckpointUnusable
    from model_store.registry.channels import channels
    from model_store.registry.versions import names, versions

    with refusing(CheckpointUnusable):
        storage = _storage(registry) if registry else None
        published = names(storage) if storage else []

        for name in shipped():
            typer.echo(f"{name}  ships")
        for name in published:
            assert storage
            promotions = channels(storage, name)
            for version in versions(storage, name):
                typer.echo(_version_line(version, promotions))


@models.command()
def show(model: Model, registry: Registry = None) -> None:
    """Print a version's manifest, and its channels with their history."""
    from model_store.manifest import CheckpointUnusable, read_manifest
    from model_store.registry.channels import channels, history

    with refusing(CheckpointUnusable):
        folder = _local_folder(model)
        if folder is not None:
            manifest = read_manifest(folder)
            typer.echo(manifest.model_dump_json(indent=2) if manifest else "{}")
            return

        storage, version = _find(model, registry)
        histories = {}
        for channel in channels(storage, version.name):
            records = history(storage, version.name, channel)
            histories[channel] = [_promotion_line(record) for record in records]
        shown = {
            "digest": f"sha256:{version.digest}",
            "manifest": version.manifest.model_dump(mode="json"),
            "channels": histories,
        }
        typer.echo(json.dumps(shown, indent=2))


@models.command()
def verify(model: Model, registry: Registry = None) -> None:
    """Read every file of a version and compare it with the manifest."""
    from model_store.manifest import CheckpointUnusable, manifest_digest, read_manifest
    from model_store.manifest import verify as verify_folder
    from model_store.registry.versions import check

    with refusing(CheckpointUnusable):
        folder = _local_folder(model)
        if folder is not None:
            manifest = read_manifest(folder)
            if manifest is None:
                raise CheckpointUnusable(f"{folder.name} has no manifest.json to compare with.")
            verify_folder(folder, manifest)
            typer.echo(f"{manifest.name}@sha256:{manifest_digest(folder)} is whole.")
            return

        storage, version = _find(model, registry)
        with progress(f"verifying {version.name}", version.bytes, unit="bytes") as advance:
            check(storage, version, advance)
        typer.echo(f"{version.name}@sha256:{version.digest} is whole.")


@models.command()
def pull(
    model: Annotated[
        str, typer.Argument(help="NAME@production, NAME@sha256:..., or the id of a hub model.")
    ],
    registry: Registry = None,
    cache: Cache = None,
    revision: Revision = None,
    family: Family = None,
) -> None:
    """Download a version, or a hub model at a commit, verify it, and print its folder."""
    from model_store.checkpoint import resolve
    from model_store.manifest import CheckpointUnusable
    from model_store.registry.references import cache_folder, is_reference
    from model_store.registry.versions import pull as pull_version

    with refusing(CheckpointUnusable):
        if not is_reference(model):
            typer.echo(resolve(model, revision=revision, cache=cache, family=family).folder)
            return

        storage, version = _find(model, registry)
        with progress(f"pulling {version.name}", version.bytes, unit="bytes") as advance:
            folder = pull_version(storage, version, cache_folder(cache), advance)
        typer.echo(folder)


@models.command()
def promote(
    name: Name,
    digest: Annotated[
        str, typer.Argument(help="Digest of the version, or its first 8 digits or more.")
    ],
    *,
    channel: Channel = "production",
    evaluation: Annotated[
        Path | None, typer.Option(help="Results of the version, as `gmr eval` writes them.")
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(help="Results of the version in use; default: those it was promoted with."),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Promote whatever the comparison gives, and record that."),
    ] = False,
    registry: Registry = None,
) -> None:
    """Put a version in use, unless a paired bootstrap finds it worse than the one in use."""
    from model_store.evaluation.promoting import NotPromoted, promote_checked
    from model_store.evaluation.results import ResultsUnusable
    from model_store.manifest import CheckpointUnusable

    with refusing(CheckpointUnusable, NotPromoted, ResultsUnusable):
        record, verdict = promote_checked(
            _storage(registry),
            name,
            digest,
            channel,
            evaluation=evaluation,
            baseline=baseline,
            force=force,
        )
        if verdict:
            typer.echo(verdict.sentence())
        typer.echo(f"{name}@{channel}: {_promotion_line(record)}")


@models.command()
def rollback(name: Name, channel: Channel = "production", registry: Registry = None) -> None:
    """Put the version before the current one in use again."""
    from model_store.manifest import CheckpointUnusable
    from model_store.registry.channels import rollback as roll_back

    with refusing(CheckpointUnusable):
        record = roll_back(_storage(registry), name, channel)
        typer.echo(f"{name}@{channel}: {_promotion_line(record)}")


def _storage(registry: str | None) -> Storage:
    from model_store.registry.storage import open_storage

    if not registry:
        misuse(
            "There is no registry: give --registry, or set RERANK_REGISTRY, to a folder or a URL."
        )
    return open_storage(registry)


def _local_folder(model: str) -> Path | None:
    """The folder of a model that needs no registry: one that ships, or a path."""
    from model_store.checkpoint import SHIPPED, shipped

    folder = SHIPPED / model if model in shipped() else Path(model)
    return folder if folder.is_dir() else None


def _find(model: str, registry: str | None) -> tuple[Storage, Version]:
    from model_store.registry.references import find_version, parse_reference
    from model_store.registry.storage import open_storage

    reference = parse_reference(model, registry)
    storage = open_storage(reference.registry)
    return storage, find_version(storage, reference.name, reference.version)


def _version_line(version: Version, promotions: dict[str, Promotion]) -> str:
    used_in = [
        channel for channel, promotion in promotions.items() if promotion.digest == version.digest
    ]
    kind = version.manifest.kind
    megabytes = f"{version.bytes / 1e6:.1f} MB"
    columns = (f"{version.name}@sha256:{version.digest[:12]}", kind, megabytes, ",".join(used_in))
    return "  ".join(columns).rstrip()


def _promotion_line(record: Promotion) -> str:
    forced = " (forced)" if record.forced else ""
    return (
        f"{record.number}: {record.action} sha256:{record.digest} at {record.at:%Y-%m-%d %H:%M:%S}"
        f" UTC{forced}"
    )
