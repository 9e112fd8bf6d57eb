"""mteb's tasks, made here in the shapes of its loaders, and read as benchmarks."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from model_store.evaluation.tasks.dataset import Dataset, TaskUnusable
from model_store.evaluation.tasks.opening import open_benchmark
from model_store.evaluation.tasks.readers.mteb_source import MtebSource, read_task

datasets = pytest.importorskip("datasets")
pytest.importorskip("mteb")

from mteb.abstasks.retrieval import AbsTaskRetrieval  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402

COLOURS = ("red", "green", "blue")


def picture(colour: str, form: str = "PNG") -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(encoded, form)
    return encoded.getvalue()


def table(rows: list[dict[str, Any]]) -> Any:
    made = datasets.Dataset.from_list(rows)
    if "image" in made.column_names:
        made = made.cast_column("image", datasets.Image())
    return made


def task_of(category: str, parts: dict[str, Any], subset: str = "default") -> Any:
    """A task whose data is made here, in the form of mteb 2."""
    metadata = TaskMetadata(
        name="Made",
        description="Made here.",
        dataset={"path": "made/here", "revision": "r1"},
        type="Any2AnyRetrieval",
        category=category,
        modalities=["text", "image"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"] if subset == "default" else {subset: ["eng-Latn"]},
        main_score="ndcg_at_10",
        prompt={"query": "Find it."},
    )

    class Made(AbsTaskRetrieval):  # type: ignore[misc]
        def load_data(self, *args: object, **kwargs: object) -> None:
            self.dataset = {subset: {"test": {"top_ranked": None, **parts}}}
            self.data_loaded = True

    Made.metadata = metadata
    return Made()


def source(**changes: Any) -> MtebSource:
    return MtebSource(**{"task": "Made", "revision": "r1", "instruction": "Find it.", **changes})


def side(modalities: str, kind: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for colour in COLOURS:
        row: dict[str, Any] = {"id": f"{kind}-{colour}", "modality": modalities}
        if "t" in modalities:
            row["text"] = f"a {colour} square"
        if "i" in modalities:
            row["image"] = {"bytes": picture(colour, "JPEG"), "path": None}
        rows.append(row)
    return rows


def read(category: str, **parts: Any) -> Dataset:
    queries, documents = category.split("2")
    made = {
        "queries": table(side(queries, "q")),
        "corpus": table(side(documents, "d")),
        "relevant_docs": {f"q-{colour}": {f"d-{colour}": 1} for colour in COLOURS},
    }
    return read_task(task_of(category, made | parts), source())


@pytest.mark.parametrize("category", ["t2t", "i2i", "t2i", "i2t", "t2it", "it2t", "it2i", "it2it"])
def test_every_pair_of_modalities_is_read(category: str) -> None:
    dataset = read(category)
    assert list(dataset.queries.ids) == [f"q-{colour}" for colour in COLOURS]
    assert dataset.judgements["q-red"] == {"d-red": 1}
    for items, kind, modalities in zip(
        (dataset.queries, dataset.documents), "qd", category.split("2"), strict=True
    ):
        item = items[f"{kind}-green"]
        assert item.text == ("a green square" if "t" in modalities else None)
        assert item.image == (picture("green", "JPEG") if "i" in modalities else None)
    assert (dataset.instruction, dataset.candidates) == ("Find it.", None)


def test_titles_come_before_texts_and_columns_of_other_sides_are_not_read() -> None:
    corpus = [
        {"id": "d-red", "title": "Red", "text": "a square ", "image": None},
        {"id": "d-green", "title": "", "text": " a square", "image": None},
        {"id": "d-blue", "title": None, "text": None, "image": None},
    ]
    documents = read("t2t", corpus=table(corpus)).documents
    assert [documents[item_id].text for item_id in documents.ids] == [
        "Red a square",
        " a square",
        "",
    ]


def test_a_picture_of_another_format_becomes_a_png() -> None:
    corpus = [*side("i", "d")[:2], {"id": "d-blue", "image": {"bytes": picture("blue", "BMP")}}]
    image = read("t2i", corpus=table(corpus)).documents["d-blue"].image
    assert image is not None
    decoded = Image.open(io.BytesIO(image))
    assert (decoded.format, decoded.getpixel((3, 3))) == ("PNG", (0, 0, 255))


def test_candidates_of_the_data_are_its_own_first_stage() -> None:
    ranked = {"q-red": ["d-blue", "d-red"], "q-green": ["d-green"]}
    dataset = read("t2t", top_ranked=ranked)
    assert dataset.candidates == {**ranked, "q-blue": []}
    with pytest.raises(TaskUnusable, match="candidate 'd-pink' of query 'q-red' is no document"):
        read("t2t", top_ranked={"q-red": ["d-pink"]})


def test_candidates_that_exclude_documents_are_no_first_stage() -> None:
    made = {
        "queries": table(side("t", "q")),
        "corpus": table(side("t", "d")),
        "relevant_docs": {"q-red": {"d-red": 1}, "q-green": {"d-green": 1}},
        "top_ranked": {"q-red": ["d-red", "d-blue"], "q-green": ["d-red", "d-green", "d-blue"]},
    }
    dataset = read_task(task_of("t2t", made), source(candidates_exclude=True))
    assert (dataset.candidates, dataset.excluded) == (None, {"q-red": {"d-green"}})
    assert not dataset.allows("q-red", "d-green")
    assert dataset.allows("q-green", "d-green")


def test_judgements_of_other_subsets_are_left_out_and_missing_documents_are_counted() -> None:
    relevant = {"q-red": {"d-red": 1, "d-same-as-red": 1}, "q-rouge": {"d-red": 1}, "q-blue": {}}
    dataset = read("t2t", relevant_docs=relevant)
    assert dataset.judgements == {"q-red": relevant["q-red"]}
    assert dataset.missing_documents == 1
    with pytest.raises(TaskUnusable, match="2 of 2 judged documents are not among its documents"):
        read("t2t", relevant_docs={"q-red": {"x": 1, "y": 1}})


def test_the_digest_does_not_depend_on_the_order_of_judgements() -> None:
    relevant = {f"q-{colour}": {f"d-{colour}": 1, "d-red": 2} for colour in COLOURS}
    turned = {query: dict(reversed(grades.items())) for query, grades in reversed(relevant.items())}
    digests = [read("t2t", relevant_docs=each).digest for each in (relevant, turned)]
    assert digests[0] == digests[1]
    relevant["q-red"]["d-red"] = 1
    assert read("t2t", relevant_docs=relevant).digest != digests[0]


def test_instructions_of_single_queries_are_theirs() -> None:
    queries = [{**row, "instruction": f"Find {row['id']}."} for row in side("t", "q")]
    dataset = read("t2t", queries=table(queries))
    assert dataset.instruction_of("q-red") == "Find q-red."
    assert dataset.queries["q-red"].text == "a red square"


def test_tasks_in_the_form_of_mteb_1_are_read() -> None:
    class Old(AbsTaskRetrieval):  # type: ignore[misc]
        metadata = task_of("t2t", {}).metadata

        def load_data(self, *args: object, **kwargs: object) -> None:
            self.queries = {"test": {"q1": "red"}}
            self.corpus = {"test": {"d1": {"title": "Red", "text": "square"}, "d2": "blue"}}
            self.relevant_docs = {"test": {"q1": {"d1": 1}}}
            self.data_loaded = True

    dataset = read_task(Old(), source())
    assert dataset.documents["d1"].text == "Red square"
    assert dataset.judgements == {"q1": {"d1": 1}}


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (
            {"corpus": [{"id": "d1"}, {"id": "d1"}]},
            "Made: its document table has no column 'text'.",
        ),
        (
            {"corpus": [{"id": "d1", "text": "a"}, {"id": "d1", "text": "b"}]},
            "Made: document 'd1' is there twice.",
        ),
        ({"queries": [{"id": "", "text": "a"}]}, "Made: the id of query 1 does not have 1 to 512"),
        ({"relevant_docs": {"q-red": {"d-red": 0.5}}}, "Made: a grade of query 'q-red' is no"),
        ({"relevant_docs": {}}, "Made: there are no judgements of its queries."),
    ],
)
def test_data_of_another_shape_is_a_sentence(parts: dict[str, Any], sentence: str) -> None:
    made = {name: table(rows) if isinstance(rows, list) else rows for name, rows in parts.items()}
    with pytest.raises(TaskUnusable) as refused:
        read("t2t", **made)
    assert str(refused.value).startswith(sentence)


def test_a_picture_that_is_none_is_a_sentence_when_it_is_read() -> None:
    corpus = [*side("i", "d")[:2], {"id": "d-blue", "image": {"bytes": b"no picture"}}]
    documents = read("t2i", corpus=table(corpus)).documents
    with pytest.raises(TaskUnusable, match="Made: the image of document 'd-blue' cannot be read"):
        documents["d-blue"]


def write_vidore(folder: Path) -> None:
    """A reranking task of ViDoRe v3.1, in the files that mteb's own loader reads."""
    parts = {
        "corpus": side("it", "d"),
        "queries": [{"_id": f"q-{colour}", "text": colour} for colour in COLOURS],
        "qrels": [
            {"query-id": f"q-{colour}", "corpus-id": f"d-{colour}", "score": 2}
            for colour in COLOURS[:2]
        ],
        "top_ranked": [
            {"query-id": f"q-{colour}", "corpus-ids": ["d-blue", "d-red"]} for colour in COLOURS
        ],
    }
    configs = []
    for subset in ("english", "french"):
        for part, rows in parts.items():
            name = f"{subset}-{part}"
            table(rows).to_parquet(folder / f"{name}.parquet")
            configs.append(
                f"- config_name: {name}\n  data_files:\n  - split: test\n    path: {name}.parquet"
            )
    (folder / "README.md").write_text("---\nconfigs:\n" + "\n".join(configs) + "\n---\n")


def test_mtebs_own_loader_reads_the_data_of_a_subset(tmp_path: Path) -> None:
    write_vidore(tmp_path)
    made = task_of("t2it", {}, "english")
    task = type("OnDisk", (AbsTaskRetrieval,), {"metadata": made.metadata})()
    task.metadata = made.metadata.model_copy(
        update={"dataset": {"path": str(tmp_path), "revision": None}}
    )

    dataset = read_task(task, source(subset="english"))
    assert dataset.name == "Made/english"
    assert list(dataset.queries.ids) == ["q-red", "q-green"]
    assert dataset.judgements == {"q-red": {"d-red": 2}, "q-green": {"d-green": 2}}
    assert dataset.candidates == {query: ["d-blue", "d-red"] for query in ("q-red", "q-green")}
    page = dataset.documents["d-red"]
    assert (page.text, page.image) == ("a red square", picture("red", "JPEG"))


NO_NETWORK = """
import sys
from model_store.evaluation.tasks.dataset import TaskUnusable
from model_store.evaluation.tasks.opening import open_benchmark

for name in sys.argv[1:]:
    try:
        open_benchmark(name).tasks[0].datasets[0].load()
    except TaskUnusable as error:
        print(error)
"""


@pytest.mark.slow
def test_a_task_whose_data_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    names = ["beir:scifact", "mrb:T-VD/WER", "vidore-v3:telecom/bm25s"]
    run = subprocess.run(
        [sys.executable, "-c", NO_NETWORK, *names],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    missing, of_subset, private = run.stdout.splitlines()
    assert missing.startswith("SciFact: its data (mteb/scifact) is in no cache here, and cannot be")
    assert of_subset.startswith("Vidore2EconomicsReportsRetrieval/english: its data (vidore/")
    assert "(mteb-private/Vidore3TelecomBM25sReranking.v2) is private" in private


def test_another_revision_is_refused() -> None:
    changed = MtebSource(task="SciFact", revision="0" * 40)
    with pytest.raises(TaskUnusable, match="SciFact: the installed mteb has revision d56462d0e63a"):
        changed.load()


@pytest.mark.parametrize(
    ("name", "metric", "excludes"),
    [
        ("BrightBiologyRetrieval", "ndcg@10", True),
        ("Vidore3EnergyBM25sReranking.v2", "ndcg@10", False),
        ("OKVQAIT2TRetrieval", "hit@10", True),
    ],
)
def test_any_task_of_mteb_is_a_benchmark(name: str, metric: str, excludes: bool) -> None:
    (task,) = open_benchmark(f"mteb:{name}").tasks
    sources = [each for each in task.datasets if isinstance(each, MtebSource)]
    assert (task.metric, len(sources)) == (metric, 6 if "Vidore3" in name else 1)
    assert {source.candidates_exclude for source in sources} == {excludes}
    assert len({source.name for source in sources}) == len(sources)
    assert all(source.instruction for source in sources)


def test_a_task_of_another_kind_is_refused() -> None:
    with pytest.raises(TaskUnusable, match="is no task of retrieval or reranking"):
        open_benchmark("mteb:Banking77Classification")
