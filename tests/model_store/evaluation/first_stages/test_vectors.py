"""Candidates by vectors: exact, made once, of texts and of images in memory."""

from __future__ import annotations

import json
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sentence_transformers import SentenceTransformer

from model_store.evaluation.first_stages.candidates import candidates_of
from model_store.evaluation.tasks.dataset import TaskUnusable
from model_store.retrieval.embedder import Query
from model_store.retrieval.gme import Gme
from model_store.training.data.rows import Side
from tests.model_store.embedders import write_gme, write_sentence_model
from tests.model_store.evaluation.first_stages.datasets import dataset_of

pytestmark = pytest.mark.slow

WORDS = ["red", "blue", "square", "circle", "page", "photo", "list", "north"]


@pytest.fixture(scope="module")
def sentence_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sentence_model(tmp_path_factory.mktemp("models") / "static")


def test_candidates_are_those_of_all_products_and_vectors_are_made_once(
    tmp_path: Path, sentence_model: Path
) -> None:
    generator = np.random.default_rng(0)
    documents = [" ".join(generator.choice(WORDS, 3)) for _ in range(4_200)]  # two parts
    queries = ["red square", "a list of the north", "photo"]
    counts = {"documents": 0, "queries": 0}

    def count(what: str, done: int) -> None:
        counts[what] += done

    dataset = dataset_of(queries, documents)
    name = str(sentence_model)
    candidates = candidates_of(dataset, name, 7, tmp_path, device="cpu", progress=count)
    assert counts == {"documents": 4_200, "queries": 3}

    model = SentenceTransformer(name, device="cpu")
    texts, asked = (model.encode(each, normalize_embeddings=True) for each in (documents, queries))
    scores = asked @ texts.T
    for number, row in enumerate(scores):
        found = [int(document[1:]) for document in candidates[f"q{number}"]]
        assert row[found] == pytest.approx(np.sort(row)[::-1][:7], abs=1e-6)

    # the vectors serve another search, which reads no document any more
    unreadable = dataset_of(queries, documents, unreadable=["d0"])
    fewer = candidates_of(unreadable, name, 3, tmp_path, device="cpu", progress=count)
    assert dict(fewer) == {query: ranked[:3] for query, ranked in candidates.items()}


def test_equal_documents_are_in_the_order_of_the_dataset(
    tmp_path: Path, sentence_model: Path
) -> None:
    documents = {"q0": "red", "b": "red", "a": "red", "c": "blue"}
    dataset = dataset_of(["red"], documents, excludes_the_query=True)
    assert candidates_of(dataset, str(sentence_model), 2, tmp_path)["q0"] == ["b", "a"]


def test_another_model_under_the_same_name_has_other_candidates(
    tmp_path: Path, sentence_model: Path
) -> None:
    model = shutil.copytree(sentence_model, tmp_path / "model")
    dataset = dataset_of(["red square"], [f"{one} {other}" for one in WORDS for other in WORDS])
    before = candidates_of(dataset, str(model), 20, tmp_path / "cache")
    shutil.rmtree(model)
    write_sentence_model(model, dimensions=8)
    after = candidates_of(dataset, str(model), 20, tmp_path / "cache")
    assert after["q0"] != before["q0"]


def test_what_the_model_cannot_read_is_one_sentence(tmp_path: Path, sentence_model: Path) -> None:
    pictured = dataset_of(["red"], {"d0": "red", "d1": b"a picture"})
    with pytest.raises(TaskUnusable, match="set, document 'd1': there is no text, and a sentence"):
        candidates_of(pictured, str(sentence_model), 2, tmp_path)

    own_code = shutil.copytree(sentence_model, tmp_path / "own-code")
    modules = json.loads((own_code / "modules.json").read_text(encoding="utf-8"))
    modules[0]["type"] = "ran.Ran"
    (own_code / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (own_code / "ran.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')", encoding="utf-8")
    with pytest.raises(TaskUnusable, match="own-code' has Python code of its own, and code of mod"):
        candidates_of(dataset_of(["red"], ["red"]), str(own_code), 2, tmp_path)
    assert not (tmp_path / "ran").exists()

    (tmp_path / "empty").mkdir()
    for name in (f"{tmp_path}/empty", f"gme:{tmp_path}/empty"):
        with pytest.raises(TaskUnusable, match="empty"):
            candidates_of(dataset_of(["red"], ["red"]), name, 2, tmp_path)


def test_gme_finds_images_by_their_bytes_with_the_instruction_of_each_query(
    tmp_path: Path,
) -> None:
    model = write_gme(tmp_path / "gme")
    pictures: dict[str, str | bytes | None] = {"text": "a red square"}
    sides = [Side("a red square", None)]
    for colour in ("red", "blue", "green", "white"):
        file = tmp_path / f"{colour}.png"
        content = BytesIO()
        Image.new("RGB", (56, 84), colour).save(content, "PNG")
        file.write_bytes(content.getvalue())
        pictures[colour] = content.getvalue()
        sides.append(Side(None, file))

    queries = {"q0": "a red page", "q1": "a red page", "q2": pictures["blue"]}
    dataset = dataset_of(
        queries, pictures, instruction="Find it.", instructions={"q1": "Sort the pages"}
    )
    candidates = candidates_of(dataset, f"gme:{model}", 4, tmp_path / "cache", device="cpu")

    embedder = Gme(str(model), device="cpu")
    documents = embedder.documents(sides, [""] * len(sides))
    asked = [
        Query("Find it.", Side("a red page", None), ""),
        Query("Sort the pages", Side("a red page", None), ""),
        Query("Find it.", Side(None, tmp_path / "blue.png"), ""),
    ]
    names = list(pictures)
    for number, row in enumerate(embedder.queries(asked) @ documents.T):
        assert candidates[f"q{number}"] == [names[n] for n in np.argsort(-row)[:4]]
    assert candidates["q0"] != candidates["q1"]  # the instruction matters

    broken = dataset_of(["red"], {"d0": b"no picture"})
    with pytest.raises(TaskUnusable, match="set, document 'd0': the image: it is no PNG, JPEG"):
        candidates_of(broken, f"gme:{model}", 1, tmp_path / "cache", device="cpu")
