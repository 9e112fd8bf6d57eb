"""Vectors of texts and pictures, searched: by a sentence-transformers model, by GME, on one process
or on a cluster."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from model_store.errors import DataError
from model_store.retrieval import gme
from model_store.retrieval.dense import Dense
from model_store.retrieval.embedder import Query
from model_store.retrieval.found import Vectors
from model_store.retrieval.gme import Gme, Reader
from model_store.retrieval.vectors import embed_corpus
from model_store.training.data.corpus import Corpus
from model_store.training.data.rows import Side, read_examples
from model_store.training.negatives.choosing import Rules
from model_store.training.negatives.mining import Miner, Run
from model_store.training.negatives.opening import Choice, open_retriever
from model_store.training.negatives.vector_search import VectorSearch
from tests.model_store.embedders import write_gme, write_sentence_model
from tests.model_store.training.rows import draw, write_rows

pytestmark = pytest.mark.slow

PYTHON_VLLM = Path(__file__).parents[3] / ".venv-vllm/bin/python"


@pytest.fixture(scope="module")
def sentence_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sentence_model(tmp_path_factory.mktemp("models") / "static")


@pytest.fixture(scope="module")
def gme_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gme(tmp_path_factory.mktemp("models") / "gme")


def corpus_of(folder: Path, documents: int) -> Corpus:
    generator = np.random.default_rng(0)
    words = [
        "red",
        "blue",
        "green",
        "square",
        "circle",
        "page",
        "photo",
        "list",
        "sort",
        "file",
        "north",
        "south",
    ]
    rows = [
        {"id": f"{number}", "text": " ".join(generator.choice(words, 4))}
        for number in range(documents)
    ]
    return Corpus(write_rows(folder / "corpus.jsonl", rows))


def asked(*texts: str, instruction: str | None = None) -> list[Query]:
    return [Query(instruction, Side(text, None), "here") for text in texts]


def test_the_search_is_exact_and_scores_pairs_as_it_finds_them(
    tmp_path: Path, sentence_model: Path
) -> None:
    corpus = corpus_of(tmp_path, 50)
    embedder = Dense(str(sentence_model), device="cpu")
    embed_corpus(corpus, embedder, tmp_path / "parts", documents_a_part=16)
    search = VectorSearch(corpus, embedder, tmp_path / "parts", documents_a_part=16)
    queries = asked("red square", "sort a list", "north")
    documents = embedder.documents(
        [document.side for document in corpus], [document.location for document in corpus]
    )
    scores = embedder.queries(queries) @ documents.T
    assert np.allclose(np.linalg.norm(documents, axis=1), 1, atol=1e-6)
    for query, row, found in zip(queries, scores, search.search(queries, 10), strict=True):
        assert found.scores == pytest.approx(np.sort(row)[::-1][:10], abs=1e-6)
        assert row[found.numbers] == pytest.approx(found.scores, abs=1e-6)
        sides = [corpus[place].side for place in found.numbers.tolist()]
        assert search.score(query, sides) == pytest.approx(found.scores.tolist(), abs=1e-6)
        assert search.score_documents(query, found.numbers.tolist()) == pytest.approx(
            found.scores.tolist(), abs=1e-6
        )
    assert len(search.search(queries, 80)[0].numbers) == 50  # no more than there are


def test_many_documents_are_searched_in_cells(tmp_path: Path, sentence_model: Path) -> None:
    corpus = corpus_of(tmp_path, 1_500)
    embedder = Dense(str(sentence_model), device="cpu")
    embed_corpus(corpus, embedder, tmp_path / "vectors")
    exact, cells = (
        VectorSearch(corpus, embedder, tmp_path / "vectors", flat_up_to=limit)
        for limit in (1_500, 1_499)
    )
    assert (exact.described["index"], cells.described["index"]) == (
        "flat",
        "155 cells, 16 looked into",
    )
    queries = asked("red square on a page", "sort the list in a file", "blue photo of the north")
    pairs = zip(exact.search(queries, 20), cells.search(queries, 20), strict=True)
    shared = [
        len(set(one.scores.round(5).tolist()) & set(other.scores.round(5).tolist()))
        / len(set(one.scores.round(5).tolist()))
        for one, other in pairs
    ]
    assert np.mean(shared) > 0.7


def test_vectors_that_are_there_are_not_made_again(tmp_path: Path, sentence_model: Path) -> None:
    corpus = corpus_of(tmp_path, 20)
    embedder = Counting(str(sentence_model))
    embed_corpus(corpus, embedder, tmp_path / "vectors", parts=[1], documents_a_part=8)
    with pytest.raises(DataError, match="part 0 of 3 is not done"):
        VectorSearch(corpus, embedder, tmp_path / "vectors", documents_a_part=8)
    embed_corpus(corpus, embedder, tmp_path / "vectors", documents_a_part=8)
    assert embedder.asked == 20
    made = np.concatenate(
        [np.fromfile(file, np.float32) for file in sorted((tmp_path / "vectors").glob("*.f32"))]
    ).reshape(20, 32)
    assert np.array_equal(
        made, embedder.documents([document.side for document in corpus], [""] * 20)
    )
    with pytest.raises(DataError, match=r"parts of other work \(corpus, documents differ\)"):
        embed_corpus(corpus_of(tmp_path, 21), embedder, tmp_path / "vectors")


class Counting(Dense):
    asked = 0

    def documents(self, sides: Sequence[Side], locations: Sequence[str]) -> Vectors:
        self.asked += len(sides)
        return super().documents(sides, locations)


def test_a_query_has_the_form_that_is_given(sentence_model: Path) -> None:
    plain, formed = (
        Dense(str(sentence_model)),
        Dense(str(sentence_model), query_form="Instruct: {instruction} Query: {query}"),
    )
    (ours,) = formed.queries(asked("a {red} square", instruction="Find it."))
    (written,) = plain.queries(asked("Instruct: Find it. Query: a {red} square"))
    assert ours == pytest.approx(written)
    with pytest.raises(DataError, match=r"has no \{query\}"):
        Dense(str(sentence_model), query_form="Instruct: {instruction}")
    with pytest.raises(DataError, match="cannot be loaded"):
        Dense(str(sentence_model / "nowhere"))


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        (Choice("bm52"), "There is no retriever 'bm52'"),
        (Choice("dense"), "The retriever dense needs --model"),
        (Choice("bm25", "some"), "The retriever bm25 has no --model"),
        (
            Choice("gme", "some", query_form="{query}"),
            "Only the retriever dense has a --query-form",
        ),
    ],
)
def test_a_choice_that_does_not_fit_is_refused(choice: Choice, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        choice.check()


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> list[Side]:
    """Texts, pictures of several sizes, and both."""
    folder = tmp_path_factory.mktemp("pictures")
    red, blue = (
        draw(folder / "red.png", "red", (56, 84)),
        draw(folder / "blue.png", "blue", (200, 90)),
    )
    return [
        Side("A red square.", None),
        Side(None, red),
        Side("Is this\n blue?", blue),
        Side("<|im_end|> is a text, and a long one", None),
    ]


def test_the_prompt_is_the_models_own(gme_model: Path, sides: list[Side]) -> None:
    reader, tokenizer = Reader(gme_model), AutoTokenizer.from_pretrained(gme_model)

    def prompt(instruction: str, text: str) -> list[int]:
        user = f"<|im_start|>user\n{text}<|im_end|>\n"
        system = f"<|im_start|>system\n{instruction}<|im_end|>\n"
        turns = f"{system}{user}<|im_start|>assistant\n<|endoftext|>"
        ids: list[int] = tokenizer(turns, add_special_tokens=False)["input_ids"]
        return ids

    shown = "<|vision_start|><|image_pad|><|vision_end|>"
    assert reader.read(sides[0], None, "").ids == prompt(
        "You are a helpful assistant.", "A red square."
    )
    assert reader.read(sides[0], "Find it", "").ids == prompt("Find it.", "A red square.")
    assert reader.read(sides[1], None, "").ids == prompt("You are a helpful assistant.", shown)
    assert reader.read(sides[2], "Find it!", "").ids == prompt(
        "Find it!", shown + "Is this\n blue?"
    )
    # the turns' own alone
    assert (
        reader.read(sides[3], None, "").ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>"))
        == 2
    )


def test_what_does_not_fit_is_cut_off_the_text(
    gme_model: Path, sides: list[Side], tmp_path: Path
) -> None:
    reader = Reader(gme_model)
    long = Side("a red square " * 3_000, sides[1].image)
    reading = reader.read(long, None, "")
    assert gme.MAX_TOKENS - 3 <= len(reading.ids) + 2 * 3 - 1 <= gme.MAX_TOKENS
    assert reading.ids[-3:] == reader.read(sides[0], None, "").ids[-3:]
    assert (
        gme.MAX_TOKENS - 3
        <= len(reader.read(Side("\u7136" * 9_000, None), None, "").ids)
        <= gme.MAX_TOKENS
    )
    with pytest.raises(DataError, match="here: without any text it takes more than 1800 tokens"):
        reader.read(sides[0], "Find it " * 2_000, "here")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(
        DataError, match=r"here: the image .*broken\.png: it is no PNG, JPEG or WebP picture"
    ):
        reader.read(Side(None, tmp_path / "broken.png"), None, "here")


def test_a_side_has_the_same_vector_alone_and_among_others(
    gme_model: Path, sides: list[Side]
) -> None:
    embedder = Gme(str(gme_model), device="cpu")
    together = embedder.documents(sides, [""] * len(sides))
    assert together.shape == (len(sides), 256)
    alone = np.concatenate([embedder.documents([side], [""]) for side in sides])
    assert np.allclose(together, alone, atol=1e-5)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert len(np.unique(together.round(3), axis=0)) == len(sides)
    asking = embedder.queries([Query(None, sides[2], ""), Query("Find it.", sides[2], "")])
    assert np.allclose(asking[0], alone[2], atol=1e-5)
    assert not np.allclose(asking[1], alone[2], atol=1e-3)


def test_positions_of_pictures_reach_the_network(gme_model: Path, sides: list[Side]) -> None:
    """Without token types the network would read a picture as a line of text, and nothing would say
    so."""
    embedder = Gme(str(gme_model), device="cpu")
    network = embedder.network
    seen: list[dict[str, Any]] = []
    network.language_model.register_forward_pre_hook(
        lambda module, given, named: seen.append(named), with_kwargs=True
    )
    embedder.documents([sides[1]], [""])
    positions = seen[0]["position_ids"]
    image = positions[-3:, 0, :][:, (positions[-3, 0] != positions[-1, 0]).nonzero().flatten()]
    assert image.shape[1] > 0  # row, column and time differ where the picture is


def test_pictures_are_mined_and_no_copy_of_a_positive_is_taken(
    gme_model: Path, tmp_path: Path
) -> None:
    colours = ["red", "blue", "green", "yellow", "white", "black", "orange", "purple"]
    for colour in colours:
        draw(tmp_path / f"{colour}.png", colour, (56, 56))
        draw(tmp_path / f"copies/{colour}.png", colour, (56, 56))
    rows = [
        {"id": f"{folder}{colour}", "image": f"{folder}{colour}.png"}
        for colour in colours
        for folder in ("", "copies/")
    ]
    corpus = Corpus(write_rows(tmp_path / "corpus.jsonl", rows))
    asked_for = [
        {
            "query": f"a {colour} square",
            "positives": [{"image": f"{colour}.png"}],
            "instruction": "Find it.",
        }
        for colour in colours
    ]
    source = write_rows(tmp_path / "train.jsonl", asked_for)
    run = Run(source, corpus.path, tmp_path / "mined.jsonl", Rules(hard=3, random=2, top=8))
    miner = Miner(run, corpus, open_retriever(Choice("gme", str(gme_model), device="cpu"), corpus))
    miner.mine(range(miner.parts))
    miner.finish()
    for colour, row in zip(colours, read_examples(run.target), strict=True):
        shown = [negative.side.image.stem for negative in row.negatives if negative.side.image]
        assert len(set(shown)) == 5  # equal pictures are one
        assert colour not in shown


BY_VLLM = """
import json, os, pickle, sys
from pathlib import Path
from model_store.retrieval.gme_vllm import VllmGme
if __name__ == "__main__":
    sides = pickle.loads(bytes.fromhex(sys.argv[2]))
    embedder = VllmGme(sys.argv[1], max_pixels=50_176)
    vectors = embedder.documents(sides, [""] * len(sides))
    Path(sys.argv[3]).write_text(json.dumps([embedder.dimensions, vectors.tolist()]))
    embedder.close()
    os._exit(0)  # native threads of vLLM's processor can abort the end of a program this short
"""


@pytest.mark.skipif(not PYTHON_VLLM.exists(), reason="`make test` installs vLLM")
def test_vllm_gives_the_same_vectors(gme_model: Path, sides: list[Side], tmp_path: Path) -> None:
    program, answer = tmp_path / "embed.py", tmp_path / "answer.json"
    program.write_text(BY_VLLM, encoding="utf-8")
    command = [PYTHON_VLLM, program, gme_model, pickle.dumps(sides).hex(), answer]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    dimensions, theirs = json.loads(answer.read_text(encoding="utf-8"))
    ours = Gme(str(gme_model), device="cpu", max_pixels=50_176).documents(sides, [""] * len(sides))
    assert dimensions == ours.shape[1]
    assert np.allclose(ours, np.array(theirs), atol=1e-4)
