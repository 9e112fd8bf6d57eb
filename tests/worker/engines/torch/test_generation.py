"""Scores that are written as text: as the authors' code writes them, whatever the company, and no
further than they are waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from random import Random

import msgspec
import pytest
import torch
from msgspec import structs

from model_store.checkpoint import Checkpoint, resolve
from model_store.families.generated_answer import Answer, AnswerReader
from model_store.families.prompt import Segment
from service.wire import MSGPACK, TIMEOUT_HEADER, Refused, ScoreCall, Scored, ScoreReply
from service.worker.engines.loading import create_engine
from service.worker.engines.torch.decoder_network import ReadPrefix
from service.worker.engines.torch.engine import TorchEngine
from service.worker.engines.torch.generating_network import GeneratingNetwork, Generation
from service.worker.engines.torch.network import Answers
from service.worker.settings import WorkerSettings
from tests.erank import BOUND, ENDLESS, NUMBERS, OTHERS, AuthorsCode, write_erank
from tests.metrics import metric_value
from tests.worker.calls import verdicts
from tests.worker.serving import ready_worker

WORDS = (*NUMBERS, *OTHERS, ENDLESS, "nothing")
DOCUMENTS = [
    *(f"It is {word} again, number {number}." for number, word in enumerate(WORDS)),
    "",
    "five " + "and so on " * 150,
    "A list of words: four",
    "\u4e2d\u6587 and six\n",
]
CALL = ScoreCall(
    "erank-4b-small",
    "Find it",
    ["how many"],
    [[document] for document in DOCUMENTS],
    [],
    truncate=True,
)
SHORT = structs.replace(CALL, documents=[["It is four."]])
LONG_BOUND = 4_096
FOREVER = structs.replace(CALL, documents=[[f"It is {ENDLESS}."]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_erank(tmp_path_factory.mktemp("models") / "erank-4b-small")


async def start(folder: Path, **settings: object) -> TorchEngine:
    settings = {"max_completion_tokens": BOUND} | settings
    engine = TorchEngine(device="cpu", threads=1, **settings)
    await engine.start(resolve(str(folder)))
    return engine


@pytest.fixture(scope="module")
async def engine(folder: Path) -> AsyncIterator[TorchEngine]:
    engine = await start(folder)
    yield engine
    await engine.close()


@pytest.fixture(scope="module")
async def patient(folder: Path) -> AsyncIterator[TorchEngine]:
    """An engine that an endless answer keeps busy for longer than any test waits."""
    engine = await start(folder, max_completion_tokens=LONG_BOUND)
    yield engine
    await engine.close()


@pytest.fixture(scope="module")
async def together(engine: TorchEngine) -> list[Scored | Refused]:
    return await verdicts(engine, CALL)


def written() -> float:
    return metric_value("rerank_engine_completion_tokens_total")


def test_answers_are_those_of_the_authors_code(
    folder: Path, together: Sequence[Scored | Refused]
) -> None:
    authors = AuthorsCode(folder)
    scores = []
    for document, verdict in zip(DOCUMENTS, together, strict=True):
        expected = authors.written("Find it", "how many", document)
        if expected.score is None:
            assert verdict == Refused("no_score"), document
            continue

        assert isinstance(verdict, Scored)
        assert verdict.logit == pytest.approx(expected.score, abs=1e-4), document
        assert verdict.completion_tokens == len(expected.tokens)
        scores.append(verdict.logit)

    # the small model is one whose answers differ
    assert len(scores) == len(DOCUMENTS) - len(OTHERS) - 1
    assert len({round(score, 3) for score in scores}) == len(scores)
    assert sum(0 < score < 10 for score in scores) == len(scores) - 1


async def test_company_changes_no_bit(
    engine: TorchEngine, together: Sequence[Scored | Refused]
) -> None:
    order = list(range(len(DOCUMENTS)))
    Random("order").shuffle(order)
    shuffled = structs.replace(CALL, documents=[CALL.documents[index] for index in order])
    assert await verdicts(engine, shuffled) == [together[index] for index in order]

    for index in (0, 10, 12, len(DOCUMENTS) - 3):
        alone = structs.replace(CALL, documents=[CALL.documents[index]])
        assert await verdicts(engine, alone) == [together[index]]


@pytest.mark.parametrize("batch_tokens", [64, 20_000])
async def test_the_batch_size_does_not_matter(
    folder: Path, together: Sequence[Scored | Refused], batch_tokens: int
) -> None:
    other = await start(folder, batch_tokens=batch_tokens)
    assert await verdicts(other, CALL) == together
    await other.close()


async def test_calls_at_once_change_nothing(
    engine: TorchEngine, together: Sequence[Scored | Refused]
) -> None:
    calls = [structs.replace(CALL, documents=[document]) for document in CALL.documents]
    found = await asyncio.gather(*(verdicts(engine, call) for call in calls))
    assert [verdict for (verdict,) in found] == together


async def test_an_answer_that_runs_into_the_bound_is_no_score(folder: Path) -> None:
    """The bound decides scores, so it is part of the digest."""
    bounds = {}
    for bound in (BOUND, 16, 14, None):
        engine = TorchEngine(device="cpu", threads=1, max_completion_tokens=bound)
        (info,) = await engine.start(resolve(str(folder)))
        bounds[info.max_completion_tokens] = info.digest
        if bound:
            before = written()
            (ten, six) = await verdicts(
                engine, structs.replace(CALL, documents=[["It is ten."], ["It is six."]])
            )
            assert isinstance(ten, Scored) == (bound >= 16)
            assert isinstance(six, Scored)
            assert written() - before == min(bound, 16) + six.completion_tokens
        await engine.close()

    assert set(bounds) == {BOUND, 16, 14, 2048}
    assert len(set(bounds.values())) == len(bounds)


async def test_a_call_that_is_closed_is_written_no_further(patient: TorchEngine) -> None:
    before = written()
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()
    call = aclosing(patient.score(FOREVER, lambda: loop.call_soon_threadsafe(begun.set)))
    async with call as answers:
        first = asyncio.ensure_future(anext(answers))
        await begun.wait()
        await verdicts(patient, SHORT)
        first.cancel()
        await asyncio.wait((first,))

    await verdicts(patient, SHORT)
    assert 0 < written() - before < LONG_BOUND / 2
    assert patient.stalled_seconds() == 0


async def test_a_short_call_is_not_behind_a_long_answer(patient: TorchEngine) -> None:
    forever = asyncio.create_task(verdicts(patient, FOREVER))
    (found,) = await verdicts(patient, SHORT)
    assert isinstance(found, Scored)
    assert not forever.done()
    forever.cancel()
    await asyncio.wait((forever,))


async def test_an_answer_that_has_ended_is_not_behind_a_longer_one(patient: TorchEngine) -> None:
    both = structs.replace(CALL, documents=[*FOREVER.documents, *SHORT.documents])
    async with aclosing(patient.score(both)) as answers:
        index, verdict = await anext(answers)
    assert index == 1
    assert isinstance(verdict, Scored)


async def test_a_deadline_leaves_a_long_answer_unscored(folder: Path) -> None:
    settings = WorkerSettings(
        model=str(folder), device="cpu", threads=1, max_completion_tokens=LONG_BOUND
    )
    async with ready_worker(settings, create_engine(settings)) as worker:
        response = await worker.post(
            "/score",
            content=msgspec.msgpack.encode(FOREVER),
            headers={"content-type": MSGPACK, TIMEOUT_HEADER: "300"},
        )
        assert msgspec.msgpack.decode(response.content, type=ScoreReply).pairs == [None]


async def test_more_long_answers_than_places_let_others_in_again(patient: TorchEngine) -> None:
    """Only some answers hold keys at a time; those that are abandoned leave their place."""
    forever = [asyncio.create_task(verdicts(patient, FOREVER)) for _ in range(9)]
    await asyncio.sleep(0)
    for task in forever:
        task.cancel()
    await asyncio.wait(forever)
    assert await verdicts(patient, SHORT)


class Breaking:
    """Answers of which a later step fails."""

    def __init__(self, writing: Generation) -> None:
        self._writing, self._steps = writing, 0

    def step(self) -> bool:
        self._steps += 1
        if self._steps == 5:
            raise ArithmeticError("a token has no probability")
        return self._writing.step()

    @property
    def answers(self) -> list[Answer]:
        return self._writing.answers


class Failing:
    """A network that fails for prompts with one of two tokens: at once, or in a later step."""

    def __init__(self, network: GeneratingNetwork, at_once: int, later: int) -> None:
        self._at_once, self._later = at_once, later
        self._network = network
        self.encode, self.read_prefix = network.encode, network.read_prefix
        self.release_memory = network.release_memory

    def begin(
        self, prefix: ReadPrefix, suffixes: Sequence[Segment], readers: Sequence[AnswerReader]
    ) -> Answers:
        if any(self._at_once in suffix.ids for suffix in suffixes):
            raise RuntimeError("no memory")
        writing = self._network.begin(prefix, suffixes, readers)
        breaks = any(self._later in suffix.ids for suffix in suffixes)
        return Breaking(writing) if breaks else writing


async def test_a_pair_that_the_network_fails_for_is_refused_alone(
    folder: Path, together: Sequence[Scored | Refused]
) -> None:
    checkpoint = resolve(str(folder))
    tokenizer = checkpoint.family.tokenizer
    at_once, later = tokenizer.label(" three"), tokenizer.label(" eight")

    def load(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> Failing:
        return Failing(GeneratingNetwork(checkpoint, device, dtype), at_once, later)

    engine = await start(folder, load_network=load)
    found = await verdicts(engine, CALL)
    expected = list(together)
    for word in ("three", "eight"):
        expected[WORDS.index(word)] = Refused("worker_failed")
    assert found == expected
    assert engine.healthy()
    await engine.close()


async def test_a_network_that_fails_for_everything_is_not_healthy(folder: Path) -> None:
    checkpoint = resolve(str(folder))
    bracket = checkpoint.family.tokenizer.label("<")

    def load(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> Failing:
        return Failing(GeneratingNetwork(checkpoint, device, dtype), bracket, bracket)

    engine = await start(folder, load_network=load)
    with pytest.raises(RuntimeError):
        await verdicts(engine, SHORT)
    assert not engine.healthy()
    await engine.close()
