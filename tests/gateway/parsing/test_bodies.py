"""Large bodies are parsed one at a time, and do not block the event loop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.errors import InvalidRequest
from service.gateway.parsing.bodies import LARGE_BYTES, BodyParser
from service.limits import Limits
from tests.promises.worst_bodies.shapes import SHAPES

READ = frozenset(["query", "documents", "on_error"])


def whole(body: dict[str, Any], limits: Limits) -> dict[str, Any]:
    return body


async def turns_while(parser: BodyParser, body: bytearray) -> int:
    """The number of turns of the event loop while a body was parsed."""
    turns, done = 0, False

    async def count() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await asyncio.sleep(0.001)

    counting = asyncio.create_task(count())
    await asyncio.sleep(0)
    await parser.build(await parser.outline(body, READ), whole)
    done = True
    await counting
    return turns


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape", ["documents of 64 KiB", "wide documents", "escaped documents", "many parts"]
)
async def test_the_event_loop_goes_on_while_the_dearest_bodies_are_read(shape: str) -> None:
    """A parser that holds the interpreter for all of a body lets it come round twice: before, and
    after."""
    assert await turns_while(BodyParser(Limits()), bytearray(SHAPES[shape]())) >= 5


async def test_large_bodies_are_read_one_at_a_time_and_small_ones_beside_them() -> None:
    parser = BodyParser(Limits())
    inside: list[str] = []

    async def read(name: str, size: int) -> None:
        async with parser.turn(size):
            inside.append(name)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            inside.append(name)

    await asyncio.gather(
        read("a", LARGE_BYTES + 1), read("b", LARGE_BYTES + 1), read("small", LARGE_BYTES)
    )

    assert [name for name in inside if name != "small"] == ["a", "a", "b", "b"]
    assert inside.index("small") < inside.index("b")


async def test_too_many_documents_are_refused_by_name() -> None:
    parser = BodyParser(Limits(max_documents=5))
    with pytest.raises(InvalidRequest) as caught:
        await parser.outline(bytearray(b'{"documents":[0,1,2,3,4,5]}'), READ)

    assert caught.value.message == "A request takes 1 to 5 documents."
    assert caught.value.problems[0].loc == ("documents",)

    ignored = await parser.outline(bytearray(b'{"documents":[0],"stop":[0,1,2,3,4,5]}'), READ)
    assert ignored.build() == {"documents": [0], "stop": [0, 1, 2, 3, 4, 5]}
