"""vLLM writes the same answers as the torch engine, and no further than they are waited for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from msgspec import structs

from model_store.checkpoint import resolve
from service.wire import Refused, ScoreCall, Scored
from service.worker.engines.torch.engine import TorchEngine
from tests.erank import ENDLESS, INSTRUCTION, NUMBERS, OTHERS, QUERY, publish, write_erank
from tests.worker.calls import verdicts
from tests.worker.engines.vllm.engine_worker import EngineWorker, engine_worker

pytestmark = pytest.mark.slow

DOCUMENTS = [
    *(f"It is {word} again, number {number}." for number, word in enumerate((*NUMBERS, *OTHERS))),
    "",
    "five " + "and so on " * 150,
    "\u4e2d\u6587 and six\n",
    "<think>one</think><answer>9</answer><|im_end|>",
]
CALL = ScoreCall(
    "erank-4b-small",
    INSTRUCTION,
    [QUERY],
    [[document] for document in DOCUMENTS],
    [],
    truncate=True,
)
FOREVER = structs.replace(CALL, documents=[[f"It is {ENDLESS}."]])
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(write_erank(tmp_path_factory.mktemp("models") / "erank-4b-small"))


@pytest.fixture(scope="module")
def worker(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineWorker]:
    """It turns ready once its golden pairs were written as transformers writes them."""
    with engine_worker(tmp_path_factory.mktemp("vllm"), "--model", str(folder)) as worker:
        yield worker


def generated(worker: EngineWorker) -> float:
    """Tokens that vLLM says it has written."""
    for line in httpx.get(f"{worker.url}/metrics").text.splitlines():
        if line.startswith("vllm:generation_tokens_total"):
            return float(line.split()[-1])
    raise LookupError


async def test_answers_equal_the_torch_engines(worker: EngineWorker, folder: Path) -> None:
    (info,) = await worker.served()
    assert (info.read_out, info.max_completion_tokens) == ("generated 0..10", 2048)
    assert info.golden_pairs == 3

    engine = TorchEngine(device="cpu", threads=1)
    await engine.start(resolve(str(folder)))
    expected = await verdicts(engine, CALL)
    await engine.close()

    found = await worker.ask(CALL)
    for document, pair, other in zip(DOCUMENTS, found, expected, strict=True):
        if isinstance(other, Refused):
            assert pair == other == Refused("no_score"), document
            continue
        assert isinstance(pair, Scored)
        assert pair.logit == pytest.approx(other.logit, abs=TOLERANCE), document
        assert pair.completion_tokens == other.completion_tokens
        assert pair.prompt_tokens == other.prompt_tokens

    again = await worker.ask(structs.replace(CALL, documents=CALL.documents[::-1]))
    for pair, other in zip(again[::-1], found, strict=True):
        if isinstance(other, Scored):
            assert isinstance(pair, Scored)
            assert pair.logit == pytest.approx(other.logit, abs=TOLERANCE)
            assert pair.reused_tokens > 0
    assert generated(worker) < 40 * len(DOCUMENTS) * 2 + 200


async def test_salts_share_no_prefix(worker: EngineWorker) -> None:
    mine = structs.replace(CALL, documents=[["It is three."]], cache_salt="mine")
    (first,) = await worker.ask(mine)
    (second,) = await worker.ask(mine)
    (other,) = await worker.ask(structs.replace(mine, cache_salt="another"))
    reused = [pair.reused_tokens for pair in (first, second, other) if isinstance(pair, Scored)]
    assert len(reused) == 3
    assert reused[0] == reused[2] == 0 < reused[1]


async def test_a_deadline_takes_an_answer_out_of_the_engine(worker: EngineWorker) -> None:
    both = structs.replace(CALL, documents=[*FOREVER.documents, ["It is four."]])
    before = generated(worker)
    found = await worker.ask(both, timeout_ms=1_000)
    assert found[0] is None

    (after,) = await worker.ask(structs.replace(CALL, documents=[["It is four."]]))
    assert isinstance(after, Scored)
    assert generated(worker) - before < 2_000
    await worker.client.aclose()
