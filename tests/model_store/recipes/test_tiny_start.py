"""Before any training the next gmr-tiny compares the weighted means of two texts' embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLForConditionalGeneration

from model_store.checkpoint import resolve
from model_store.families.gmr import DEFAULT_INSTRUCTION
from model_store.families.tokens import TOKENIZER_FILE
from model_store.networks.score_row import score_row
from model_store.recipes.tiny.meanings import token_meanings
from model_store.recipes.tiny.network import configure
from model_store.recipes.tiny.packed_batches import PackedBatcher
from model_store.recipes.tiny.pooling_start import (
    AT_DOCUMENT,
    AT_QUERY,
    AT_START,
    HALF,
    SIZE,
    WEIGHT,
    begin_pooling,
    embeddings,
    mark_tokens,
)
from model_store.recipes.tiny.train import read
from model_store.synthetic.examples import Example
from tests.conftest import TINY

TEXTS = [
    "the list is sorted in ascending order and the list is returned",
    "the file is closed and the file is removed from the folder",
    "a red circle and a blue square are in the picture",
    "open the folder and read the file in the order of the list",
]


def encode(words: list[str]) -> np.ndarray:
    """A vector for each word, which the word alone decides."""
    return np.stack(
        [np.random.default_rng(list(word.encode())).normal(size=300) + 0.5 for word in words]
    )


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(TINY / TOKENIZER_FILE))


def test_tokens_have_meanings_of_their_words_and_weights_of_their_numbers(
    tokenizer: Tokenizer,
) -> None:
    found = token_meanings(tokenizer, TEXTS, encode, width=224)
    assert found.vectors.shape == (tokenizer.get_vocab_size(), 224)

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


@pytest.mark.slow
def test_an_untrained_network_scores_by_the_means(tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    config = configure(tokenizer)
    config.text_config.num_key_value_heads = 2
    network = Qwen2_5_VLForConditionalGeneration(config).eval()
    found = token_meanings(tokenizer, TEXTS, encode, width=224)
    spelling = torch.randn(len(found.vectors), 24)
    rows = embeddings(torch.tensor(found.vectors), spelling, torch.tensor(found.log_weights))
    batcher = PackedBatcher(resolve(str(TINY)).family, tokenizer)

    def first(text: str) -> int:
        return int(tokenizer.encode(text, add_special_tokens=False).ids[0])

    marks = {
        first("<Document>"): AT_DOCUMENT,
        first("<Query>"): AT_QUERY,
        first("<|im_start|>"): AT_START,
    }
    assert len(marks) == 3
    yes, no = batcher.label_ids
    mark_tokens(rows, marks, (yes, no))
    with torch.no_grad():
        network.get_input_embeddings().weight.copy_(rows)
    begin_pooling(network)

    def mean(text: str) -> torch.Tensor:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        weights = (rows[ids, WEIGHT] / SIZE).softmax(0)
        return weights @ rows[ids, :HALF]

    wanted: list[float] = []
    scores: list[float] = []
    for query in ("sorted list", "remove a file", "blue square", "read the folder"):
        sides = tuple((text,) for text in TEXTS)
        example = Example("T-T", DEFAULT_INSTRUCTION, (query,), sides, frozenset())
        batch = batcher.batch([example])
        with torch.inference_mode():
            hidden = read(network, batch, None)[batch.last].float()
            scores += (hidden @ score_row(network, batcher.readout, batcher.label_ids))[0].tolist()
        q = mean(query)
        for text in TEXTS:
            d = mean(text)
            wanted.append(float(q @ d / (q @ q + d @ d)))
    assert np.corrcoef(wanted, scores)[0, 1] > 0.8
