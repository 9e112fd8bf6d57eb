"""A family's chat template, rendered by transformers, gives the family's own token ids."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from transformers import AutoTokenizer

from model_store.checkpoint import Checkpoint, resolve
from model_store.families.gmr import TEMPLATES
from model_store.families.prompt import Image, Item, Prompt
from model_store.families.qwen3_vl_reranker import Qwen3VLReranker
from model_store.folders.chat_template import pair_template, without_pairs
from model_store.manifest import CheckpointUnusable
from tests.conftest import TINY
from tests.qwen3 import write_qwen3

PICTURE = Image(b"", 32, 32)  # one placeholder, as in a template
PLACEHOLDER = "<|vision_start|><|image_pad|><|vision_end|>"
ORDINARY = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
SIDES: dict[str, Item] = {
    "text": ("how do I sort a list",),
    "lines": ("Sort it.\n\n  In place. ",),
    "quotes": ("say \"yes\" or 'no' {{ x }} {% y %} \\n",),
    "image": (PICTURE,),
    "image and text": (PICTURE, "the same in red"),
    "text and image": ("the same in red", PICTURE),
    "several": (PICTURE, PICTURE, "one ", "two"),
    "empty": (),
    "empty text": ("",),
}


@cache
def of_template(template: str) -> Checkpoint:
    shipped = resolve("gmr-tiny")
    manifest = shipped.manifest.model_copy(update={"template": template})
    return Checkpoint("gmr-tiny", TINY, manifest)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    """One of each trainable family and spelling, and one family with an order of its own and a
    word for an empty side."""
    folder = write_qwen3(tmp_path_factory.mktemp("qwen3") / "qwen3-reranker")
    found = {template: of_template(template) for template in TEMPLATES}
    fields = {"family": Qwen3VLReranker.name, "template": "official"}
    manifest = of_template("code").manifest.model_copy(update=fields)
    return found | {
        "qwen3-reranker": resolve(str(folder)),
        "qwen3-vl-reranker": Checkpoint("qwen3-vl-reranker", TINY, manifest),
    }


def structured(item: Item) -> list[dict[str, str]]:
    """As sentence-transformers has a side."""
    return [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
        for part in item
    ]


def joined(item: Item) -> str:
    """As vLLM has a side."""
    return "".join(part if isinstance(part, str) else PLACEHOLDER for part in item)


@cache
def tokenizer_of(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def ids_by(checkpoint: Checkpoint, messages: list[dict[str, Any]], **variables: str) -> list[int]:
    """Ids by transformers and the chat template."""
    tokenizer = tokenizer_of(checkpoint.folder)
    text = tokenizer.apply_chat_template(
        messages,
        chat_template=pair_template(checkpoint.manifest, ORDINARY),
        tokenize=False,
        **variables,
    )
    return list(tokenizer(text)["input_ids"])


def own_ids(checkpoint: Checkpoint, instruction: str, query: Item, document: Item) -> list[int]:
    (prompt,) = checkpoint.family.render((instruction,), query, [document])
    assert isinstance(prompt, Prompt)
    return list(prompt.ids)


@pytest.mark.parametrize("name", [*TEMPLATES, "qwen3-reranker", "qwen3-vl-reranker"])
@pytest.mark.parametrize("query", SIDES)
def test_every_kind_of_side_has_the_familys_ids(
    checkpoints: dict[str, Checkpoint], name: str, query: str
) -> None:
    for document in SIDES.values():
        check_ids(checkpoints[name], SIDES[query], document)


def check_ids(checkpoint: Checkpoint, query: Item, document: Item) -> None:
    """Compare ids of all ways to give a pair; pictures are left out where only text is read."""
    reads_images = checkpoint.family.images is not None
    sides = [
        tuple(part for part in side if reads_images or isinstance(part, str))
        for side in (query, document)
    ]
    due = own_ids(checkpoint, "find it", *sides)
    roles = ("query", "document")
    system = {"role": "system", "content": structured(("find it",))}
    messages = [
        {"role": role, "content": structured(side)} for role, side in zip(roles, sides, strict=True)
    ]
    swapped = checkpoint.family.cacheable_side == "document" and all(PICTURE in s for s in sides)
    if swapped:
        with pytest.raises(TemplateError, match="pictures on both sides would be swapped"):
            ids_by(checkpoint, [system, *messages])
        messages.reverse()
    assert ids_by(checkpoint, [system, *messages]) == due

    ordered = [images_first(side) for side in sides]
    strings = [
        {"role": role, "content": joined(side)} for role, side in zip(roles, ordered, strict=True)
    ]
    due = own_ids(checkpoint, "find it", *ordered)
    if swapped:
        with pytest.raises(TemplateError, match="pictures on both sides would be swapped"):
            ids_by(checkpoint, strings)
        strings.reverse()
    assert ids_by(checkpoint, strings, instruction="find it") == due


def images_first(item: Item) -> Item:
    """The order of vLLM."""
    return tuple(sorted(item, key=lambda part: isinstance(part, str)))


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_ordinary_text_has_the_familys_ids(query: str, document: str) -> None:
    checkpoint = of_template("code")
    texts = (query.replace("<", ""), document.replace("<", ""))
    messages = [
        {"role": role, "content": structured((text,))}
        for role, text in zip(("query", "document"), texts, strict=True)
    ]
    due = own_ids(checkpoint, "find it", (texts[0],), (texts[1],))
    assert ids_by(checkpoint, messages, instruction="find it") == due


def test_without_an_instruction_it_is_the_manifests(checkpoints: dict[str, Checkpoint]) -> None:
    for checkpoint in checkpoints.values():
        messages = [{"role": "query", "content": "q"}, {"role": "document", "content": "d"}]
        due = own_ids(checkpoint, checkpoint.manifest.default_instruction, ("q",), ("d",))
        assert ids_by(checkpoint, messages) == due


def test_other_messages_are_rendered_as_before() -> None:
    tokenizer = tokenizer_of(TINY)
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    template = pair_template(of_template("code").manifest, ORDINARY)
    rendered = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
    assert rendered == "system: be brief\nuser: hello\n"


@pytest.mark.parametrize("others", ["", ORDINARY])
def test_a_template_is_not_wrapped_twice(others: str) -> None:
    for name in TEMPLATES:
        template = pair_template(of_template(name).manifest, others)
        assert without_pairs(template) == others
    assert without_pairs(ORDINARY) == ORDINARY


UNLIKE_ANY_TEMPLATE = {
    "jina-reranker-m0": "an id without a text",
    "mono-qwen2-vl": "a wording that depends on the pair",
    "mxbai-rerank-v2": "texts that are encoded apart",
    "zerank": "another form without an instruction",
    "text-pair": "no template",
}


@pytest.mark.parametrize("family", UNLIKE_ANY_TEMPLATE, ids=UNLIKE_ANY_TEMPLATE.get)
def test_a_prompt_that_no_template_has_is_refused(family: str) -> None:
    changes = {"family": family, "template": "official", "name": "other"}
    manifest = resolve("gmr-tiny").manifest.model_copy(update=changes)
    with pytest.raises(CheckpointUnusable, match=f"can express the prompt of its family {family}"):
        pair_template(manifest)
