"""gmr-mini's network computes gmr-tiny's scores, and beside them compares mean meanings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.checkpoint import resolve
from model_store.families.gmr import DEFAULT_INSTRUCTION
from model_store.families.tokens import TOKENIZER_FILE
from model_store.recipes.mini.dimensions import WIDTH
from model_store.recipes.mini.lengths import measure_lengths
from model_store.recipes.mini.network import Lengths, PictureMeanings, widen
from model_store.recipes.mini.texts.meanings import Meanings, token_meanings
from model_store.recipes.tiny.packed_batches import PackedBatcher
from model_store.recipes.tiny.publish import write_weights
from model_store.recipes.tiny.scoring import network_scores
from model_store.synthetic import cells
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
    return token_meanings(tokenizer, TEXTS, encode, width=WIDTH)


def test_tokens_have_meanings_of_their_words_and_weights_of_their_numbers(
    tokenizer: Tokenizer, found: Meanings
) -> None:
    assert found.vectors.shape == (tokenizer.get_vocab_size(), WIDTH)

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


@pytest.fixture(scope="module")
def lengths(tokenizer: Tokenizer) -> Lengths:
    return measure_lengths(TINY, tokenizer, [*zip(TEXTS, TEXTS[::-1], strict=True)] * 3)


def no_pictures() -> PictureMeanings:
    return PictureMeanings(torch.zeros(WIDTH, 512), torch.zeros(WIDTH), -3.0, 1.0)


def example(query: Side, documents: list[Side], cell: str = "T-T", ask: str = "") -> Example:
    return Example(cell, ask or DEFAULT_INSTRUCTION, query, documents, frozenset())


def scores(network: Network, tokenizer: Tokenizer, examples: list[Example]) -> list[list[float]]:
    batcher = PackedBatcher(resolve(str(TINY)).family, tokenizer, signs=False)
    return network_scores(network, batcher)(examples)


def test_without_its_part_the_scores_are_gmr_tinys(
    tokenizer: Tokenizer, found: Meanings, lengths: Lengths
) -> None:
    """Texts and pictures, on either side."""
    tiny = Network.from_pretrained(TINY, dtype=torch.float32).eval()
    wide = widen(TINY, tokenizer, found, lengths=lengths, pictures=no_pictures(), gain=0.0)
    rng = Random(1)
    for cell in ("T-T", "T-I", "I-T", "IT-IT", "T-VD"):
        examples = [cells.sample(cell, rng, "heldout", 5) for _ in range(2)]
        wanted = np.array(scores(tiny, tokenizer, examples))
        given = np.array(scores(wide, tokenizer, examples))
        assert np.abs(given - wanted).max() < 1.0, cell
        assert np.corrcoef(given.ravel(), wanted.ravel())[0, 1] > 0.99, cell


def test_its_part_of_a_score_is_decided_by_the_cosine_of_the_means(
    tokenizer: Tokenizer, found: Meanings, lengths: Lengths
) -> None:
    wide = widen(TINY, tokenizer, found, lengths=lengths, pictures=no_pictures(), gain=1000.0)

    def mean(text: str) -> npt.NDArray[np.floating]:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        return np.asarray(np.exp(found.log_weights[ids]) @ found.vectors[ids])

    def cosine(one: str, other: str) -> float:
        first, second = mean(one), mean(other)
        return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))

    wanted: list[float] = []
    given: list[float] = []
    texts = (*TEXTS, "closed", " ".join(TEXTS))
    for query in ("sorted list", "remove a file", "blue square", "read the folder"):
        for ask in ("", "Find a red circle in a folder of pictures.", "Which page is it?"):
            asked = example((query,), [(text,) for text in texts], ask=ask)
            given += scores(wide, tokenizer, [asked])[0]
            wanted += [cosine(query, text) for text in texts]
    assert np.corrcoef(wanted, given)[0, 1] > 0.95


def test_a_side_without_meaning_is_like_nothing(
    tokenizer: Tokenizer, found: Meanings, lengths: Lengths
) -> None:
    """An empty document, and a blank one, score as an unrelated one does, not as an equal."""
    wide = widen(TINY, tokenizer, found, lengths=lengths, pictures=no_pictures(), gain=1000.0)
    documents: list[Side] = [("sorted list",), ("",), ("\n",)]
    equal, empty, blank = scores(wide, tokenizer, [example(("sorted list",), documents)])[0]
    assert equal > max(empty, blank) + 100
    assert abs(empty - blank) < 100


def test_the_network_is_saved_and_read_again_in_bf16(
    tokenizer: Tokenizer, found: Meanings, lengths: Lengths, tmp_path: Path
) -> None:
    wide = widen(TINY, tokenizer, found, lengths=lengths, pictures=no_pictures())
    asked = [example(("sorted list",), [(text,) for text in TEXTS])]
    before = np.array(scores(wide, tokenizer, asked))
    write_weights(wide, tokenizer, tmp_path)
    read = Network.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert np.abs(np.array(scores(read, tokenizer, asked)) - before).max() < 0.5
