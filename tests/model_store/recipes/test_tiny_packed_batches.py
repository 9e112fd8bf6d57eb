"""A batch's rows are what the family renders, and each document is read as if it stood alone."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch
from PIL import Image as Pil
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.checkpoint import resolve
from model_store.families.gmr import Gmr
from model_store.families.prompt import Image, Item, Prompt, Segment
from model_store.families.tokens import TOKENIZER_FILE, LiteralTokenizer
from model_store.golden import GoldenPair, Pixels
from model_store.networks.qwen2_5_vl_images import patches, positions
from model_store.networks.score_row import score_row
from model_store.recipes.tiny.packed_batches import PackedBatch, PackedBatcher
from model_store.recipes.tiny.train import pictures_of, read
from model_store.synthetic import cells
from model_store.synthetic.examples import Example, Side
from model_store.synthetic.pictures import fitted
from model_store.training.publish.pairs import logits_of
from tests.conftest import TINY

pytestmark = pytest.mark.slow

NEGATIVES = 3


@pytest.fixture(scope="module", params=["code", "document-first"])
def template(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def family(template: str) -> Gmr:
    return Gmr(LiteralTokenizer.load(TINY), template=template)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(TINY / TOKENIZER_FILE))


@pytest.fixture(scope="module")
def batcher(family: Gmr, tokenizer: Tokenizer) -> PackedBatcher:
    return PackedBatcher(family, tokenizer)


@pytest.fixture(scope="module")
def query_first() -> PackedBatcher:
    tokenizer = Tokenizer.from_file(str(TINY / TOKENIZER_FILE))
    return PackedBatcher(Gmr(LiteralTokenizer.load(TINY)), tokenizer)


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    """One of each cell."""
    return [cells.sample(cell, Random(f"{cell}/1"), "train", NEGATIVES) for cell in cells.CELLS]


@pytest.fixture(scope="module")
def batch(batcher: PackedBatcher, examples: list[Example]) -> PackedBatch:
    return batcher.batch(examples)


def pictures_in(example: Example, template: str) -> list[Pil.Image]:
    """Pictures in the order of a row; the query's once, or after those of each document."""
    sides = [example.query, *example.documents]
    if template == "document-first":
        sides = [side for document in example.documents for side in (document, example.query)]
    return [part for side in sides for part in side if not isinstance(part, str)]


def as_item(side: Side) -> Item:
    sized = [part if isinstance(part, str) else fitted(part).shape for part in side]
    return tuple(part if isinstance(part, str) else Image(b"", part[1], part[0]) for part in sized)


def rendered(family: Gmr, example: Example) -> list[Prompt]:
    prompts = family.render(
        (example.instruction,),
        as_item(example.query),
        [as_item(side) for side in example.documents],
    )
    return [prompt for prompt in prompts if isinstance(prompt, Prompt)]


def readable(batch: PackedBatch, row: int, document: int) -> torch.Tensor:
    """Places of a row that hold the prefix or the given document."""
    return torch.nonzero((batch.owner[row] == 0) | (batch.owner[row] == document)).flatten()


def test_prefix_and_document_are_the_rendered_prompt(
    batch: PackedBatch, examples: list[Example], family: Gmr
) -> None:
    for row, example in enumerate(examples):
        prompts = rendered(family, example)
        assert len(prompts) == NEGATIVES + 1
        for document, prompt in enumerate(prompts, start=1):
            places = readable(batch, row, document)
            assert batch.ids[row, places].tolist() == list(prompt.ids)
            expected, _ = positions(Segment(prompt.ids, prompt.images), family.image_token_id)
            assert batch.positions[:, row, places].tolist() == expected.tolist()


def test_a_document_sees_what_is_before_it_in_its_own_prompt(batch: PackedBatch) -> None:
    mask = batch.mask()[:, 0]
    for row, owner in enumerate(batch.owner):
        for place in torch.nonzero(owner >= 0).flatten().tolist():
            mine = (
                readable(batch, row, int(owner[place]))
                if owner[place]
                else torch.nonzero(owner == 0).flatten()
            )
            assert (
                torch.nonzero(mask[row, place]).flatten().tolist() == mine[mine <= place].tolist()
            )


def test_padding_sees_something_and_is_seen_by_nothing(batch: PackedBatch) -> None:
    padded = batch.owner == -1
    assert padded.any()
    mask = batch.mask()[:, 0]
    assert mask.any(-1).all()
    assert not (mask & ~padded[:, :, None] & padded[:, None, :]).any()


def test_the_answer_is_read_at_the_end_of_each_document(batch: PackedBatch) -> None:
    tokens = batch.ids.shape[1]
    for row, lasts in enumerate(batch.last.tolist()):
        assert lasts == [
            row * tokens + int(readable(batch, row, document)[-1])
            for document in range(1, NEGATIVES + 2)
        ]


def test_patches_are_those_of_all_pictures_in_order(
    batch: PackedBatch, examples: list[Example], template: str
) -> None:
    shown = [fitted(picture) for example in examples for picture in pictures_in(example, template)]
    assert batch.pixels is not None
    assert batch.grids is not None
    assert np.array_equal(
        batch.pixels.numpy(), np.concatenate([patches(picture) for picture in shown])
    )
    assert batch.grids.tolist() == [
        [1, picture.shape[0] // 14, picture.shape[1] // 14] for picture in shown
    ]


def test_every_sign_stands_in_a_pair_once(batch: PackedBatch) -> None:
    owners = batch.owner.flatten()[batch.signs]
    assert len(batch.signs) == len(batch.truths) > 0
    assert (owners >= 1).all()
    assert len(set(batch.signs.tolist())) == len(batch.signs)
    assert set(batch.truths.tolist()) == {0.0, 1.0}


def test_a_pictures_sign_says_whether_it_shows_what_the_relevant_one_shows(
    query_first: PackedBatcher, examples: list[Example], tokenizer: Tokenizer
) -> None:
    batch = query_first.batch(examples)
    end = tokenizer.token_to_id("<|vision_end|>")
    truth = dict(zip(batch.signs.tolist(), batch.truths.tolist(), strict=True))
    tokens = batch.ids.shape[1]
    for row, example in enumerate(examples):
        ends = torch.nonzero((batch.ids[row] == end) & (batch.owner[row] >= 1)).flatten().tolist()
        shown = [
            part.info["words"]
            for side in example.documents
            for part in side
            if not isinstance(part, str)
        ]
        assert [truth[row * tokens + place] for place in ends] == [
            float(words == shown[0]) for words in shown
        ]


def last_words(batch: PackedBatch, tokenizer: Tokenizer) -> list[str]:
    """The last word, in lower case, of what stands up to each sign of a batch of one row."""
    texts = [tokenizer.decode(batch.ids[0, : place + 1].tolist()) for place in batch.signs.tolist()]
    return [text.split()[-1].split(":")[-1].lower() for text in texts]


def test_a_words_sign_says_whether_the_query_says_it(
    query_first: PackedBatcher, tokenizer: Tokenizer
) -> None:
    example = Example(
        "T-T",
        "i",
        ("two red circles",),
        [("A RED circle.",), ("three blue circles, sorted",)],
        frozenset({"red", "circles"}),
    )
    batch = query_first.batch([example])
    assert last_words(batch, tokenizer) == [
        "a",
        "red",
        "circle",
        "three",
        "blue",
        "circles",
        "sorted",
    ]
    assert batch.truths.tolist() == [0, 1, 0, 0, 0, 1, 0]


def document_first(tokenizer: Tokenizer) -> PackedBatcher:
    return PackedBatcher(Gmr(LiteralTokenizer.load(TINY), template="document-first"), tokenizer)


def test_a_words_sign_says_whether_the_document_says_it_where_that_is_first(
    tokenizer: Tokenizer,
) -> None:
    example = Example(
        "T-T", "find it", ("two red circles",), [("A RED circle.",), ("three rings",)], frozenset()
    )
    batch = document_first(tokenizer).batch([example])
    assert last_words(batch, tokenizer) == ["two", "red", "circles"] * 2
    assert batch.truths.tolist() == [0, 1, 1, 0, 0, 0]
    assert batch.owner[0, batch.signs].tolist() == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("cell", ["I-I", "IT-I", "I-T", "T-I"])
def test_where_a_picture_takes_part_a_sign_at_the_end_tells_the_relevant_document(
    tokenizer: Tokenizer, cell: str
) -> None:
    batch = document_first(tokenizer).batch([cells.sample(cell, Random(5), "train", NEGATIVES)])
    truth = dict(zip(batch.signs.tolist(), batch.truths.tolist(), strict=True))
    ends = torch.nonzero(batch.ids[0] == tokenizer.token_to_id("<|im_end|>")).flatten().tolist()
    assert [truth[place] for place in ends if place in truth] == [1.0] + [0.0] * NEGATIVES
    assert not truth.keys() & set(batch.last[0].tolist())


def test_texts_alone_make_a_batch_without_pixels(batcher: PackedBatcher) -> None:
    batch = batcher.batch([cells.sample("T-T", Random(1), "heldout", 2)])
    assert batch.pixels is None
    assert batch.grids is None


def test_word_ids_are_those_inside_a_sentence(batcher: PackedBatcher, tokenizer: Tokenizer) -> None:
    expected = sorted(
        {
            token
            for word in ("red", "circle")
            for token in tokenizer.encode(f" {word}", add_special_tokens=False).ids
        }
    )
    assert (
        batcher.word_ids(["red", "circle"]) == batcher.word_ids({"circle": 1, "red": 2}) == expected
    )


def test_a_batch_scores_each_pair_as_a_plain_loop_does(
    batcher: PackedBatcher, template: str
) -> None:
    checkpoint = resolve("gmr-tiny").with_template(template)
    network = Network.from_pretrained(TINY, dtype=torch.float32).eval()
    examples = [cells.sample(cell, Random(3), "heldout", 1) for cell in ("T-T", "IT-IT", "I-T")]
    with torch.inference_mode():
        batch = batcher.batch(examples)
        logits = read(network, batch, pictures_of(network, batch))[batch.last] @ score_row(
            network, batcher.readout, batcher.label_ids
        )
    for example, found in zip(examples, logits.tolist(), strict=True):
        query, *documents = (
            tuple(as_pixels(part) for part in side) for side in (example.query, *example.documents)
        )
        pairs = [
            GoldenPair(example.cell, example.instruction, query, document, 0.0)
            for document in documents
        ]
        assert found == pytest.approx(logits_of(network, checkpoint, pairs), abs=1e-4)


def as_pixels(part: str | Pil.Image) -> str | Pixels:
    return part if isinstance(part, str) else fitted(part)
