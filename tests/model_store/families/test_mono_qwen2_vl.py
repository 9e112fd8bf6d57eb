"""MonoQwen2-VL's prompts have the ids of its model card, and of table 12 of the paper."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.checkpoint import Checkpoint, resolve
from model_store.families.mono_qwen2_vl import MonoQwen2VL
from model_store.families.prompt import Item, Prompt
from model_store.families.readout import Transform
from model_store.families.tokens import LiteralTokenizer
from model_store.manifest import CheckpointUnusable
from tests.conftest import TINY
from tests.qwen2_vl import SIDES, MonoAuthors, as_item, picture, side, write_qwen2_vl


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen2_vl(tmp_path_factory.mktemp("hub") / "MonoQwen2-VL-v0.1")


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Checkpoint:
    return resolve(str(folder))


@pytest.fixture(scope="module")
def authors(folder: Path) -> MonoAuthors:
    return MonoAuthors(folder)


def rendered(checkpoint: Checkpoint, query: Item, document: Item) -> Prompt:
    (prompt,) = checkpoint.family.render((), query, [document])
    assert isinstance(prompt, Prompt)
    return prompt


@pytest.mark.parametrize("query", SIDES)
@pytest.mark.parametrize("document", SIDES)
def test_ids_are_those_of_the_chat_template(
    checkpoint: Checkpoint, authors: MonoAuthors, query: str, document: str
) -> None:
    sides = side(query, 1), side(document, 2)
    expected = authors.inputs(*sides)["input_ids"][0].tolist()
    prompt = rendered(checkpoint, as_item(sides[0]), as_item(sides[1]))
    assert list(prompt.ids) == expected


def test_a_page_has_the_words_of_the_model_card(checkpoint: Checkpoint) -> None:
    (words,) = LiteralTokenizer.load(TINY).encode([" image document to"])
    pages = []
    for query in SIDES:
        for document in SIDES:
            ids = rendered(checkpoint, as_item(side(query, 1)), as_item(side(document, 2))).ids
            starts = range(len(ids))
            if any(list(ids[start : start + len(words)]) == words for start in starts):
                pages.append((query, document))

    assert pages == [("text", "image")]


ordinary = st.text("ab1 .,:?\n\t\u4e2d\u00e9'", max_size=12)


@given(query=ordinary, document=ordinary)
def test_texts_are_joined_as_the_template_joins_them(
    checkpoint: Checkpoint, authors: MonoAuthors, query: str, document: str
) -> None:
    expected = authors.inputs((query,), (document,))["input_ids"][0].tolist()
    assert list(rendered(checkpoint, (query,), (document,)).ids) == expected


def test_a_long_document_is_cut_and_the_request_stays(folder: Path) -> None:
    family = MonoQwen2VL(LiteralTokenizer.load(folder), max_tokens=100)
    (prompt,) = family.render((), ("what is red?",), [("word " * 200,)])
    (whole,) = family.render((), ("what is red?",), [("word",)])

    assert isinstance(prompt, Prompt)
    assert isinstance(whole, Prompt)
    assert prompt.truncated
    assert 90 < len(prompt.ids) <= 100
    assert prompt.suffix == whole.suffix
    assert prompt.prefix.ids[-20:] == whole.prefix.ids[-20:]


def test_a_folder_is_described_without_flags(checkpoint: Checkpoint) -> None:
    family = checkpoint.family
    assert family.name == "mono-qwen2-vl"
    assert checkpoint.transform == Transform()
    assert checkpoint.readout.name == "True - False"
    assert (family.cacheable_side, family.takes_instruction) == ("document", False)
    assert family.query_side.max_images == family.document_side.max_images == 1
    assert family.images
    assert family.images.max_pixels == 12_845_056


def test_another_qwen2_vl_is_none(tmp_path: Path) -> None:
    """Plain Qwen2-VL has the same network and was trained for something else."""
    folder = write_qwen2_vl(tmp_path / "Qwen2-VL-2B-Instruct")
    with pytest.raises(CheckpointUnusable, match="RERANK_MODEL_FAMILY"):
        resolve(str(folder))
    assert resolve(str(folder), family="mono-qwen2-vl").family.name == "mono-qwen2-vl"


def test_the_wordings_are_part_of_the_fingerprint() -> None:
    class OtherWording(MonoQwen2VL):
        wordings = MonoQwen2VL.wordings | {"page": "Is this relevant? The query is:"}

    tokenizer = LiteralTokenizer.load(TINY)
    assert OtherWording(tokenizer).fingerprint != MonoQwen2VL(tokenizer).fingerprint


def test_the_image_comes_before_the_text_of_a_side(checkpoint: Checkpoint) -> None:
    image = as_item((picture(1),))
    assert rendered(checkpoint, ("q",), ("a", *image)) == rendered(
        checkpoint, ("q",), (*image, "a")
    )
