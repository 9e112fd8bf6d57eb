"""`gmr keys`: make, list and revoke API keys in a file. A running gateway reads it again by itself.

Invariant: a key is printed once, when it is made, and never again.
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
    name="keys", no_args_is_help=True, help="Make, list and revoke the API keys of a keys file."
)

File = Annotated[
    Path,
    typer.Option(help="The keys file, as in RERANK_API_KEYS_FILE.", envvar="RERANK_API_KEYS_FILE"),
]


@keys.command()
def create(
    *,
    file: File,
    tenant: Annotated[
        str | None, typer.Option(help="Whose it is; a tenant's keys share its quota and its cache.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What it is called, for `gmr keys revoke`.")
    ] = None,
    pairs_per_second: Annotated[
        float | None, typer.Option(help="Documents a second, each gateway counting for itself.")
    ] = None,
    max_in_flight: Annotated[
        int | None, typer.Option(help="Requests at once, each gateway counting for itself.")
    ] = None,
    models: Annotated[
        str | None, typer.Option(help="Models that it may use, comma-separated; default: all.")
    ] = None,
) -> None:
    """Make a key, print it once, and add its hash to the file, which need not exist yet."""
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
    typer.echo("This is the only time that the key is shown.", err=True)


@keys.command("list")
def list_(file: File) -> None:
    """Show the keys of the file: names, tenants, quotas and models, and how each hash begins."""
    with refusing_keys():
        from service.gateway.admission.keys import read_keys

        known = read_keys(file).keys
    for each in known:
        words = {
            "tenant": each.tenant,
            "pairs/s": each.pairs_per_second,
            "in flight": each.max_in_flight,
            "models": ",".join(each.models or ()) or None,
            "sha256": f"{each.sha256[:12]}...",
        }
        typer.echo(
            "  ".join(
                [
                    each.name or "-",
                    *(f"{what}={value}" for what, value in words.items() if value is not None),
                ]
            )
        )


@keys.command()
def revoke(
    name: Annotated[str, typer.Argument(help="The key's name, or how its hash begins: 12 digits.")],
    file: File,
) -> None:
    """Take a key out of the file."""
    with refusing_keys():
        from service.gateway.admission.keys import KeysUnusable, change_keys

        def without(known: tuple[KeyEntry, ...]) -> tuple[KeyEntry, ...]:
            kept = tuple(each for each in known if name not in (each.name, each.sha256[:12]))
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
    """Keys that cannot be read or changed end the process with a sentence."""
    from service.gateway.admission.keys import KeysUnusable

    try:
        yield
    except KeysUnusable as error:
        fail(str(error))
