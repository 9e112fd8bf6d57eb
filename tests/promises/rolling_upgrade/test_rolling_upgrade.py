"""During a roll-out of a new checkpoint, no request fails, and every answer has the scores of
one checkpoint, which it names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import CALM
from tests.processes import Gmr, eventually
from tests.promises.load import Body, load, logits
from tests.promises.rolling_upgrade.checkpoints import publish_newer

pytestmark = pytest.mark.slow

CALLERS = 4
QUESTIONS: list[Body] = [
    {
        "query": f"question number {number}",
        "documents": [f"document {place} of {number} " * 9 for place in range(8)],
    }
    for number in range(7)
]
BODIES: list[Body] = [
    body | {"cache": cache, "timeout_ms": 60_000}
    for body in QUESTIONS
    for cache in ("use", "bypass", "use", "refresh")
]
SETTINGS = {
    "RERANK_SPLIT": "always",  # a request's shares meet both checkpoints as often as can be
    "RERANK_CAPACITY_TOKENS": "4000000",
}

Answers = dict[str, dict[int, float]]


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_newer(tmp_path_factory.mktemp("checkpoints") / "newer")


@pytest.fixture
def running(newer: Path, tmp_path: Path) -> Iterator[tuple[Gmr, list[Gmr], list[Gmr]]]:
    """A gateway with four workers: two with the old checkpoint, which run, and two with the new
    one, which do not run yet."""
    old = [Gmr("worker", log=tmp_path / f"old-{number}", **CALM) for number in range(2)]
    new = [
        Gmr("worker", log=tmp_path / f"new-{number}", **CALM, RERANK_MODEL=str(newer))
        for number in range(2)
    ]
    urls = ",".join(each.url for each in (*old, *new))
    with ExitStack() as stack:
        for each in old:
            stack.enter_context(each)
        gateway = stack.enter_context(
            Gmr("gateway", "--workers", urls, log=tmp_path / "gateway", **SETTINGS)
        )
        stack.callback(lambda: [each.end() for each in new if each.running()])
        eventually(lambda: all(each.ready() for each in (*old, gateway)))
        eventually(lambda: ready(gateway) == 2, why=gateway.said)
        yield gateway, old, new


def ready(gateway: Gmr) -> float:
    return gateway.metric('rerank_workers{state="ready"}')


def scores(gateway: Gmr) -> tuple[str, Answers]:
    """The digest that is served, and each question's logits by it."""
    answers = {body["query"]: gateway.rerank(**body, cache="bypass") for body in QUESTIONS}
    (digest,) = {answer.json()["meta"]["model_digest"] for answer in answers.values()}
    return digest, {query: logits(answer) for query, answer in answers.items()}


def test_a_fleet_goes_from_one_checkpoint_to_the_next(
    running: tuple[Gmr, list[Gmr], list[Gmr]],
) -> None:
    gateway, old, new = running
    before, expected_before = scores(gateway)
    with load(gateway, BODIES, CALLERS) as done:
        done.more(len(BODIES))
        for leaving, coming in zip(old, new, strict=True):
            coming.start()
            eventually(lambda: ready(gateway) == 3, why=gateway.said)
            done.more(CALLERS)
            if leaving is old[0]:
                leaving.end()
            else:
                leaving.kill()
            eventually(lambda: ready(gateway) == 2, why=gateway.said)
            done.more(len(BODIES))
        done.more(len(BODIES))
    after, expected_after = scores(gateway)
    assert before != after
    assert all(
        furthest(expected_before[query], expected_after[query]) > 0.1 for query in expected_before
    )
    cached: dict[str, int] = {before: 0, after: 0}
    for body, answer in done.answers:
        found, digest = logits(answer), answer.json()["meta"]["model_digest"]
        expected = {before: expected_before, after: expected_after}[digest]
        assert found == pytest.approx(expected[body["query"]], abs=1e-4)
        cached[digest] += answer.json()["meta"]["cached_pairs"]
    assert all(cached.values()), "each checkpoint's scores were remembered, and used for it alone"
    assert done.answers[-1][1].json()["meta"]["model_digest"] == after


def furthest(one: dict[int, float], other: dict[int, float]) -> float:
    return max(abs(one[index] - other[index]) for index in one)
