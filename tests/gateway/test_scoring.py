"""The way of a request's pairs to the workers: splits, decoding ahead within a bound, retries."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from starlette.responses import Response

from service.errors import DeadlineExceeded, InvalidImage, Loc, NoWorker, RerankError, WorkerFailed
from service.gateway.admission.admitted import Work
from service.gateway.admission.worker_turns import TURNS_A_WORKER, TURNS_A_WRITING_WORKER, turns_of
from service.gateway.chunks import FIRST_CHUNK_BYTES
from service.gateway.costs import pixel_bytes
from service.gateway.domain import PairOutcome, ScoringContext
from service.gateway.fleet.pool import WorkerPool
from service.gateway.fleet.workload import Workload
from service.gateway.media.content import Content, Picture, Text
from service.gateway.media.decoders import DecodeBudget, Decoders
from service.gateway.media.headers import read_header
from service.gateway.media.reader import Media
from service.gateway.scoring import PIXEL_BYTES, Scoring
from service.limits import Limits
from service.wire import ImageRule, Pixels, ScoreCall, Scored, WorkerInfo
from tests.gateway.encoded_pictures import encode, picture
from tests.gateway.stand_in import (
    INFO,
    Reader,
    SameCall,
    StandIn,
    first_parts,
    monitored,
    pool_of,
    reply,
    scored,
    soon,
)

TWO = structs.replace(INFO, digest="sha256:two")
LONG = "word " * 800


QUERY: Content = (Text("q"),)


def question(query: Content = QUERY, model: WorkerInfo = INFO, **fields: Any) -> ScoringContext:
    return ScoringContext(model, "find", query, truncate=True, **fields)


def texts(count: int, each: str = LONG) -> dict[bytes, Content]:
    return {b"%d" % number: (Text(f"{number} {each}"),) for number in range(count)}


def shown(count: int, side: int = 700) -> dict[bytes, Content]:
    """Documents of one picture each, all different."""
    sent = [encode(picture((side, side + number))) for number in range(count)]
    return {
        b"%d" % number: (sent_picture(data, ("documents", number, "image")),)
        for number, data in enumerate(sent)
    }


def sent_picture(data: bytes, loc: Loc) -> Picture:
    return Picture(data, hashlib.sha256(data).digest(), loc, read_header(data).size)


def documents_of(stand_in: StandIn) -> int:
    """The number of documents of all calls."""
    return sum(len(call.documents) for call in stand_in.calls)


def pixels_of(call: ScoreCall) -> int:
    """The bytes of pixels of a call."""
    return sum(len(image.rgb) for image in call.images)


class Fleet:
    """Stand-ins that score a document by its number, and the scoring over them."""

    def __init__(
        self, *workers: StandIn, media: Media | None = None, pixel_bytes: int = PIXEL_BYTES
    ) -> None:
        self.stand_ins = workers
        self.media = media or Media(Limits(), Decoders())
        self.pixel_bytes = pixel_bytes

    def scoring(self, workers: WorkerPool) -> Scoring:
        return Scoring(self.media, workers, pixel_bytes=self.pixel_bytes)

    async def score(
        self,
        documents: dict[bytes, Content],
        asked: ScoringContext | None = None,
        seconds: float = 30,
        **options: Any,
    ) -> tuple[set[str], dict[bytes, PairOutcome]]:
        async with monitored(*(each.client for each in self.stand_ins), **options) as workers:
            try:
                return await self.scoring(workers).score(
                    asked or question(), documents, soon(seconds)
                )
            finally:
                assert [worker.load for worker in workers.members] == [0] * len(self.stand_ins)

    def sizes(self) -> list[int]:
        return [documents_of(stand_in) for stand_in in self.stand_ins]


async def by_number(call: ScoreCall) -> Response:
    return reply([scored(float(str(document[0]).split()[0])) for document in call.documents])


async def broken(call: ScoreCall) -> Response:
    return Response(status_code=500)


def numbers(verdicts: dict[bytes, PairOutcome]) -> dict[int, float | str]:
    return {
        int(key): each.logit if isinstance(each, Scored) else each.code
        for key, each in verdicts.items()
    }


async def test_a_large_request_is_split_evenly_over_idle_workers_and_every_score_is_its_own() -> (
    None
):
    fleet = Fleet(*(StandIn(by_number) for _ in range(4)))
    digests, verdicts = await fleet.score(texts(40))
    assert digests == {INFO.digest}
    assert numbers(verdicts) == {number: number for number in range(40)}
    assert fleet.sizes() == [10] * 4
    assert [len(each.calls) for each in fleet.stand_ins] == [1] * 4


async def test_shares_are_even_in_tokens_not_in_documents() -> None:
    fleet = Fleet(StandIn(by_number), StandIn(by_number))
    documents = texts(20, "short") | {
        b"20": (Text("20 " + "word " * 8_000),),
        b"21": (Text("21 " + "word " * 1_000),),
    }
    await fleet.score(documents)

    assert sorted(fleet.sizes()) == [1, 21]


async def test_a_small_request_and_one_with_a_long_query_stay_whole() -> None:
    for documents, asked in (
        (texts(3, "short"), question()),
        (texts(10), question((Text("q " * 20_000),))),
    ):
        fleet = Fleet(StandIn(by_number), StandIn(by_number))
        await fleet.score(documents, asked)
        assert sorted(fleet.sizes()) == [0, len(documents)]


async def test_splitting_can_be_switched_off_and_be_forced() -> None:
    fleet = Fleet(StandIn(by_number), StandIn(by_number))
    await fleet.score(texts(40), split="never")
    assert sorted(fleet.sizes()) == [0, 40]
    fleet = Fleet(StandIn(by_number), StandIn(by_number))
    await fleet.score(texts(2, "short"), split="always")

    assert fleet.sizes() == [1, 1]


async def test_workers_of_another_digest_or_model_get_no_share() -> None:
    fleet = Fleet(
        *(StandIn(by_number, each) for each in (INFO, TWO, INFO, structs.replace(INFO, model="n")))
    )
    await fleet.score(texts(40))
    assert fleet.sizes() == [20, 0, 20, 0]


async def test_equal_questions_go_to_one_worker_and_different_ones_spread() -> None:
    fleet = Fleet(*(StandIn(by_number) for _ in range(3)))
    async with monitored(*(each.client for each in fleet.stand_ins)) as workers:
        scoring = fleet.scoring(workers)
        for number in range(60):  # of 60 homes, none leaves one of 3 workers empty by chance
            for _ in range(2):
                await scoring.score(question((Text(f"q {number}"),)), texts(1), soon())
    assert all(sizes % 2 == 0 for sizes in fleet.sizes())
    assert all(fleet.sizes())


async def test_least_loaded_routing_knows_no_home() -> None:
    fleet = Fleet(*(StandIn(by_number) for _ in range(3)))
    async with monitored(*(each.client for each in fleet.stand_ins), affinity=False) as workers:
        for _ in range(60):
            await fleet.scoring(workers).score(question(), texts(1), soon())
    assert sum(fleet.sizes()) == 60
    assert all(fleet.sizes())


@pytest.mark.parametrize(
    "other",
    [
        question((Text("other"),)),
        question(model=structs.replace(INFO, model="n")),
        question(cache_salt="s"),
        ScoringContext(INFO, "judge", (Text("q"),), truncate=True),
    ],
)
def test_the_key_is_that_of_the_prefix(other: ScoringContext) -> None:
    assert (
        question().prefix_key()
        == ScoringContext(TWO, "find", (Text("q"),), truncate=False).prefix_key()
    )
    assert question().prefix_key() != other.prefix_key()


async def test_the_salt_reaches_the_worker() -> None:
    only = StandIn(by_number)
    await Fleet(only).score(texts(1), question(cache_salt="tenant"))
    assert [call.cache_salt for call in only.calls] == ["tenant"]


DOCUMENT_FIRST = structs.replace(INFO, cacheable_side="document")


def homes_of(fleet: Fleet) -> dict[str | int, int]:
    """The worker of each document since this was last called."""
    homes: dict[str | int, int] = {}
    for number, stand_in in enumerate(fleet.stand_ins):
        for call in stand_in.calls:
            homes |= dict.fromkeys(first_parts(call), number)
        stand_in.calls.clear()
    return homes


async def each_alone(
    fleet: Fleet, workers: WorkerPool, documents: dict[bytes, Content]
) -> dict[str | int, int]:
    """The worker of each document, in requests of a query and one document each."""
    for key, content in documents.items():
        asked = question((Text(f"q {key!r}"),), DOCUMENT_FIRST)
        await fleet.scoring(workers).score(asked, {key: content}, soon())
    return homes_of(fleet)


async def test_a_document_first_in_prompts_goes_home_under_every_query() -> None:
    fleet = Fleet(*(StandIn(by_number, DOCUMENT_FIRST) for _ in range(3)))
    documents = texts(60, "word " * 100)
    async with monitored(*(each.client for each in fleet.stand_ins)) as workers:
        homes = await each_alone(fleet, workers, documents)
        assert set(homes.values()) == {0, 1, 2}

        async def at_home(asked: ScoringContext) -> int:
            """The number of documents that are sent home when they are sent together."""
            _, verdicts = await fleet.scoring(workers).score(asked, documents, soon())
            assert numbers(verdicts) == {int(key): int(key) for key in documents}
            together = homes_of(fleet)
            return sum(homes[document] == worker for document, worker in together.items())

        # a few may leave a home that has far more than a third of them
        assert await at_home(question(model=DOCUMENT_FIRST)) >= 45
        # the documents of another tenant have homes of their own
        assert await at_home(question(model=DOCUMENT_FIRST, cache_salt="tenant")) < 45


async def test_a_workers_documents_alone_move_to_their_next_homes_when_it_is_gone() -> None:
    fleet = Fleet(*(StandIn(by_number, DOCUMENT_FIRST) for _ in range(4)))
    documents = texts(60, "word " * 20)
    async with monitored(*(each.client for each in fleet.stand_ins)) as workers:
        before = await each_alone(fleet, workers, documents)
        fleet.stand_ins[0].info = None
        await workers.members[0].probe()
        after = await each_alone(fleet, workers, documents)

    moved = {document for document in before if before[document] != after[document]}
    assert moved == {document for document, worker in before.items() if worker == 0}
    assert {after[document] for document in moved} == {1, 2, 3}


async def test_the_documents_of_a_worker_that_dies_in_a_call_are_scored_at_a_next_home() -> None:
    fleet = Fleet(*(StandIn(by_number, DOCUMENT_FIRST) for _ in range(3)))
    fleet.stand_ins[0].answer = broken
    _, verdicts = await fleet.score(texts(30), question(model=DOCUMENT_FIRST))
    assert numbers(verdicts) == {number: number for number in range(30)}
    assert len(fleet.stand_ins[0].calls) == 1


async def test_settings_of_routing_hold_for_documents_too() -> None:
    asked, tiny = question(model=DOCUMENT_FIRST), texts(8, "")

    async def sizes(count: int = 1, **settings: Any) -> list[list[int]]:
        fleet = Fleet(*(StandIn(by_number, DOCUMENT_FIRST) for _ in range(2)))
        seen = []
        async with monitored(*(each.client for each in fleet.stand_ins), **settings) as workers:
            for _ in range(count):
                await fleet.scoring(workers).score(asked, tiny, soon())
                seen.append(fleet.sizes())
        return seen

    assert 8 in (await sizes())[0], "few tokens are one call"
    assert 0 not in (await sizes(split="always"))[0]
    whole = await sizes(6, split="never")
    assert sorted(whole[-1]) == [0, 48], "whole, to the home of most of its documents"
    spread = await sizes(30, affinity=False)
    assert all(spread[-1])


async def test_a_share_whose_worker_fails_is_scored_elsewhere() -> None:
    fleet = Fleet(StandIn(broken), StandIn(by_number), StandIn(by_number))
    _, verdicts = await fleet.score(texts(30))
    assert numbers(verdicts) == {number: number for number in range(30)}
    assert len(fleet.stand_ins[0].calls) == 1
    assert sorted(fleet.sizes()[1:]) == [10, 20]


async def test_a_request_fails_when_its_share_fails_twice_and_the_others_are_cancelled() -> None:
    busy, cancelled = asyncio.Event(), asyncio.Event()

    async def first(call: ScoreCall) -> Response:
        await busy.wait()
        return await broken(call)

    async def second(call: ScoreCall) -> Response:
        if busy.is_set():
            return await broken(call)
        busy.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    fleet = Fleet(StandIn(first), StandIn(second))

    with pytest.raises(WorkerFailed):
        await fleet.score(texts(20))
    assert cancelled.is_set()
    assert [len(each.calls) for each in fleet.stand_ins] == [1, 2]


async def test_without_a_worker_there_is_none() -> None:
    with pytest.raises(NoWorker):
        await Scoring(Media(Limits(), Decoders()), pool_of()).score(question(), texts(1), soon())


async def test_a_share_that_is_late_costs_only_its_own_documents() -> None:
    async def never(call: ScoreCall) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    fleet = Fleet(StandIn(never), StandIn(by_number))
    digests, verdicts = await fleet.score(texts(20), seconds=1.5)
    assert digests == {INFO.digest}
    late = {key for key, each in verdicts.items() if isinstance(each, DeadlineExceeded)}

    assert len(late) == fleet.sizes()[0] == 10
    assert all(verdicts[key].logit == int(key) for key in verdicts.keys() - late)  # type: ignore[union-attr]


async def test_a_request_in_a_busy_fleet_is_not_split() -> None:
    release = asyncio.Event()

    async def held(call: ScoreCall) -> Response:
        await release.wait()
        return await by_number(call)

    fleet = Fleet(StandIn(held), StandIn(held))

    async with monitored(*(each.client for each in fleet.stand_ins)) as workers:
        scoring = fleet.scoring(workers)
        tasks = []
        for number in range(4):
            tasks.append(
                asyncio.create_task(
                    scoring.score(question((Text(f"q {number}"),)), texts(20), soon())
                )
            )
            async with asyncio.timeout(10):
                while sum(fleet.sizes()) < 20 * (number + 1):
                    await asyncio.sleep(0.001)
        assert fleet.sizes() == [40, 40] or sorted(fleet.sizes()) == [30, 50]
        assert sorted(len(each.calls) for each in fleet.stand_ins) in ([2, 3], [1, 4])
        release.set()
        await asyncio.gather(*tasks)

        assert [worker.load for worker in workers.members] == [0, 0]


# -- images ----------------------------------------------------------------------------------------


class Watching(Media):
    """A media reader that counts the images it decodes, and the most bytes of pixels that were
    held."""

    def __init__(self) -> None:
        super().__init__(Limits(), Decoders())
        self.asked: list[int] = []
        self.out = self.most_out = 0

    async def decode(
        self, pictures: Iterable[Picture], rule: ImageRule, budget: DecodeBudget | None = None
    ) -> dict[bytes, Pixels | RerankError]:
        wanted = list(pictures)
        self.asked.append(len(wanted))
        self.out += sum(pixel_bytes(each, rule) for each in wanted)
        self.most_out = max(self.most_out, self.out)
        return await super().decode(wanted, rule, budget)

    def scored(self, call: ScoreCall) -> None:
        self.out -= pixels_of(call)


async def test_images_go_out_in_growing_chunks_and_the_next_is_decoded_while_one_is_scored() -> (
    None
):
    async def slow(call: ScoreCall) -> Response:
        # the first call is answered only once another chunk has been decoded and sent
        if len(only.calls) == 1:
            async with asyncio.timeout(20):
                while len(only.calls) < 2:
                    await asyncio.sleep(0.001)
        return reply([scored(1) for _ in call.documents])

    only = StandIn(slow)
    _, verdicts = await Fleet(only).score(shown(20))
    assert all(isinstance(each, Scored) for each in verdicts.values())
    sizes = sorted(map(pixels_of, only.calls))

    assert documents_of(only) == 20
    assert len(sizes) == 5
    assert sizes[0] <= FIRST_CHUNK_BYTES < sizes[-1] <= 8 * FIRST_CHUNK_BYTES


@pytest.mark.parametrize("workers", [1, 3])
async def test_a_bounded_number_of_pixels_is_held_whatever_the_split(
    workers: int,
) -> None:
    media = Watching()

    async def counted(call: ScoreCall) -> Response:
        await asyncio.sleep(0.01)
        media.scored(call)
        return reply([scored(1) for _ in call.documents])

    stand_ins = [StandIn(counted) for _ in range(workers)]
    fleet = Fleet(*stand_ins, media=media, pixel_bytes=12 * 2**20)
    await fleet.score(shown(40), split="always")

    assert sum(fleet.sizes()) == 40
    assert len([size for size in fleet.sizes() if size]) == workers
    assert 2 * 2**20 < media.most_out <= 12 * 2**20


async def test_a_mixed_request_whose_pixels_fit_one_chunk_is_one_call() -> None:
    only = Reader()
    documents = {b"first": (Text("1"),)} | shown(1) | {b"last": (Text("2"),)}
    digests, verdicts = await Fleet(only).score(documents)
    assert [(call.documents, len(call.images)) for call in only.calls] == [([["1"], [0], ["2"]], 1)]
    assert digests == {INFO.digest}
    assert [verdicts[key] for key in documents] == [scored(1), scored(0), scored(2)]


async def test_texts_do_not_wait_for_images_of_more_than_one_chunk() -> None:
    only = Reader()
    documents = shown(2) | {b"text": (Text("1"),)}
    await Fleet(only).score(documents)
    assert [call.documents for call in only.calls] == [[["1"]], [[0]], [[0]]]


async def test_a_mixed_request_that_is_split_is_one_call_to_each_worker() -> None:
    fleet = Fleet(StandIn(counted), StandIn(counted))
    long: dict[bytes, Content] = {b"a": (Text(LONG),), b"b": (Text(LONG),)}
    await fleet.score(shown(2) | long, split="always")
    assert [len(each.calls) for each in fleet.stand_ins] == [1, 1]
    assert fleet.sizes() == [2, 2]


async def counted(call: ScoreCall) -> Response:
    return reply([scored(1) for _ in call.documents])


async def test_a_querys_image_is_decoded_once_and_sent_with_every_call() -> None:
    only, media = Reader(), Watching()
    (query,) = shown(1, side=100).values()
    await Fleet(only, media=media).score(shown(8) | {b"text": (Text("1"),)}, question(query))
    assert len(only.calls) > 2
    assert {call.images[0].digest for call in only.calls} == {query[0].digest}  # type: ignore[union-attr]
    assert sum(media.asked) == 9


async def test_a_querys_image_that_cannot_be_read_fails_the_request_before_any_call() -> None:
    only = Reader()
    data = encode(picture())[:70]
    query = (sent_picture(data, ("query", "image")),)
    with pytest.raises(InvalidImage):
        await Fleet(only).score(texts(2) | shown(2), question(query))
    assert only.calls == []


async def test_time_that_ends_while_images_are_decoded_ends_the_request() -> None:
    class Slow(Media):
        async def decode(
            self, pictures: Iterable[Picture], rule: ImageRule, budget: DecodeBudget | None = None
        ) -> dict[bytes, Pixels | RerankError]:
            if any(pictures):
                await asyncio.Event().wait()
            return {}

    only = Reader()
    _, verdicts = await Fleet(only, media=Slow(Limits(), Decoders())).score(
        shown(2) | {b"text": (Text("1"),)}, seconds=1.5
    )

    assert numbers_of(verdicts.values()) == ["deadline_exceeded", "deadline_exceeded", 1.0]


def numbers_of(verdicts: Iterable[PairOutcome]) -> list[float | str]:
    return [each.logit if isinstance(each, Scored) else each.code for each in verdicts]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 6_000), min_size=1, max_size=30), st.integers(1, 4))
async def test_however_it_is_split_each_document_gets_its_own_score(
    lengths: Sequence[int], workers: int
) -> None:
    fleet = Fleet(*(StandIn(by_number) for _ in range(workers)))
    documents: dict[bytes, Content] = {
        b"%d" % index: (Text(f"{index} " + "x" * size),) for index, size in enumerate(lengths)
    }
    _, verdicts = await fleet.score(documents)

    assert numbers(verdicts) == {index: index for index in range(len(lengths))}
    assert sum(fleet.sizes()) == len(lengths)


async def test_a_share_keeps_its_cost_until_its_calls_are_answered() -> None:
    only = StandIn(by_number)
    async with monitored(only.client) as workers:
        call = ScoreCall("m", "find", ["q"], [["1"]], [], truncate=True)
        with workers.dispatches(Workload(INFO, b"k", 100, [10, 20])) as (dispatch,):
            (worker,) = workers.members
            assert worker.load == 130
            await dispatch.score(SameCall(call), 10, soon())
            assert worker.load == 120
            await dispatch.score(SameCall(call), 20, soon())

            assert worker.load == 100
        assert worker.load == 0


class SmallSlices:
    """Turns that are granted at once, for slices of little cost."""

    scope = ""
    is_background = False
    prefixes_a_slice = 1
    slice_cost = 2_048

    def __init__(self) -> None:
        self.costs: list[int] = []

    def expected_part(self) -> float:
        return 1.0

    def turn(self, cost: int) -> AbstractAsyncContextManager[Work]:
        self.costs.append(cost)
        return nullcontext(Work())


async def test_answers_that_take_long_are_written_side_by_side() -> None:
    """A slice of the usual cost would be one answer, and the engine would write a few at a time."""
    model = structs.replace(INFO, max_completion_tokens=2_048)
    writing, turns = StandIn(by_number, model), SmallSlices()
    async with monitored(writing.client) as workers:
        _, verdicts = (
            await Fleet(writing)
            .scoring(workers)
            .score(question(model=model), texts(20, ""), soon(), turns)
        )
        assert workers.sum_ready(turns_of) == TURNS_A_WRITING_WORKER

    assert len(verdicts) == 20
    assert [len(call.documents) for call in writing.calls] == [8, 8, 4]
    assert sum(turns.costs) > 20 * 2_048

    both = StandIn(by_number, model), StandIn(by_number)
    async with monitored(*(each.client for each in both)) as workers:
        assert workers.sum_ready(turns_of) == TURNS_A_WRITING_WORKER + TURNS_A_WORKER
