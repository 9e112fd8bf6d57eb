"""Scores equal a plain transformers forward, one pair at a time, whatever the batch, the order, or
the company."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

import numpy as np
import pytest
from msgspec import structs
from PIL import Image as Pil
from transformers import AutoTokenizer

from model_store.checkpoint import Checkpoint, resolve
from model_store.evaluation.naive import NaiveReranker
from model_store.families.gmr import Gmr
from model_store.families.prompt import Item, PairTooLong, Prompt, Rendering
from model_store.families.tokens import LiteralTokenizer
from model_store.manifest import CheckpointUnusable, Manifest
from model_store.synthetic import cells
from model_store.synthetic.examples import Side
from service.wire import Refused, ScoreCall, Scored
from service.worker.engines.base import CannotLoad
from service.worker.engines.torch.engine import TorchEngine
from tests.conftest import TINY
from tests.layouts import Layout, put, stated, write_layout
from tests.worker.calls import as_call, verdicts

TOLERANCE = 1e-4


async def make_engine(**settings: object) -> TorchEngine:
    engine = TorchEngine(device="cpu", **settings)
    await engine.start(resolve(str(TINY)))
    return engine


@pytest.fixture(scope="module")
async def engine() -> AsyncIterator[TorchEngine]:
    engine = await make_engine()
    yield engine
    await engine.close()


@pytest.fixture(scope="module")
def reference() -> NaiveReranker:
    return NaiveReranker(TINY)


async def logits(engine: TorchEngine, call: ScoreCall) -> list[float]:
    verdicts = {index: verdict async for index, verdict in engine.score(call)}
    found = [verdicts[index] for index in range(len(call.documents))]
    assert all(isinstance(verdict, Scored) for verdict in found)
    return [verdict.logit for verdict in found if isinstance(verdict, Scored)]


@pytest.mark.parametrize("cell", cells.CELLS)
async def test_every_cell_equals_plain_forwards(
    engine: TorchEngine, reference: NaiveReranker, cell: str
) -> None:
    example = cells.sample(cell, Random(f"parity/{cell}"), "heldout", 6)
    found = await logits(engine, as_call(example.instruction, example.query, example.documents))
    expected = [
        reference.logit(example.instruction, example.query, document)
        for document in example.documents
    ]

    assert np.abs(np.subtract(found, expected)).max() < TOLERANCE


async def test_several_images_a_side(engine: TorchEngine, reference: NaiveReranker) -> None:
    rng = Random("several")
    example = cells.sample("I-I", rng, "heldout", 5)
    one, two, three, four, five, six = (side[0] for side in example.documents)
    query: Side = (one, "between", two, "and", one)
    documents: list[Side] = [
        (one, two),
        ("text first", three),
        (four, "in the middle", five, six, "last"),
        ("no picture",),
    ]
    found = await logits(engine, as_call("compare", query, documents))
    expected = [reference.logit("compare", query, document) for document in documents]

    assert np.abs(np.subtract(found, expected)).max() < TOLERANCE


async def test_one_document_equals_a_hundred(engine: TorchEngine, reference: NaiveReranker) -> None:
    rng = Random("hundred")
    query: Side = ("a red circle and how lists are sorted",)
    documents: list[Side] = []
    for cell in ("T-T", "T-I", "T-IT"):
        documents += cells.sample(cell, rng, "heldout", 32).documents
    documents.append(("word " * 700,))
    together = await logits(engine, as_call("find", query, documents))
    shuffled = list(range(len(documents)))
    rng.shuffle(shuffled)
    in_other_order = await logits(
        engine, as_call("find", query, [documents[index] for index in shuffled])
    )
    assert (
        np.abs(np.subtract(in_other_order, [together[index] for index in shuffled])).max()
        < TOLERANCE
    )

    for index in (0, 40, 98, 99):
        (alone,) = await logits(engine, as_call("find", query, [documents[index]]))
        assert alone == pytest.approx(together[index], abs=TOLERANCE)
        assert reference.logit("find", query, documents[index]) == pytest.approx(
            alone, abs=TOLERANCE
        )


@pytest.mark.parametrize("batch_tokens", [64, 500, 20_000])
async def test_the_batch_size_does_not_matter(engine: TorchEngine, batch_tokens: int) -> None:
    other = await make_engine(batch_tokens=batch_tokens)
    example = cells.sample("T-IT", Random("batch"), "heldout", 12)
    call = as_call(example.instruction, example.query, example.documents)
    assert (
        np.abs(np.subtract(await logits(other, call), await logits(engine, call))).max() < TOLERANCE
    )
    await other.close()


async def test_a_pair_that_cannot_be_cut_is_refused_alone(engine: TorchEngine) -> None:
    call = as_call("find", ("q",), [("word " * 5000,), ("fits",)])
    uncut = ScoreCall(
        call.model, call.instruction, call.query, call.documents, call.images, truncate=False
    )
    verdicts = {index: verdict async for index, verdict in engine.score(uncut)}
    assert verdicts[0] == Refused("pair_too_long")
    assert isinstance(verdicts[1], Scored)
    assert not verdicts[1].truncated

    verdicts = {index: verdict async for index, verdict in engine.score(call)}
    assert isinstance(verdicts[0], Scored)
    assert verdicts[0].truncated


async def test_token_counts_are_those_of_the_prompt(
    engine: TorchEngine, reference: NaiveReranker
) -> None:
    example = cells.sample("T-I", Random("counts"), "heldout", 1)
    call = as_call("find", example.query, [example.documents[0]])
    ((_, verdict),) = [verdict async for verdict in engine.score(call)]
    assert isinstance(verdict, Scored)

    pixels = call.images[0]
    assert verdict.image_tokens == pixels.width * pixels.height // 28**2
    text = (
        "<Instruct>:"
        f" find<Query>:{example.query[0]}\n<Document>:<|vision_start|><|image_pad|><|vision_end|>"
    )
    system = AutoTokenizer.from_pretrained(TINY).apply_chat_template(
        [{"role": "system", "content": ""}], tokenize=False
    )

    assert verdict.prompt_tokens > len(
        reference.ids(system + text, [Pil.new("RGB", (pixels.width, pixels.height))])
    )


async def test_a_closed_generator_abandons_the_rest(engine: TorchEngine) -> None:
    call = as_call("find", ("q",), [(f"document {number} " * 100,) for number in range(60)])
    seen = 0
    async with aclosing(engine.score(call)) as verdicts:
        async for _ in verdicts:
            seen += 1
            break

    assert seen == 1
    (again,) = await logits(engine, as_call("find", ("q",), [("after",)]))
    assert np.isfinite(again)


async def test_calls_take_turns(engine: TorchEngine) -> None:
    """A small call that comes second does not wait for a large one to end."""
    large = as_call("find", ("q",), [(f"document {number} " * 60,) for number in range(120)])
    small = as_call("find", ("q",), [("short",)])
    finished: list[str] = []

    async def run(name: str, call: ScoreCall) -> None:
        await logits(engine, call)
        finished.append(name)

    first = asyncio.create_task(run("large", large))
    await asyncio.sleep(0)
    await asyncio.gather(first, run("small", small))

    assert finished == ["small", "large"]


class WatchedFamily(Gmr):
    """GMR that records each call's query and the number of documents in each of its pieces."""

    def __init__(self, tokenizer: LiteralTokenizer, manifest: Manifest) -> None:
        super().__init__(tokenizer, template=manifest.template, pixels=manifest.pixels)
        self.pieces: list[tuple[str, int]] = []

    def renderer(self, instruction: Item, query: Item, *, truncate: bool = True) -> Rendering:
        rendering = super().renderer(instruction, query, truncate=truncate)
        return WatchedRendering(rendering, str(query[0]), self.pieces)


@dataclass(frozen=True)
class WatchedRendering:
    rendering: Rendering
    query: str
    pieces: list[tuple[str, int]]

    def prompts(self, documents: Sequence[Item]) -> list[Prompt | PairTooLong]:
        self.pieces.append((self.query, len(documents)))
        return self.rendering.prompts(documents)


class WatchedCheckpoint(Checkpoint):
    @cached_property
    def family(self) -> WatchedFamily:
        return WatchedFamily(LiteralTokenizer.load(self.folder), self.manifest)


@dataclass(frozen=True)
class Watched:
    engine: TorchEngine
    pieces: list[tuple[str, int]]


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    """An engine, and the pieces that it has rendered."""
    tiny = resolve(str(TINY))
    checkpoint = WatchedCheckpoint(tiny.name, tiny.folder, tiny.manifest)
    engine = TorchEngine(device="cpu")
    await engine.start(checkpoint)
    checkpoint.family.pieces.clear()
    yield Watched(engine, checkpoint.family.pieces)
    await engine.close()


LONG = as_call(
    "find",
    ("large",),
    [(f"{number} " + "every good boy does fine " * 1_000,) for number in range(120)],
)
SMALL = as_call("find", ("small",), [("short",)])


async def test_a_small_call_is_rendered_between_the_pieces_of_a_large_one(
    watched: Watched,
) -> None:
    large = asyncio.create_task(logits(watched.engine, LONG))
    await asyncio.sleep(0)
    await logits(watched.engine, SMALL)
    large.cancel()
    await asyncio.gather(large, return_exceptions=True)

    assert ("small", 1) in watched.pieces[:3]
    assert max(documents for _, documents in watched.pieces) <= 3


async def test_a_call_that_is_cancelled_is_rendered_no_further(
    watched: Watched,
) -> None:
    large = asyncio.create_task(logits(watched.engine, LONG))
    while not watched.pieces:
        await asyncio.sleep(0.001)
    large.cancel()
    await asyncio.gather(large, return_exceptions=True)
    begun = len(watched.pieces)
    await logits(watched.engine, SMALL)

    assert [query for query, _ in watched.pieces[begun:]] in (["small"], ["large", "small"])


@pytest.mark.parametrize("part", ["instruction", "query"])
async def test_what_is_too_long_by_itself_is_named(engine: TorchEngine, part: str) -> None:
    long = "word " * 5_000
    call = as_call(
        long if part == "instruction" else "find",
        (long if part == "query" else "q",),
        [("one",), ("two",)],
    )
    uncut = structs.replace(call, truncate=False)

    assert await verdicts(engine, uncut) == [Refused("pair_too_long", part)] * 2


async def test_a_missing_gpu_is_refused() -> None:
    engine = TorchEngine(device="cuda")
    with pytest.raises(CannotLoad, match="no usable GPU"):
        await engine.start(resolve(str(TINY)))


@pytest.mark.parametrize(
    "quantised",
    [
        {
            "quant_method": "awq",
            "bits": 4,
            "group_size": 128,
            "version": "gemm",
            "zero_point": True,
        },
        {"quant_method": "gptq", "bits": 4, "group_size": 128},
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
        {"quant_method": "compressed-tensors", "format": "pack-quantized"},
    ],
    ids=lambda quantised: str(quantised["quant_method"]),
)
async def test_quantised_weights_are_sent_to_the_engine_that_runs_them(
    tmp_path: Path, quantised: dict[str, object]
) -> None:
    folder = write_layout(tmp_path / "mine", Layout())
    put(folder, "config.json", stated("config.json") | {"quantization_config": quantised})
    with pytest.raises(CheckpointUnusable) as refused:
        await TorchEngine(device="cpu", threads=1).start(resolve(str(folder)))
    method = quantised["quant_method"]

    assert str(refused.value).startswith(
        f"mine: its weights are quantised ({method}, by quantization_config of config.json), which"
        " the torch engine does not run: "
    )
    assert "RERANK_ENGINE=vllm" in str(refused.value)
