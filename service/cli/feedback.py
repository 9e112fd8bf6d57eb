"""`gmr feedback`: clicks and grades on an answer of a running service.

Depends on calls, not on what was ranked. Invariant: what the service refuses ends the command with
one sentence.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from model_store.commands.console import fail, misuse
from service.cli.client.options import KeyFile, Url

_MAX_INDEX = 99_999
_MAX_GRADE = 100
_MAX_EVENTS = 1_000


def feedback(
    request_id: Annotated[
        str, typer.Argument(help="The id of the answer: its X-Request-Id, its `id` in JSON.")
    ],
    *,
    clicked: Annotated[
        list[int] | None,
        typer.Option(
            min=0, max=_MAX_INDEX, metavar="INDEX", help="A result that was clicked; repeated."
        ),
    ] = None,
    grade: Annotated[
        list[str] | None,
        typer.Option(metavar="INDEX=GRADE", help="A result and its grade from 0 to 100; repeated."),
    ] = None,
    shown: Annotated[
        int | None,
        typer.Option(
            min=1, max=_MAX_INDEX + 1, help="How many of the results the user saw, from the best."
        ),
    ] = None,
    forget: Annotated[
        bool, typer.Option("--forget", help="Forget the request and all feedback on it.")
    ] = False,
    url: Url = None,
    key_file: KeyFile = None,
) -> None:
    """Tell a service which results of an answer were clicked, or how good they are.

    The service keeps feedback where its operator says so (docs/feedback.md), and `gmr data
    feedback` makes training rows of it.
    """
    events: list[dict[str, Any]] = [{"index": index, "clicked": True} for index in clicked or ()]
    events += [_graded(text) for text in grade or ()]
    if forget == bool(events or shown):
        misuse("Give --clicked, --grade or --shown, or --forget alone.")
    if len(events) > _MAX_EVENTS:
        misuse(f"There are more than {_MAX_EVENTS} events.")

    from service.cli.client.calls import CannotCall

    body: dict[str, Any] = {"request_id": request_id, "events": events}
    if shown is not None:
        body["shown"] = shown
    try:
        typer.echo(asyncio.run(_send(body, url, key_file, forget=forget)))
    except CannotCall as error:
        fail(str(error))


async def _send(body: dict[str, Any], url: Url, key_file: KeyFile, *, forget: bool) -> str:
    """Send feedback, or forget it; returns a sentence on the outcome."""
    from service.cli.client.calls import Service
    from service.cli.client.connection import connect

    async with connect(url, key_file, connections=1) as client:
        service = Service(client)
        if forget:
            await service.forget_feedback(body["request_id"])
            return f"{body['request_id']}: forgotten."
        answer = await service.send_feedback(body)
    if not answer.get("sampled", True):
        return f"{body['request_id']}: the answer is not in the service's sample: nothing is kept."
    return f"{body['request_id']}: accepted {answer['accepted']}, repeated {answer['repeated']}."


def _graded(text: str) -> dict[str, int]:
    """The event of `INDEX=GRADE`; anything else ends the command."""
    index, _, grade = text.partition("=")
    is_number = index.isdecimal() and grade.isdecimal() and len(index) <= 5 and len(grade) <= 3
    if not is_number or int(grade) > _MAX_GRADE:
        misuse(f"--grade is INDEX=GRADE with a grade from 0 to {_MAX_GRADE}, such as 1=3.")
    return {"index": int(index), "grade": int(grade)}
