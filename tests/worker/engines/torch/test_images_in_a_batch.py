"""On a CPU an image's embedding is the same to the last bit, whatever is encoded with it."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
import torch

from model_store.checkpoint import resolve
from service.wire import Pixels
from service.worker.engines.torch.network import Network, open_network
from tests.conftest import TINY

CELL = 28


@pytest.fixture(scope="module", params=[1, 2], ids=["one thread", "two threads"])
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield open_network(resolve(str(TINY)), torch.device("cpu"), torch.float32)
    torch.set_num_threads(before)


def image(rng: Random) -> Pixels:
    """An image of any number of cells, odd ones included."""
    width, height = CELL * rng.randint(2, 8), CELL * rng.randint(1, 8)
    return Pixels(rng.randbytes(32), width, height, rng.randbytes(3 * width * height))


def test_an_embedding_is_the_same_in_every_company(network: Network) -> None:
    rng = Random(7)
    images = [image(rng) for _ in range(12)]
    alone = [network.encode([one])[0] for one in images]

    for _ in range(8):
        chosen = rng.sample(range(len(images)), rng.randint(2, 6))
        together = network.encode([images[index] for index in chosen])
        for index, embedding in zip(chosen, together, strict=True):
            assert torch.equal(embedding, alone[index])
