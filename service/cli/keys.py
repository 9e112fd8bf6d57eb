"""`gmr keys`: create, list and revoke the API keys of a file, which a running gateway reads again.

Does not depend on a gateway. Invariant: a key is printed once, when it is created.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model_store.commands.console import fail, misuse

if TYPE_CHECKING:
    from service.gateway.admission.keys import KeyEntry

keys = typer.Typer(
    name="keys", no_args_is_help=True, help="Create, list and revoke API keys in a keys file."
)

File = Annotated[
    Path,
    typer.Option(
        help="Keys file; the gateway reads it from RERANK_API_KEYS_FILE.",
        envvar="RERANK_API_KEYS_FILE",
    ),
]


@keys.command()
def create(
    *,
    file: File,
    tenant: Annotated[
        str | None,
        typer.Option(help="Tenant of the key; the keys of a tenant share its quota and its cache."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the key, for `gmr keys revoke`.")
    ] = None,
    pairs_per_second: Annotated[
        float | None, typer.Option(help="Quota of documents per second, in each gateway.")
    ] = None,
    max_in_flight: Annotated[
        int | None, typer.Option(help="Quota of concurrent requests, in each gateway.")
    ] = None,
    models: Annotated[
        str | None, typer.Option(help="Models that the key may use, comma-separated; default: all.")
    ] = None,
) -> None:
    """Create a key, print it once, and add its hash to the file, which is created if necessary."""
    with refusing_keys():
        from service.gateway.admission.keys import change_keys, digest, new_key

        key = new_key()
        entry = _entry(
            sha256=digest(key.encode()).hex(),
            tenant=tenant,
            name=name,
            pairs_per_second=pairs_per_second,
            max_in_flight=max_in_flight,
            models=models.split(",") if models else None,
        )
        change_keys(file, lambda known: (*known, entry), create=True)
    typer.echo(key)
    typer.echo("Keep the key: it is not shown again.", err=True)


@keys.command("list")
def list_(file: File) -> None:
    """List the keys of the file: names, tenants, quotas, models, and the first digits of hashes."""
    with refusing_keys():
        from service.gateway.admission.keys import read_keys

        known = read_keys(file).keys

    for entry in known:
        columns = {
            "tenant": entry.tenant,
            "pairs/s": entry.pairs_per_second,
            "in flight": entry.max_in_flight,
            "models": ",".join(entry.models or ()) or None,
            "sha256": f"{entry.sha256[:12]}...",
        }
        line = [entry.name or "-"]
        for column, value in columns.items():
            if value is not None:
                line.append(f"{column}={value}")
        typer.echo("  ".join(line))


@keys.command()
def revoke(
    name: Annotated[
        str, typer.Argument(help="Name of the key, or the first 12 digits of its hash.")
    ],
    file: File,
) -> None:
    """Remove a key from the file."""
    with refusing_keys():
        from service.gateway.admission.keys import KeysUnusable, change_keys

        def without(known: tuple[KeyEntry, ...]) -> tuple[KeyEntry, ...]:
            kept = tuple(entry for entry in known if name not in (entry.name, entry.sha256[:12]))
            if len(kept) == len(known):
                raise KeysUnusable("There is no such key in the file.")
            return kept

        change_keys(file, without)


def _entry(**fields: object) -> KeyEntry:
    from pydantic import ValidationError

    from service.gateway.admission.keys import KeyEntry

    try:
        return KeyEntry.model_validate(fields)
    except ValidationError as error:
        wrong = str(error.errors()[0]["loc"][0]).replace("_", "-")
        misuse(
            f"--{wrong} is not valid: names have up to 64 of A-Z a-z 0-9 . _ -, quotas are above 0."
        )


@contextmanager
def refusing_keys() -> Iterator[None]:
    """End the command with one sentence if keys cannot be read or changed."""
    from service.gateway.admission.keys import KeysUnusable

    try:
        yield
    except KeysUnusable as error:
        fail(str(error))
