"""mteb evaluates a running service: its scores are the service's, in all nine cells."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import mteb
import pytest
from mteb.models import CrossEncoderProtocol

from model_store.evaluation.metrics import ndcg, ranked
from model_store.evaluation.runs.scorer import ModelChanged, ScoringStopped
from model_store.synthetic import cells
from model_store.synthetic.examples import Side
from service.mteb import GmrService, RefusedDocument
from tests.cli.client.answers import answer, scripted
from tests.conftest import Rerank, free_port
from tests.mteb.tasks import MadeTask, cell_task, described, picture, text

QUIET: dict[str, Any] = {"cache": None, "show_progress_bar": False, "co2_tracker": False}


def item(side: Side) -> dict[str, str]:
    found = {} if text(side) is None else {"text": str(text(side))}
    shown = picture(side)
    return found if shown is None else {**found, "image": base64.b64encode(shown).decode()}


def predictions(folder: Path) -> dict[str, dict[str, float]]:
    (file,) = folder.glob("*.json")
    found: dict[str, dict[str, float]] = json.loads(file.read_text(encoding="utf-8"))["default"][
        "test"
    ]
    return found


@pytest.fixture(scope="module")
def gmr(server: str) -> GmrService:
    return GmrService(server)


@pytest.mark.parametrize("cell", cells.CELLS)
def test_a_cells_scores_and_ndcg_are_the_services_own(
    cell: str, gmr: GmrService, rerank: Rerank, tmp_path: Path
) -> None:
    task, examples = cell_task(cell)
    result = mteb.evaluate(gmr, task, prediction_folder=tmp_path, **QUIET)

    found = predictions(tmp_path)
    assert list(found) == ["q0", "q1"]
    values = []
    for number, example in enumerate(examples):
        ranking = rerank(
            query=item(example.query),
            documents=[item(document) for document in example.documents],
            instruction=example.instruction,
        ).json()
        due = {f"q{number}-d{each['index']}": each["logit"] for each in ranking["results"]}
        assert found[f"q{number}"] == due
        scores = [due[f"q{number}-d{place}"] for place in range(len(due))]
        values.append(ndcg(ranked(scores, [1.0, *[0.0] * (len(due) - 1)]), 10))
    assert result.task_results[0].get_score() == pytest.approx(sum(values) / 2, abs=1e-5)


def passages(*documents: str, instructions: tuple[str, ...] = ()) -> MadeTask:
    """A task of one query, or of one for each instruction, for the same documents."""
    rows = [
        {"id": f"q{number}", "text": "a red circle"} for number in range(max(len(instructions), 1))
    ]
    for row, instruction in zip(rows, instructions, strict=False):
        row["instruction"] = instruction
    names = [f"d{number}" for number in range(len(documents))]
    return MadeTask(
        described("Passages", "t2t", None),
        rows,
        [{"id": name, "text": each} for name, each in zip(names, documents, strict=True)],
        {row["id"]: {"d0": 1} for row in rows},
        {row["id"]: names for row in rows},
    )


async def test_it_works_where_an_event_loop_is_running(
    gmr: GmrService, rerank: Rerank, tmp_path: Path
) -> None:
    """As in a notebook. Instructions of single queries reach the prompt's place for them."""
    instructions = ("Find a picture.", "Find a text.")
    task = passages("red", "blue", "red", instructions=instructions)
    mteb.evaluate(gmr, task, prediction_folder=tmp_path, **QUIET)
    found = predictions(tmp_path)
    for number, instruction in enumerate(instructions):
        ranking = rerank(
            query="a red circle", documents=["red", "blue", "red"], instruction=instruction
        ).json()
        due = {f"d{each['index']}": each["logit"] for each in ranking["results"]}
        assert found[f"q{number}"] == due


class TestRefusedDocuments:
    def test_they_rank_last_in_the_order_of_the_first_stage(
        self, gmr: GmrService, tmp_path: Path
    ) -> None:
        before = gmr.refused_documents
        with pytest.warns(UserWarning, match=r"^Passages \(default, test\): 2 of 4 documents were"):
            mteb.evaluate(gmr, passages("", "red", "", "blue"), prediction_folder=tmp_path, **QUIET)
        (found,) = predictions(tmp_path).values()
        order = sorted(found, key=found.__getitem__, reverse=True)
        assert order[2:] == ["d0", "d2"]
        assert gmr.refused_documents == before + 2

    def test_one_ends_the_evaluation_where_that_is_wanted(self, server: str) -> None:
        strict = GmrService(server, refused="raise")
        with pytest.raises(RefusedDocument, match=r"^query 'q0', document 'd1': .* needs a text"):
            mteb.evaluate(strict, passages("red", ""), **QUIET)

    def test_an_evaluation_without_any_score_is_none(self, gmr: GmrService) -> None:
        with pytest.raises(ScoringStopped, match=r"every document was refused"):
            mteb.evaluate(gmr, passages("", " "), **QUIET)


def test_it_reranks_what_a_retriever_of_mteb_found(gmr: GmrService, tmp_path: Path) -> None:
    task, _ = cell_task("T-T")
    for split in task.made.values():
        split["top_ranked"] = None
    retriever = mteb.get_model("mteb/baseline-random-encoder")
    mteb.evaluate(retriever, task, prediction_folder=tmp_path, **QUIET)
    first = predictions(tmp_path)

    (kept,) = tmp_path.glob("*.json")
    reranking = task.convert_to_reranking(kept, top_k=3)
    mteb.evaluate(gmr, reranking, prediction_folder=tmp_path / "reranked", **QUIET)
    for query, found in predictions(tmp_path / "reranked").items():
        best = sorted(first[query], key=first[query].__getitem__, reverse=True)
        assert found.keys() == set(best[:3])


class TestDescription:
    def test_it_is_the_served_model(self, gmr: GmrService, rerank: Rerank) -> None:
        digest = rerank(query="a", documents=["a"]).json()["meta"]["model_digest"]
        meta = gmr.mteb_model_meta
        assert isinstance(gmr, CrossEncoderProtocol)
        assert (meta.name, f"sha256:{meta.revision}") == ("gmr-rerank/gmr-tiny", digest)
        assert meta.modalities == ["text", "image"]
        assert meta.is_cross_encoder
        assert meta.experiment_name is None

    def test_another_instruction_is_another_experiment(self, server: str) -> None:
        """mteb keeps results by the model's name, revision and experiment."""
        other = GmrService(server, model="gmr-tiny", name="team/ours", instruction="Find it.")
        assert other.mteb_model_meta.name == "team/ours"
        assert other.mteb_model_meta.experiment_name


def of_digest(digest: str) -> bytes:
    """The answer to both `GET /info` and `POST /rerank` of a service."""
    body = {
        "model": "m",
        "model_digest": digest,
        "results": [],
        "meta": {"model_digest": digest},
        "limits": {},
    }
    return answer("200 OK", json.dumps(body))


def test_another_model_than_the_one_of_the_object_is_refused() -> None:
    with scripted([of_digest("a"), of_digest("a"), of_digest("b")]) as service:
        gmr = GmrService(service.url)
        with pytest.raises(ModelChanged, match="another model now"):
            mteb.evaluate(gmr, passages("red"), **QUIET)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"url": "ftp://host"}, "begins with http"),
        ({"key": "two words"}, "one word"),
        ({"concurrency": 0}, "from 1 to 256"),
        ({"refused": "no"}, "'last' or 'raise'"),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        GmrService(**arguments)


def test_no_service_is_one_sentence() -> None:
    with pytest.raises(ScoringStopped, match=r"^Nothing answers at http://127\.0\.0\.1:\d+\.$"):
        GmrService(f"http://127.0.0.1:{free_port()}")
