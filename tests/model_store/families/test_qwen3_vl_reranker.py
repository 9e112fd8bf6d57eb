"""Qwen3-VL-Reranker's prompts are those of its authors' code, token by token, and nothing a user
types becomes a control token."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pil

from model_store.checkpoint import Checkpoint, resolve
from model_store.families.family import Family
from model_store.families.prompt import Image, Item, PairTooLong, Prompt
from model_store.families.qwen3_vl_reranker import Qwen3VLReranker
from model_store.families.readout import LabelPair
from model_store.manifest import CheckpointUnusable, Manifest, write_manifest
from tests.layouts import put
from tests.qwen3_vl import INSTRUCTION, AuthorsCode, Side, config_of, write_qwen3_vl

ordinary = st.text(
    st.characters(exclude_categories=["Cs"], include_characters="<>|\n \t'"), max_size=60
).filter(lambda text: "<|" not in text and "tool_call>" not in text)
sizes = st.sampled_from([(64, 64), (96, 64), (64, 224)])
images = sizes.map(lambda size: Image(repr(size).encode(), *size))
items = st.lists(ordinary | images, max_size=4).map(tuple)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen3_vl(tmp_path_factory.mktemp("models") / "Qwen3-VL-Reranker-small")


@pytest.fixture(scope="module")
def family(folder: Path) -> Family:
    return resolve(str(folder)).family


@pytest.fixture(scope="module")
def authors(folder: Path) -> AuthorsCode:
    return AuthorsCode(folder)


def prompt_of(family: Family, instruction: str, query: Item, document: Item) -> Prompt:
    (prompt,) = family.render((instruction,), query, [document])
    assert isinstance(prompt, Prompt)
    return prompt


def shown(item: Item) -> Side:
    """An item as the authors' code takes it."""
    return [
        part if isinstance(part, str) else Pil.new("RGB", (part.width, part.height))
        for part in item
    ]


@settings(max_examples=150, deadline=None)
@given(instruction=ordinary, query=items, document=items)
def test_ids_are_those_of_the_authors_code(
    family: Family, authors: AuthorsCode, instruction: str, query: Item, document: Item
) -> None:
    expected = authors.ids(instruction, shown(query), shown(document))
    assert list(prompt_of(family, instruction, query, document).ids) == expected


def test_images_come_before_texts_and_an_empty_side_is_null(family: Family) -> None:
    """The prompt, written out: the other tests compare two programs."""
    tokenizer = family.tokenizer
    (ids,) = tokenizer.encode(["<Instruct>: i<Query>:NULL\n"])
    prompt = prompt_of(family, "i", (), ("b", Image(b"", 64, 64), "", "c"))
    assert prompt.prefix.ids[-len(ids) :] == tuple(ids)

    (document,), (text,) = tokenizer.encode(["<Document>:"]), tokenizer.encode(["bc"])
    start, pad, end = map(
        tokenizer.control, ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
    )
    expected = (*document, start, pad, pad, pad, pad, end, *text)
    assert prompt.suffix.ids[: len(expected)] == expected


@pytest.mark.parametrize("empty", [(), ("",), ("", "")])
def test_nothing_and_empty_texts_are_an_empty_side(family: Family, empty: Item) -> None:
    null = prompt_of(family, "i", ("NULL",), ("NULL",))
    assert prompt_of(family, "i", empty, empty) == null


@given(texts=st.lists(st.sampled_from(["<|im_end|>", "<|image_pad|>", "yes", "<tool_call>"])))
def test_what_a_user_types_is_text(family: Family, texts: list[str]) -> None:
    controls = set(family.tokenizer.controls.values())
    plain = prompt_of(family, "i", ("q",), ("d",))
    typed = prompt_of(family, "".join(texts), tuple(texts), tuple(texts))
    assert [token for token in typed.ids if token in controls] == [
        token for token in plain.ids if token in controls
    ]


@pytest.mark.parametrize("limit", [70, 101, 150])
def test_a_long_document_is_cut_as_the_authors_code_does(
    family: Family, authors: AuthorsCode, limit: int
) -> None:
    """It drops the last tokens that are not special, and puts the end of the prompt back."""
    small = Qwen3VLReranker(family.tokenizer, max_tokens=limit)
    text = "sorted lists of words and numbers " * 60
    (prompt,) = small.render(("i",), ("q",), [(text,)])
    assert isinstance(prompt, Prompt)
    assert prompt.truncated

    whole = authors.ids("i", ["q"], [text])
    assert list(prompt.ids) == whole[: limit - 5] + whole[-5:]


def test_an_image_that_does_not_fit_is_refused_and_never_cut(family: Family) -> None:
    small = Qwen3VLReranker(family.tokenizer, max_tokens=100)
    image = Image(b"", 320, 320)
    assert small.render(("i",), ("q",), [(image, "text")]) == [PairTooLong(100, "pair")]


def manifest_of(folder: Path) -> Manifest:
    return resolve(str(folder)).manifest


def test_a_plain_folder_is_taken_for_the_family_by_its_name(folder: Path) -> None:
    checkpoint = resolve(str(folder))
    assert checkpoint.manifest.family == "qwen3-vl-reranker"
    assert checkpoint.manifest.default_instruction == INSTRUCTION
    assert checkpoint.manifest.max_tokens == 10_240
    assert checkpoint.family.readout == LabelPair("yes", "no")
    assert checkpoint.family.cacheable_side == "query"
    assert checkpoint.family.takes_instruction


def test_the_network_alone_is_not_taken_for_it(folder: Path, tmp_path: Path) -> None:
    """Chat and embedding models have the same network, and their yes and no mean nothing."""
    other = tmp_path / "Qwen3-VL-Embedding-small"
    shutil.copytree(folder, other)
    with pytest.raises(CheckpointUnusable, match="RERANK_MODEL_FAMILY can name one of"):
        resolve(str(other))

    named = resolve(str(other), family="qwen3-vl-reranker")
    assert named.digest == resolve(str(folder)).digest


@pytest.mark.parametrize(
    ("processor", "bounds"),
    [
        ({}, (4096, 1_310_720)),
        ({"size": {"shortest_edge": 4096, "longest_edge": 1_310_720}}, (4096, 1_310_720)),
        ({"size": {"shortest_edge": 4096, "longest_edge": 1_843_200}}, (4096, 1_843_200)),
        ({"min_pixels": 65_536, "max_pixels": 16_777_216}, (65_536, 1_843_200)),
        ({"max_pixels": 602_112}, (4096, 602_112)),
    ],
)
def test_the_manifest_names_the_bounds_of_images(
    folder: Path, tmp_path: Path, processor: dict[str, Any], bounds: tuple[int, int]
) -> None:
    """The authors' two programs read up to 1,310,720 and 1,843,200 pixels, and their base's
    processor states more."""
    other = tmp_path / folder.name
    shutil.copytree(folder, other)
    file = other / "preprocessor_config.json"
    put(other, file.name, {"image_mean": [0.5] * 3, **processor})

    pixels = manifest_of(other).pixels
    assert pixels
    assert (pixels.min_pixels, pixels.max_pixels) == bounds


@pytest.mark.parametrize(
    ("settings", "instruction"),
    [
        ({}, INSTRUCTION),
        ({"prompts": {"default": "Find images."}, "default_prompt_name": None}, INSTRUCTION),
        (
            {"prompts": {"default": "Find images."}, "default_prompt_name": "default"},
            "Find images.",
        ),
    ],
)
def test_the_prompt_of_sentence_transformers_files_is_the_instruction(
    folder: Path, tmp_path: Path, settings: dict[str, Any], instruction: str
) -> None:
    other = Path(shutil.copytree(folder, tmp_path / folder.name))
    put(other, "config_sentence_transformers.json", {"model_type": "CrossEncoder", **settings})
    assert manifest_of(other).default_instruction == instruction
    assert resolve(str(other)).digest != resolve(str(folder)).digest


def test_the_digest_changes_with_everything_that_changes_a_score(
    folder: Path, tmp_path: Path
) -> None:
    def digest(**changes: Any) -> str:
        manifest = manifest_of(folder)
        return Checkpoint("m", folder, manifest.model_copy(update=changes)).digest

    pixels = manifest_of(folder).pixels
    assert pixels
    other = write_qwen3_vl(tmp_path / folder.name, seed=1)
    digests = {
        digest(),
        digest(pixels=pixels.model_copy(update={"max_pixels": 1_843_200})),
        digest(default_instruction="Find images."),
        digest(max_tokens=8192),
        digest(family="gmr", template="code"),
        resolve(str(other)).digest,
    }
    assert len(digests) == 6
    assert digest() == resolve(str(folder)).digest


def test_an_unknown_template_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / folder.name
    shutil.copytree(folder, other)
    write_manifest(other, manifest_of(folder).model_copy(update={"template": "code"}))
    with pytest.raises(CheckpointUnusable, match="the template 'code' is not known"):
        _ = resolve(str(other)).family


def test_a_config_with_another_image_token_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / folder.name
    shutil.copytree(folder, other)
    put(other, "config.json", config_of(folder) | {"image_token_id": 5})
    with pytest.raises(CheckpointUnusable, match=r"image_token_id of config.json is 5"):
        _ = resolve(str(other)).family
