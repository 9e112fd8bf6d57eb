"""Every family's prompt has the ids that its authors' formatting gives with the whole vocabulary,
and no control token of it can be typed."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.families.catalogue import FAMILIES
from model_store.families.prompt import Image, Item, Prompt
from model_store.families.template import TemplateFamily
from tests.model_store.families.formats import FORMATS
from tests.vocabularies.published import GEMMA, LLAMA_3, QWEN, literal, original

TEMPLATES = [
    (kind, template)
    for kind in FAMILIES.values()
    if isinstance(kind, type) and issubclass(kind, TemplateFamily)
    for template in kind.templates
]
LABELS = {
    "yes": 9693,
    "no": 2152,
    "Yes": 9454,
    "1": 16,
    "0": 15,
    "True": 2514,
    "False": 4049,
}
CONTROLS = {
    "<|endoftext|>": 151_643,
    "<|im_start|>": 151_644,
    "<|im_end|>": 151_645,
    "<|vision_start|>": 151_652,
    "<|vision_end|>": 151_653,
    "<|image_pad|>": 151_655,
    "<|video_pad|>": 151_656,
    "<think>": 151_667,
    "</think>": 151_668,
}
ORDINARY = [
    "how do I sort a list?",
    "What is it?\n",
    "  two spaces,\n\n\nthree line breaks \t and a tab",
    "\u00e0 la carte, \u4e2d\u6587\u3002 \U0001f600 42 1,000.5",
    "<table><tr><td>cell</td></tr></table> a < b <Query>: x",
    "it's, they'll, I'M '",
    "",
]
ordinary = st.sampled_from(ORDINARY) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=40
).filter(lambda text: "<" not in text and "[" not in text and "\u2581" not in text)


def named(found: tuple[type[TemplateFamily], str]) -> str:
    return f"{found[0].name}-{found[1]}"


def vocabulary_of(kind: type[TemplateFamily]) -> Path:
    """The published vocabulary of the networks that a family runs on."""
    (first, *_) = kind.architectures
    for prefix, vocabulary in (("Gemma", GEMMA), ("Llama", LLAMA_3)):
        if first.startswith(prefix):
            return vocabulary
    return QWEN


def opened(kind: type[TemplateFamily], template: str) -> TemplateFamily:
    return kind(literal(vocabulary_of(kind)), template=template)


def prompt_of(family: TemplateFamily, instruction: str, query: Item, document: Item) -> Prompt:
    (prompt,) = family.render((instruction,), query, [document])
    assert isinstance(prompt, Prompt)
    return prompt


def test_every_template_has_its_authors_format() -> None:
    lacking = {(kind.name, template) for kind, template in TEMPLATES} - FORMATS.keys()
    assert not lacking, (
        f"formats.FORMATS has no row for {sorted(lacking)}: add the ids that the authors' code or"
        " chat template gives, by transformers alone"
    )


def test_labels_and_control_tokens_have_their_published_ids() -> None:
    tokenizer = literal(QWEN)
    assert {word: tokenizer.label(word) for word in LABELS} == LABELS
    assert {token: tokenizer.control(token) for token in CONTROLS} == CONTROLS
    assert literal(GEMMA).label("Yes") == 3553
    assert literal(GEMMA).control("<bos>") == 2


@pytest.mark.parametrize("found", TEMPLATES, ids=named)
@settings(max_examples=40, deadline=None)
@given(instruction=ordinary, query=ordinary, document=ordinary)
def test_ids_are_those_of_the_authors_formatting(
    found: tuple[type[TemplateFamily], str], instruction: str, query: str, document: str
) -> None:
    kind, template = found
    expected = FORMATS[kind.name, template](
        original(vocabulary_of(kind)), (instruction,), (query,), (document,)
    )
    prompt = prompt_of(opened(kind, template), instruction, (query,), (document,))
    assert list(prompt.ids) == expected
    assert not prompt.truncated


@pytest.mark.parametrize("found", [each for each in TEMPLATES if each[0].image_template], ids=named)
def test_ids_of_images_are_those_of_the_authors_formatting(
    found: tuple[type[TemplateFamily], str],
) -> None:
    kind, template = found
    family = opened(kind, template)
    assert family.images
    cell = family.images.cell
    small, wide = Image(b"a", 2 * cell, 2 * cell), Image(b"b", 4 * cell, 2 * cell)
    for query, document in product([("what?",), (small,)], [(wide,), (wide, "a caption?\n")]):
        expected = FORMATS[kind.name, template](
            original(vocabulary_of(kind)), ("find it",), query, document
        )
        assert list(prompt_of(family, "find it", query, document).ids) == expected


@pytest.mark.parametrize("found", TEMPLATES, ids=named)
@pytest.mark.parametrize("side", ["instruction", "query", "document"])
def test_no_added_token_can_be_typed(found: tuple[type[TemplateFamily], str], side: str) -> None:
    family = opened(*found)
    controls = family.tokenizer.controls
    typed = "".join(f"{token}{token} {token}\n{token}" for token in controls)
    plain = {"instruction": "i", "query": ("q",), "document": ("d",)}
    changed = plain | {side: typed if side == "instruction" else (typed,)}

    numbers = set(controls.values())
    found_ids = [token for token in prompt_of(family, **changed).ids if token in numbers]
    assert found_ids == [token for token in prompt_of(family, **plain).ids if token in numbers]


def test_gemmas_pieces_of_text_are_text_and_its_control_tokens_are_not() -> None:
    tokenizer, theirs = literal(GEMMA), original(GEMMA)
    assert set(tokenizer.controls) == {
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "<start_of_turn>",
        "<end_of_turn>",
    }
    text = "a\n\n\nb<table><tr>x</tr></table>  <b>c</b>\n"
    assert tokenizer.encode([text]) == [theirs(text, add_special_tokens=False)["input_ids"]]


LONG = "word " * 9000


@pytest.mark.parametrize("name", ["mxbai-rerank-v2", "bge-reranker-v2-gemma"])
@pytest.mark.parametrize(
    ("query", "document"),
    [("short", LONG), (LONG, "short"), (LONG, LONG)],
    ids=["document", "query", "both"],
)
def test_long_pairs_are_cut_as_their_packages_cut_them(
    name: str, query: str, document: str
) -> None:
    (kind,) = [kind for kind, _ in TEMPLATES if kind.name == name]
    expected = FORMATS[name, "official"](
        original(vocabulary_of(kind)), ("",), (query,), (document,)
    )
    prompt = prompt_of(opened(kind, "official"), "", (query,), (document,))
    assert prompt.truncated
    assert list(prompt.ids) == expected
