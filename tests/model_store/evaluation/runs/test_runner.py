"""The runner, with scores that the test determines: queries once, failures, shards, refusals."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from model_store.evaluation.runs.candidates import Candidates
from model_store.evaluation.runs.folder import open_run
from model_store.evaluation.runs.identity import RunIdentity, RunTask
from model_store.evaluation.runs.journal import RunUnusable
from model_store.evaluation.runs.lock import shard_lock
from model_store.evaluation.runs.query_result import QueryResult
from model_store.evaluation.runs.runner import Plan, Summary, score_run
from model_store.evaluation.runs.scorer import (
    ModelChanged,
    QueryFailed,
    Scored,
    ScoringStopped,
)
from model_store.evaluation.runs.scoring import MAX_FAILURES_IN_A_ROW
from model_store.evaluation.runs.shards import Shard
from model_store.evaluation.tasks.benchmark import Benchmark, Task
from model_store.evaluation.tasks.dataset import Dataset, Item, TaskUnusable

DIGEST = "sha256:one"


class Texts(dict[str, Item]):
    """Items in memory."""

    @property
    def ids(self) -> Sequence[str]:
        return list(self)


def texts(*items: tuple[str, str]) -> Texts:
    return Texts({name: Item(name, text, None) for name, text in items})


@dataclass(frozen=True)
class Source:
    """A dataset that is there."""

    dataset: Dataset

    @property
    def name(self) -> str:
        return self.dataset.name

    def load(self) -> Dataset:
        return self.dataset


@dataclass
class Lengths:
    """A scorer by the length of texts, which can fail."""

    digest: str = DIGEST
    failing: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    asked: list[tuple[str, str | None, list[str]]] = field(default_factory=list)

    async def score(
        self, instruction: str | None, query: Item, documents: Sequence[Item]
    ) -> Scored:
        self.asked.append((query.id, instruction, [document.id for document in documents]))
        if query.id in self.failing:
            raise QueryFailed("It is not read.")
        scores: list[float | None] = []
        refusals: dict[int, str] = {}
        for position, document in enumerate(documents):
            if document.id in self.refused:
                refusals[position] = "It is not read."
            scores.append(None if document.id in self.refused else float(len(document.text or "")))
        return Scored(scores, self.digest, refusals, prompt_tokens=10, cached_pairs=1)


@dataclass
class RecordedProgress:
    """A `Progress` that records its calls."""

    begun: tuple[int, int] = (0, 0)
    results: list[QueryResult] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def notice(self, sentence: str) -> None:
        self.notices.append(sentence)

    waited: asyncio.Event = field(default_factory=asyncio.Event)

    def preparing(self, dataset: str) -> None:
        pass

    def waiting(self, dataset: str) -> None:
        self.waited.set()

    def begin(self, total: int, done: int) -> None:
        self.begun = total, done

    def scored(self, result: QueryResult) -> None:
        self.results.append(result)


DOCUMENTS = texts(("a", "x"), ("b", "xxx"), ("c", "x"), ("d", "xx"), ("q1", "xxxx"))
CANDIDATES = {
    "q0": ["a", "b", "c", "d"],
    "q1": ["q1", "b", "a"],
    "q2": [],
    "q3": ["d"],
}
DATASET = Dataset(
    "one",
    texts(*((query, f"query {query}") for query in CANDIDATES), ("unjudged", "it")),
    DOCUMENTS,
    judgements={
        "q0": {"b": 2, "c": 1, "d": 0},
        "q1": {"b": 1},
        "q2": {"a": 1},
        "q3": {"d": 3, "a": 1},
    },
    digest="sha256:data",
    instruction="Find it.",
    instructions={"q3": "Find another."},
    candidates=CANDIDATES,
    excludes_the_query=True,
)


def many(count: int) -> Dataset:
    queries = [f"q{number}" for number in range(count)]
    return replace(
        DATASET,
        queries=texts(*((query, query) for query in queries)),
        judgements={query: {"b": 1} for query in queries},
        candidates={query: ["a", "b"] for query in queries},
        instructions=None,
    )


def own(dataset: Dataset, queries: Sequence[str]) -> Candidates:
    assert dataset.candidates is not None
    return dataset.candidates


def plan(folder: Path, dataset: Dataset = DATASET, top_k: int = 3) -> Plan:
    benchmark = Benchmark("small", (Task("row", "T-T", "ndcg@10", (Source(dataset),)),))
    tasks = [RunTask("row", "T-T", "ndcg@10", [dataset.name])]
    identity = RunIdentity("small", tasks, "own", top_k, "lengths", DIGEST)
    return Plan(folder, benchmark, identity, own, concurrency=3)


def results(*folders: Path) -> dict[str, QueryResult]:
    listed = list(open_run(*folders).results())
    found = {result.query: result for result in listed}
    assert len(found) == len(listed)
    return found


async def test_a_query_is_scored_once_and_equal_documents_once(tmp_path: Path) -> None:
    scorer, told = Lengths(), RecordedProgress()
    summary = await score_run(plan(tmp_path / "run"), scorer, told)

    assert sorted(scorer.asked) == [
        ("q0", "Find it.", ["a", "b"]),  # c has the text of a, and d is the fourth
        ("q1", "Find it.", ["b", "a"]),  # without the query
        ("q3", "Find another.", ["d"]),
    ]
    found = results(tmp_path / "run")
    assert found["q0"] == QueryResult(
        *("one", "q0", ["a", "b", "c"], [1, 3, 1], [0, 2, 1], [2, 1], "", 10, 1),
        instruction="Find it.",
    )
    assert found["q2"] == QueryResult("one", "q2", [], [], [], [1], instruction="Find it.")
    assert found["q3"].ideal == [3, 1]
    assert told.begun == (4, 0)
    assert summary == Summary(queries=4, pairs=6, prompt_tokens=30, cached_pairs=3)

    again = Lengths()
    assert await score_run(plan(tmp_path / "run"), again, told) == Summary()
    assert again.asked == []
    assert told.begun == (4, 4)


async def test_failures_and_refusals_are_recorded_and_failures_are_scored_again(
    tmp_path: Path,
) -> None:
    scorer = Lengths(failing={"q1"}, refused={"d", "b"})
    summary = await score_run(plan(tmp_path / "run"), scorer, RecordedProgress())
    assert (summary.queries, summary.failed, summary.refused) == (4, 2, 1)
    assert summary.first_refusal == "It is not read."
    found = results(tmp_path / "run")
    assert found["q0"].scores == [1, None, 1]
    assert found["q0"].refusal == "It is not read."
    assert (found["q1"].scores, found["q1"].error) == ([None, None], "It is not read.")
    assert found["q3"].error == "All documents were refused: It is not read."

    again, told = Lengths(), RecordedProgress()
    await score_run(plan(tmp_path / "run"), again, told)
    assert told.begun == (4, 2)
    assert {query for query, *_ in again.asked} == {"q1", "q3"}
    assert results(tmp_path / "run")["q1"].error == ""
    assert results(tmp_path / "run")["q0"] == found["q0"]


async def test_shards_are_parts_of_one_run_in_one_folder_or_in_several(tmp_path: Path) -> None:
    await score_run(plan(tmp_path / "whole", many(40)), Lengths(), RecordedProgress())
    whole = results(tmp_path / "whole")
    for index in range(3):
        for folder in ("shared", f"own{index}"):
            part = replace(plan(tmp_path / folder, many(40)), shard=Shard(index, 3))
            summary = await score_run(part, Lengths(), RecordedProgress())
            assert 0 < summary.queries < 40

    assert results(tmp_path / "shared") == whole
    assert results(*(tmp_path / f"own{index}" for index in range(3))) == whole
    more = Lengths()  # another number of shards finds what is done
    await score_run(plan(tmp_path / "shared", many(40)), more, RecordedProgress())
    assert more.asked == []


async def test_a_model_that_changes_ends_the_run_which_the_old_one_continues(
    tmp_path: Path,
) -> None:
    class Changing(Lengths):
        async def score(
            self, instruction: str | None, query: Item, documents: Sequence[Item]
        ) -> Scored:
            self.digest = DIGEST if len(self.asked) < 7 else "sha256:two"
            return await super().score(instruction, query, documents)

    folder = tmp_path / "run"
    with pytest.raises(ModelChanged, match="from sha256:one to sha256:two: a run has the scores"):
        await score_run(plan(folder, many(20)), Changing(), RecordedProgress())
    assert len(results(folder)) == 7

    other = plan(folder, many(20))
    other = replace(other, identity=RunIdentity("small", other.identity.tasks, "own", 3, "", "two"))
    with pytest.raises(RunUnusable, match="its model_digest is sha256:one, not two; give another"):
        await score_run(other, Lengths("two"), RecordedProgress())
    await score_run(plan(folder, many(20)), Lengths(), RecordedProgress())
    assert len(results(folder)) == 20


async def test_a_service_at_fault_ends_the_run(tmp_path: Path) -> None:
    queries = {f"q{number}" for number in range(200)}
    with pytest.raises(ScoringStopped, match=f"{MAX_FAILURES_IN_A_ROW} queries failed one after"):
        await score_run(
            plan(tmp_path / "run", many(200)), Lengths(failing=queries), RecordedProgress()
        )
    first = len(results(tmp_path / "run"))
    assert MAX_FAILURES_IN_A_ROW <= first < MAX_FAILURES_IN_A_ROW + 3  # of 3 queries at a time

    untried = Lengths(failing=queries)
    with pytest.raises(ScoringStopped):
        await score_run(plan(tmp_path / "run", many(200)), untried, RecordedProgress())
    assert len(results(tmp_path / "run")) >= 2 * MAX_FAILURES_IN_A_ROW  # not the same ones


async def test_max_queries_chooses_the_same_ones_every_time(tmp_path: Path) -> None:
    for name in ("first", "second"):
        few = plan(tmp_path / name, many(50))
        identity = RunIdentity("small", few.identity.tasks, "own", 3, "", DIGEST, max_queries=5)
        await score_run(replace(few, identity=identity), Lengths(), RecordedProgress())
    assert len(results(tmp_path / "first")) == 5
    assert results(tmp_path / "first") == results(tmp_path / "second")


async def test_candidates_are_found_once(tmp_path: Path) -> None:
    asked: list[Sequence[str]] = []

    def first_stage(dataset: Dataset, queries: Sequence[str]) -> Candidates:
        asked.append(queries)
        return {query: ["b", "b", "a"] for query in queries}

    data, told = replace(DATASET, missing_documents=7), RecordedProgress()
    found = replace(plan(tmp_path / "run", data), first_stage=first_stage)
    await score_run(replace(found, shard=Shard(0, 2)), Lengths(), told)
    assert told.notices == ["one: 7 judged documents are not in its data, and count as missed."]
    await score_run(replace(found, shard=Shard(1, 2)), Lengths(), RecordedProgress())
    assert asked == [["q0", "q1", "q2", "q3"]]
    assert results(tmp_path / "run")["q2"].candidates == ["b", "a"]


async def test_a_run_that_finds_candidates_is_not_replaced_by_another(tmp_path: Path) -> None:
    finding, go_on = threading.Event(), threading.Event()

    def slow(dataset: Dataset, queries: Sequence[str]) -> Candidates:
        finding.set()
        assert go_on.wait(60)
        return own(dataset, queries)

    folder = tmp_path / "run"
    first = asyncio.create_task(
        score_run(replace(plan(folder), first_stage=slow), Lengths(), RecordedProgress())
    )
    assert await asyncio.to_thread(finding.wait, 60)
    other = replace(plan(folder, top_k=2), shard=Shard(0, 2))
    with pytest.raises(RunUnusable, match="another process finds the candidates of another run"):
        await score_run(other, Lengths(), RecordedProgress())

    told = RecordedProgress()
    second = asyncio.create_task(
        score_run(replace(plan(folder), shard=Shard(0, 2)), Lengths(), told)
    )
    await told.waited.wait()
    second.cancel()  # as Ctrl-C does
    with pytest.raises(asyncio.CancelledError):
        await second
    go_on.set()
    await first
    assert len(results(folder)["q0"].scores) == 3


async def test_a_cancelled_run_does_not_wait_for_its_search(tmp_path: Path) -> None:
    finding, go_on = threading.Event(), threading.Event()

    def endless(dataset: Dataset, queries: Sequence[str]) -> Candidates:
        finding.set()
        go_on.wait(60)
        return own(dataset, queries)

    def interrupted() -> None:
        async def run() -> None:
            searching = replace(plan(tmp_path / "run"), first_stage=endless)
            task = asyncio.create_task(score_run(searching, Lengths(), RecordedProgress()))
            while not finding.is_set():
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.wait([task])

        asyncio.run(run())

    await asyncio.to_thread(interrupted)
    assert not go_on.is_set()
    assert not (tmp_path / "run" / "datasets").exists()
    go_on.set()


async def test_what_is_wrong_leaves_no_folder_behind(tmp_path: Path) -> None:
    class Missing(Source):
        def load(self) -> Dataset:
            raise TaskUnusable("The data is not there.")

    wrong = plan(tmp_path / "run")
    task = Task("row", "T-T", "ndcg@10", (Missing(DATASET),))
    with pytest.raises(TaskUnusable, match="The data is not there"):
        await score_run(
            replace(wrong, benchmark=Benchmark("small", (task,))), Lengths(), RecordedProgress()
        )
    assert not (tmp_path / "run").exists()


async def test_candidates_that_are_no_documents_are_refused(tmp_path: Path) -> None:
    dataset = replace(DATASET, candidates={"q0": ["a", "zz"]})
    with pytest.raises(TaskUnusable, match="the candidate 'zz' of the query 'q0' is no document"):
        await score_run(plan(tmp_path / "run", dataset), Lengths(), RecordedProgress())
    other = plan(tmp_path / "run", top_k=2)  # the folder is as good as new
    await score_run(other, Lengths(), RecordedProgress())
    assert len(results(tmp_path / "run")["q0"].scores) == 2


async def test_folders_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    await score_run(plan(folder), Lengths(), RecordedProgress())
    with pytest.raises(RunUnusable, match=r"holds another run: its top_k is 3, not 2; give"):
        await score_run(plan(folder, top_k=2), Lengths(), RecordedProgress())
    changed = plan(folder, replace(DATASET, digest="other"))
    with pytest.raises(RunUnusable, match="the data of one has changed since the run began"):
        await score_run(changed, Lengths(), RecordedProgress())
    await score_run(
        replace(changed, is_pinned=True), Lengths(), RecordedProgress()
    )  # is not read again
    (tmp_path / "run" / "datasets" / "000-one" / "results-0-of-1.jsonl").unlink()
    with pytest.raises(RunUnusable, match="the data of one has changed since the run began"):
        await score_run(replace(changed, is_pinned=True), Lengths(), RecordedProgress())
    with (
        shard_lock(folder, Shard()),
        pytest.raises(RunUnusable, match=r"another process scores this part of the run \(process"),
    ):
        await score_run(plan(folder), Lengths(), RecordedProgress())

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(RunUnusable, match="it holds files, and no run"):
        await score_run(plan(tmp_path / "full"), Lengths(), RecordedProgress())
    with pytest.raises(RunUnusable, match=r"there is no run in it \(run\.json is missing\)"):
        open_run(tmp_path / "full")
    await score_run(plan(tmp_path / "other", top_k=1), Lengths(), RecordedProgress())
    with pytest.raises(RunUnusable, match=r"is no part of the run in .*: its top_k is 1, not 3"):
        open_run(folder, tmp_path / "other")
