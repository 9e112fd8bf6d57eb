"""Before any training the next gmr-tiny compares the weighted means of two texts' embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tokenizers import Tokenizer
from torch.nn.functional import cosine_similarity

from model_store.checkpoint import resolve
from model_store.families.gmr import DEFAULT_INSTRUCTION
from model_store.families.tokens import TOKENIZER_FILE
from model_store.networks.score_row import score_row
from model_store.recipes.tiny.packed_batches import PackedBatcher
from model_store.recipes.tiny.start.assembly import assemble
from model_store.recipes.tiny.start.meanings import Meanings, token_meanings
from model_store.recipes.tiny.start.pooling import HALF, SEMANTIC, SIZE, WEIGHT
from model_store.recipes.tiny.train import read
from model_store.synthetic.examples import Example, Side
from tests.conftest import TINY

TEXTS = [
    "the list is sorted in ascending order and the list is returned",
    "the file is closed and the file is removed from the folder",
    "a red circle and a blue square are in the picture",
    "open the folder and read the file in the order of the list",
]


def encode(words: Sequence[str]) -> npt.NDArray[np.floating]:
    """A vector for each word, which the word alone decides."""
    return np.stack(
        [np.random.default_rng(list(word.encode())).normal(size=300) + 0.5 for word in words]
    )


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(TINY / TOKENIZER_FILE))


@pytest.fixture(scope="module")
def found(tokenizer: Tokenizer) -> Meanings:
    return token_meanings(tokenizer, TEXTS, encode, width=SEMANTIC)


def test_tokens_have_meanings_of_their_words_and_weights_of_their_numbers(
    tokenizer: Tokenizer, found: Meanings
) -> None:
    assert found.vectors.shape == (tokenizer.get_vocab_size(), SEMANTIC)

    def token(text: str) -> int:
        (number,) = tokenizer.encode(text, add_special_tokens=False).ids
        return number

    def alike(one: str, other: str) -> float:
        return float(found.vectors[token(one)] @ found.vectors[token(other)])

    assert alike(" list", "list") == pytest.approx(1, abs=1e-4)
    assert abs(alike(" list", " file")) < 0.4
    assert found.log_weights[token(" the")] < found.log_weights[token(" folder")] < 0
    end = tokenizer.token_to_id("<|im_end|>")
    assert found.log_weights[end] == -10
    assert not found.vectors[end].any()


def test_an_untrained_network_scores_by_the_cosine_of_the_means(
    tokenizer: Tokenizer, found: Meanings
) -> None:
    batcher = PackedBatcher(resolve(str(TINY)).family, tokenizer)
    network = assemble(tokenizer, found, labels=batcher.label_ids, seed=0, layers=4).eval()
    rows = network.get_input_embeddings().weight.detach()

    def mean(text: str) -> torch.Tensor:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        pooled: torch.Tensor = (rows[ids, WEIGHT] / SIZE).softmax(0) @ rows[ids, :HALF]
        return pooled

    wanted: list[float] = []
    scores: list[float] = []
    texts = (*TEXTS, "closed", " ".join(TEXTS))
    sides: list[Side] = [(text,) for text in texts]
    for query in ("sorted list", "remove a file", "blue square", "read the folder"):
        for instruction in (DEFAULT_INSTRUCTION, "Find a red circle in a folder of pictures."):
            example = Example("T-T", instruction, (query,), sides, frozenset())
            batch = batcher.batch([example])
            with torch.inference_mode():
                hidden = read(network, batch, None)[batch.last].float()
                row = score_row(network, batcher.readout, batcher.label_ids)
                scores += (hidden @ row)[0].tolist()
            for text in texts:
                wanted.append(float(cosine_similarity(mean(query), mean(text), dim=0)))
    assert np.corrcoef(wanted, scores)[0, 1] > 0.99
