"""An image is encoded once for all calls and documents; its digest and size identify it."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from msgspec import structs

from model_store.synthetic.examples import Side
from service.wire import Pixels, ScoreCall
from service.worker.engines.torch.engine import TorchEngine
from tests.worker.calls import as_call, pictures
from tests.worker.engines.vllm.agreement import agree, drift
from tests.worker.engines.vllm.engine_worker import EngineWorker

pytestmark = pytest.mark.slow


def blacked_out(call: ScoreCall) -> ScoreCall:
    """The same call with black pictures under the old names: what is answered rightly was not
    encoded again."""
    return structs.replace(
        call, images=[structs.replace(image, rgb=bytes(len(image.rgb))) for image in call.images]
    )


def call(seed: str, count: int = 20) -> ScoreCall:
    shown = pictures(count, seed)
    return as_call("find", ("two red circles", shown[0][0]), shown)


async def test_a_picture_that_was_seen_is_not_encoded_again(
    cached: EngineWorker, oracle: TorchEngine
) -> None:
    """Other salts make sure that it is the embeddings that are kept, not a prompt's states."""
    asked = structs.replace(call("seen"), cache_salt="first")
    first = await cached.ask(asked)
    assert await agree(cached, oracle, asked)

    for salt, documents in (("second", asked.documents), ("third", asked.documents[::-1])):
        again = await cached.ask(
            structs.replace(blacked_out(asked), cache_salt=salt, documents=documents)
        )
        assert drift(again, first if documents == asked.documents else first[::-1]) < 1e-5

    as_query = structs.replace(
        blacked_out(asked), query=[3], documents=[[4, "and", 5], ["text"]], cache_salt="fourth"
    )
    wanted = structs.replace(
        asked, query=[3], documents=[[4, "and", 5], ["text"]], cache_salt="fifth"
    )
    found = await cached.ask(as_query)

    assert drift(found, await cached.ask(wanted)) < 1e-5


async def test_a_picture_is_what_its_pixels_show(cached: EngineWorker) -> None:
    """Under names of their own black pictures give other scores: so the test above can fail."""
    asked = call("black")
    renamed = [
        structs.replace(image, digest=hashlib.sha256(image.digest).digest())
        for image in blacked_out(asked).images
    ]
    assert (
        drift(await cached.ask(asked), await cached.ask(structs.replace(asked, images=renamed)))
        > 0.1
    )


async def test_calls_at_once_share_pictures(cached: EngineWorker, oracle: TorchEngine) -> None:
    asked = call("at once")
    found = await asyncio.gather(
        *(cached.ask(structs.replace(asked, cache_salt=str(number))) for number in range(6))
    )
    assert await agree(cached, oracle, asked)
    assert all(drift(pairs, found[0]) < 1e-5 for pairs in found)


async def test_pictures_that_push_each_other_out(
    chunked: EngineWorker, oracle: TorchEngine
) -> None:
    """The cache has room for an image or two: several calls fight for it, each with prompts of
    several images."""
    shown = [side[0] for side in pictures(9, "pushed out")]
    calls = []
    for turn in range(6):
        documents: list[Side] = [
            (shown[index % 9], "and", shown[(index + turn) % 9], shown[(index * turn) % 9])
            for index in range(9)
        ]
        calls.append(as_call("find", (shown[turn], "like this"), documents))

    assert all(await asyncio.gather(*(agree(chunked, oracle, asked) for asked in calls)))


async def test_pictures_of_one_name_and_two_sizes_are_two(
    worker: EngineWorker, oracle: TorchEngine
) -> None:
    """No gateway sends such a call; but a wrong one must not bring the engine down."""
    asked = call("names", 2)
    small = Pixels(asked.images[0].digest, 56, 56, bytes(range(256)) * 36 + bytes(192))
    assert (asked.images[0].width, asked.images[0].height) != (56, 56)

    mixed = structs.replace(
        asked, images=[asked.images[0], small], documents=[[0], [1], [1, 0], ["text"]]
    )
    found = await worker.ask(mixed)
    renamed = structs.replace(
        mixed, images=[asked.images[0], structs.replace(small, digest=b"another")]
    )

    assert drift(found, await worker.ask(renamed)) < 1e-5
    assert await agree(worker, oracle, renamed)
