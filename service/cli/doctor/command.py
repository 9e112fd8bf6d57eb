"""`gmr doctor`: reads the options, and makes the checks.

Does not depend on httpx until it runs. Invariant: what is wrong with the options ends the command
before anything is sent, and a failed check makes the exit code 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model_store.commands.console import fail, refusing
from service.cli.client.options import KeyFile, Model, Url

if TYPE_CHECKING:
    from service.cli.client.run import Target
    from service.cli.doctor.golden import NamedSet
    from service.cli.doctor.report import Report

Goldens = Annotated[
    list[str] | None,
    typer.Option(
        help=(
            "Compare with a golden set of real weights (--list), or with the golden pairs of a"
            " checkpoint's folder; may be repeated."
        ),
        metavar="NAME|FOLDER",
    ),
]
Pictures = Annotated[
    Path | None,
    typer.Option(
        help="Folder with the pictures of golden sets; without it, their pairs are skipped.",
        metavar="FOLDER",
    ),
]
ListSets = Annotated[bool, typer.Option("--list", help="List the golden sets that ship, and exit.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]


def doctor(
    *,
    url: Url = None,
    model: Model = None,
    key_file: KeyFile = None,
    goldens: Goldens = None,
    pictures: Pictures = None,
    list_sets: ListSets = False,
    as_json: AsJson = False,
) -> None:
    """Check a running service: health, model, a request, and published scores of real weights."""
    from model_store.goldens.golden_set import GoldenSetUnusable

    if list_sets:
        _print_sets()
        return
    with refusing(GoldenSetUnusable):
        sets = [_opened(name, pictures) for name in goldens or ()]

    import asyncio

    from service.cli.client.calls import CannotCall
    from service.cli.client.run import Target
    from service.cli.doctor.report import print_report

    try:
        report = asyncio.run(_checked(Target(url, model, key_file), sets))
    except CannotCall as error:
        fail(str(error))
    print_report(report, as_json=as_json)


def _opened(name: str, pictures: Path | None) -> NamedSet:
    from model_store.goldens.golden_set import read_golden_set
    from service.cli.doctor.golden import NamedSet

    golden_set, folder = read_golden_set(name)
    return NamedSet(Path(name).name, golden_set, folder or pictures)


async def _checked(target: Target, sets: Sequence[NamedSet]) -> Report:
    """All checks; raises `CannotCall` where nothing answers."""
    import httpx

    from service.cli.client.calls import RetryBounds, Service
    from service.cli.client.output import waiting
    from service.cli.client.run import open_client, with_advice
    from service.cli.doctor import checks
    from service.cli.doctor.golden import compare
    from service.cli.doctor.report import Report

    async with open_client(target, 1) as (client, model):
        service = Service(client, RetryBounds(attempts=1))
        report = Report(service.url)
        with waiting(f"Asking {service.url}"):
            try:
                report.checks += await checks.health(client)
            except httpx.TransportError as error:
                raise with_advice(service.unreachable(error), target) from None

            described, info = await checks.served_model(service, client, model)
            report.checks += described
            if not info:
                return report
            report.checks.append(await checks.round_trip(service, model, info))
            engine = info.get("engine")
            dtype = str(engine.get("dtype")) if isinstance(engine, dict) else ""
            for known in sets:
                report.pairs += await compare(service, known, model, dtype)
                report.checks.append(checks.golden_set(known.name, report.pairs))
    return report


def _print_sets() -> None:
    from model_store.goldens.golden_set import golden_sets, read_golden_set

    for name in golden_sets():
        golden_set, _ = read_golden_set(name)
        pictures = sum(bool(pair.pictures()) for pair in golden_set.pairs)
        needed = f", {pictures} with pictures" if pictures else ""
        typer.echo(f"{name}  {golden_set.model}  {len(golden_set.pairs)} pairs{needed}")
