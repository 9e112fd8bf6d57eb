"""A family whose prompt begins with the document: halves in the other order, read as any other."""

from __future__ import annotations

from random import Random

import pytest
import torch

from model_store.checkpoint import resolve
from model_store.families.gmr import Gmr
from model_store.families.prompt import Prompt, Segment
from model_store.golden import read_golden
from model_store.synthetic import cells
from model_store.training.publish.parity import TOLERANCE
from service.wire import Scored
from service.worker.engines.torch.engine import TorchEngine
from service.worker.engines.torch.network import open_network
from service.worker.golden_check import check_golden
from tests.conftest import TINY
from tests.worker.calls import as_call


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


async def test_the_checkpoint_that_ships_reproduces_its_golden_pairs_and_ranks() -> None:
    """gmr-tiny-d: golden pairs, and the relevant document among four of each cell."""
    checkpoint = resolve("gmr-tiny-d")
    assert checkpoint.family.cacheable_side == "document"
    engine = TorchEngine(device="cpu", threads=1)
    (info,) = await engine.start(checkpoint)
    assert await check_golden(engine, info, read_golden(checkpoint.folder), None) < TOLERANCE

    first = 0
    for cell in cells.CELLS:
        example = cells.sample(cell, Random(f"document first/{cell}"), "heldout", 3)
        call = as_call(example.instruction, example.query, example.documents)
        logits: dict[int, float] = {}
        async for index, verdict in engine.score(call):
            assert isinstance(verdict, Scored)
            logits[index] = verdict.logit
        first += max(logits, key=lambda index: logits[index]) == 0
    await engine.close()
    assert first >= len(cells.CELLS) - 2
