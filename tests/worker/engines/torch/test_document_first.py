"""A family whose prompt begins with the document: halves in the other order, read as any other."""

from __future__ import annotations

import pytest
import torch

from model_store.checkpoint import resolve
from model_store.families.gmr import Gmr
from model_store.families.prompt import Prompt, Segment
from service.worker.engines.torch.network import open_network
from tests.conftest import TINY


class DocumentFirst(Gmr):
    """GMR's labels after a document and a query."""

    name = "document-first"
    templates = {"official": ("<Document>:{document}\n", "<Query>:{query}<|im_end|>\n")}  # noqa: RUF012


def test_the_query_follows_each_document() -> None:
    family = DocumentFirst(resolve(str(TINY)).family.tokenizer)
    first, second = family.render(("ignored",), ("what is red?",), [("a b",), ("c",)])

    assert isinstance(first, Prompt)
    assert isinstance(second, Prompt)
    assert (family.cacheable_side, family.takes_instruction) == ("document", False)
    assert first.suffix is second.suffix
    assert first.prefix == family.document(("a b",))
    assert first.suffix == family.question((), ("what is red?",))


def test_a_long_document_is_cut_before_the_query() -> None:
    tokenizer = resolve(str(TINY)).family.tokenizer
    family = DocumentFirst(tokenizer, max_tokens=100)
    (prompt,) = family.render((), ("what is red?",), [("word " * 200,)])

    assert isinstance(prompt, Prompt)
    assert prompt.truncated
    assert len(prompt.ids) <= 100
    assert prompt.suffix == family.question((), ("what is red?",))


def test_a_prompt_without_a_shared_prefix_has_the_same_score() -> None:
    checkpoint = resolve(str(TINY))
    network = open_network(checkpoint, torch.device("cpu"), torch.float32)
    documents = [("a red circle",), ("Berlin is the capital of Germany. " * 9,)]
    prompts = checkpoint.family.render(("find it",), ("what is red?",), documents)

    shared, whole = [], []
    for prompt in prompts:
        assert isinstance(prompt, Prompt)
        prefix = network.read_prefix(prompt.prefix, {})
        shared += network.score(prefix, [prompt.suffix], {})
        whole.append(Segment(prompt.ids))
    empty = network.read_prefix(Segment(()), {})

    assert network.score(empty, whole, {}) == pytest.approx(shared, abs=1e-4)
