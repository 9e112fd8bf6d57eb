"""Doubts of `gmr data check`: what is found, where, and that good rows have none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from model_store.checkpoint import resolve
from model_store.errors import DataError
from model_store.training.data.doubts.doubt import SHOWN, Doubt
from model_store.training.data.doubts.fields import FieldDoubts
from model_store.training.data.doubts.lengths import TokenCounts
from model_store.training.data.doubts.survey import Options, Survey, survey
from model_store.training.data.doubts.word_scores import WordScorer
from model_store.training.data.doubts.words import (
    NEAR,
    NearCopies,
    likeness,
    script_of,
    triples,
    word_count,
)
from model_store.training.data.rows import read_examples
from model_store.training.data.validation import check
from model_store.training.sample import write_sample
from service.cli.main import app
from tests.model_store.embedders import write_sentence_model
from tests.model_store.training.rows import draw, write_rows

TEXT = (
    "river mountain orange report energy market winter garden music travel history planet ocean"
    " forest money school health engine carbon museum castle village bridge signal"
)
WORDS = TEXT.split()


def sentence(seed: int, words: int = 9) -> str:
    """Made-up words that differ from those of other seeds."""
    return " ".join(
        WORDS[(seed * 7 + step * (seed % 5 + 2)) % 24] + str(seed) for step in range(words)
    )


def good(number: int, **other: Any) -> dict[str, Any]:
    """A row without any doubt."""
    negatives = [
        {
            "text": f"Little is said of {sentence(1000 + 4 * number + step, 4)} today.",
            "kind": "hard" if step % 2 else "random",
        }
        for step in range(4)
    ]
    return {
        "id": f"r{number}",
        "instruction": "Find passages that answer the question.",
        "query": f"what is known of {sentence(number, 4)}",
        "positives": [f"All is known of {sentence(number, 4)} today."],
        "negatives": negatives,
    } | other


def surveyed(folder: Path, rows: Iterable[Mapping[str, Any]], **options: Any) -> Survey:
    path = write_rows(folder / "rows.jsonl", rows)
    return survey(path, Options(**{"open_scorer": WordScorer} | options))


def doubts(found: Survey) -> dict[str, Doubt]:
    return {doubt.name: doubt for doubt in found.doubts}


def test_good_rows_have_no_doubts(tmp_path: Path) -> None:
    found = surveyed(tmp_path, map(good, range(40)))
    assert (found.doubts, found.wrong, found.sampled) == ([], 0, 40)


LONG = " ".join(sentence(7, 30) for _ in range(80))
ROWS: dict[str, list[tuple[dict[str, Any], str]]] = {
    "one-word": [({"query": "weather"}, "query"), ({"query": "  Wetter! "}, "query")],
    "query-as-positive": [({"query": "what is it", "positives": ["What is it?"]}, "positives[0]")],
    "other-script": [({"positives": ["巴黎是法国的首都。"]}, "query")],
    "damaged-text": [
        ({"positives": ["Ã¼ber die BrÃ¼cke gehen wir"]}, "positives[0]"),
        ({"query": "what is a na\ufffdve answer"}, "query"),
    ],
    "markup": [
        ({"positives": ["<p>All of it</p> is here"]}, "positives[0]"),
        ({"query": "what is Tom &amp; Jerry"}, "query"),
    ],
    "hidden-characters": [({"query": "what is \u202eleft of it"}, "query")],
    "long": [({"positives": [LONG]}, "positives[0]")],
    "no-negatives": [({"negatives": []}, "")],
    "negative-twice": [({"negatives": ["a b c", {"text": "A b c.", "kind": "random"}]}, "")],
    "some-instructions": [({"instruction": None}, "")],
    "instruction-in-query": [
        ({"query": "Find passages that answer the question. What is it?"}, "query")
    ],
    "near-copy": [
        (
            {
                "positives": [sentence(5, 20)],
                "negatives": [
                    sentence(1, 20),
                    {"text": sentence(5, 20) + " indeed", "kind": "random"},
                ],
            },
            "negatives[1]",
        )
    ],
    "scored-above": [
        (
            {
                "query": "castle bridge signal of old",
                "positives": ["A castle that nobody mentions in the village."],
                "negatives": [sentence(1), "The castle has a bridge and a signal."],
            },
            "negatives[1]",
        )
    ],
}


@pytest.mark.parametrize("name", ROWS)
def test_a_doubt_is_found_with_its_place_and_alone(tmp_path: Path, name: str) -> None:
    rows = [good(number) for number in range(40)]
    for number, (other, _) in enumerate(ROWS[name]):
        rows[5 + number] = good(5 + number, **other)
    found = doubts(surveyed(tmp_path, rows))[name]
    assert found.count == len(ROWS[name])
    assert [(place.line, place.side) for place in found.places] == [
        (6 + number, side) for number, (_, side) in enumerate(ROWS[name])
    ]
    assert found.sentence.endswith((".", "?", ")."))


WHOLE: dict[str, list[dict[str, Any]]] = {
    "no-instruction": [good(n, instruction=None) for n in range(30)],
    "own-instructions": [good(n, instruction=f"Find number {n}.") for n in range(30)],
    "no-id": [good(n, id=None) for n in range(30)],
    "no-random": [good(n, negatives=[sentence(2000 + n)]) for n in range(30)],
    "few-hard": [
        good(
            n, negatives=[{"text": sentence(5000 + 9 * n + k), "kind": "random"} for k in range(8)]
        )
        for n in range(29)
    ]
    + [good(29)],
    "length": [good(n, positives=[sentence(n, 40)]) for n in range(30)],
    "frequent-query": [good(n, query="what is known of it all") for n in range(60)],
    "frequent-positive": [good(n, positives=["All is known of it today."]) for n in range(60)],
    "repeated-row": [*map(good, range(30)), good(3, id="again")],
    "contradiction": [
        *map(good, range(30)),
        good(50, query="what is it now", positives=[sentence(5)]),
        good(51, query="What is it, now?", negatives=[sentence(9), sentence(5).upper()]),
    ],
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_doubt_about_all_rows_is_found(tmp_path: Path, name: str) -> None:
    found = doubts(surveyed(tmp_path, WHOLE[name]))
    assert name in found
    if name == "contradiction":
        (place,) = found[name].places
        assert (place.line, place.side, place.remark) == (
            32,
            "negatives[1]",
            "a positive of line 31",
        )
    if name == "repeated-row":
        assert [place.line for place in found[name].places] == [31]


def pictures(folder: Path) -> None:
    for number in range(12):
        picture = Image.new("RGB", (96, 96), "white")
        box = (4 * number, 3 * number, 40 + 4 * number, 40 + 3 * number)
        ImageDraw.Draw(picture).ellipse(box, fill=("red", "blue", "green")[number % 3])
        (folder / "images").mkdir(exist_ok=True)
        picture.save(folder / f"images/p{number}.png")
    picture.save(folder / "images/again.webp", quality=90)
    draw(folder / "images/plain.png", "grey", (96, 96))


def test_doubts_about_pictures(tmp_path: Path) -> None:
    pictures(tmp_path)
    rows = [
        good(
            n,
            positives=[{"image": f"images/p{n}.png"}],
            negatives=[{"image": f"images/p{n + 1}.png"}],
        )
        for n in range(11)
    ]
    rows.append(
        good(
            11,
            positives=[{"image": "images/p11.png"}],
            negatives=[{"image": "images/again.webp"}, {"image": "images/plain.png"}],
        )
    )
    found = doubts(surveyed(tmp_path, rows))
    assert "96 x 96" in found["one-size"].sentence
    assert found["one-size"].count == 14
    for name, side in (("one-colour", 1), ("same-picture", 0), ("picture-as-positive", 0)):
        (place,) = found[name].places
        assert (place.line, place.side) == (12, f"negatives[{side}]"), name

    draw(tmp_path / "images/small.png", "red", (20, 20))
    Image.effect_noise((30, 30), 90).save(tmp_path / "images/small.png")
    again = doubts(surveyed(tmp_path, [*rows, good(12, positives=[{"image": "images/small.png"}])]))
    assert "one-size" not in again
    assert again["small-picture"].count == 1


def test_a_picture_that_cannot_be_decoded_is_a_fault(tmp_path: Path) -> None:
    draw(tmp_path / "whole.png", "red", (64, 64))
    Image.effect_noise((64, 64), 90).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:300])
    found = surveyed(tmp_path, [good(0), good(1, positives=[{"image": "cut.png"}])])
    assert check(found.path).wrong == 0  # by its header
    assert found.faults == [f"{found.path}:2: positives[0].image 'cut.png' cannot be decoded."]


def test_a_picture_that_is_too_large_is_not_decoded(tmp_path: Path) -> None:
    Image.new("1", (4_001, 4_000)).save(tmp_path / "large.png")
    found = surveyed(tmp_path, [good(0), good(1, positives=[{"image": "large.png"}])])
    assert (found.sizes, found.wrong) == ([], 1)
    assert "one-colour" not in doubts(found)


def test_instructions_of_their_own_are_found_in_files_of_any_length(tmp_path: Path) -> None:
    rows = [good(n, instruction=f"Find what is said of {sentence(n, 3)}") for n in range(100)]
    detector = FieldDoubts(most=30)
    for example in read_examples(write_rows(tmp_path / "rows.jsonl", rows)):
        detector.see(example, 1)
    assert [doubt.name for doubt in detector.doubts()] == ["own-instructions"]


def test_the_modality_that_tells_positives_apart(tmp_path: Path) -> None:
    draw(tmp_path / "p.png", "red")
    found = doubts(surveyed(tmp_path, [good(0, positives=[{"image": "p.png"}]), good(1)]))
    (place,) = found["modality"].places
    assert (place.line, place.remark) == (1, "I among T")


def test_what_nearly_repeats_held_out_rows(tmp_path: Path) -> None:
    held = write_rows(tmp_path / "dev.jsonl", [good(90, query=sentence(90, 20)), good(91)])
    rows = [good(0), good(1, query=sentence(90, 20) + " at last"), good(2)]
    rows[2]["positives"] = [good(91)["positives"][0] + " indeed"]
    found = doubts(surveyed(tmp_path, rows, held_out=held))
    assert "near-leak-positive" not in found  # seven words: a sixth of them is new
    (place,) = found["near-leak-query"].places
    assert (place.line, place.side) == (2, "query")
    assert f"query of {held}:1" in place.remark

    exact = surveyed(tmp_path, [good(0), good(90, query=sentence(90, 20))], held_out=held)
    assert exact.leaks is not None
    assert exact.leaks.total == 2  # its query and its positive
    assert "near-leak-query" not in doubts(exact)
    assert exact.notes == []

    looked_at: list[int] = []
    with pytest.raises(DataError, match=r"none\.jsonl"):
        survey(exact.path, Options(held_out=tmp_path / "none.jsonl"), looked_at.append)
    assert looked_at == []  # an hour's survey would end with it


def test_near_copies_of_texts_beyond_the_bound_are_not_looked_for() -> None:
    copies = NearCopies(most=len(triples(sentence(1, 20))))
    assert copies.add(sentence(1, 20), "the first")
    assert not copies.add(sentence(2, 20), "the second")
    assert copies.find(sentence(1, 20)) == ("the first", 1.0)
    assert copies.find(sentence(2, 20)) is None


def test_a_positive_that_a_retriever_scores_below_zero_is_judged(tmp_path: Path) -> None:
    class Vectors:
        name = "vectors"

        def scores(self, number: int) -> list[float | None] | None:
            scores: list[list[float | None]]
            scores = [[-0.5, 0.1, -0.9], [0.4, 0.5, 0.1], [None, 0.5, 0.6]]
            return scores[number]

    rows = [good(n, negatives=["a b c", "d e f"]) for n in range(3)]
    found = doubts(surveyed(tmp_path, rows, open_scorer=lambda _: Vectors()))["scored-above"]
    assert (found.count, found.total) == (2, 2)
    assert [place.line for place in found.places] == [1, 2]


def test_tokens_are_counted_by_the_models_own_tokenizer(tmp_path: Path) -> None:
    checkpoint = resolve("gmr-tiny")

    def counts() -> TokenCounts:
        family = checkpoint.open_family(max_tokens=256)
        return TokenCounts(family, checkpoint.manifest.default_instruction, checkpoint.name)

    rows = [good(0), good(1, positives=["word " * 400])]
    found = doubts(surveyed(tmp_path, rows, tokens=counts()))
    (place,) = found["cut"].places
    assert (place.line, place.side, found["cut"].amount) == (2, "positives[0]", "1 of 10 pairs")
    assert "256 tokens that gmr-tiny reads" in found["cut"].sentence

    pictures(tmp_path)
    seen = surveyed(tmp_path, [good(0, query={"image": "images/p0.png"})], tokens=counts())
    assert seen.tokens is not None
    assert len(seen.tokens.prefixes) == 5
    assert f"--query-tokens {seen.tokens.prefixes[0]} " in str(seen.size_command)


def test_a_sample_is_evenly_spaced_and_said(tmp_path: Path) -> None:
    rows = [good(n) for n in range(100)]
    for line in (51, 52):
        rows[line - 1]["negatives"][0] = rows[line - 1]["positives"][0] + " Again."
    found = surveyed(tmp_path, rows, sample=10)
    assert found.sampled == 10
    assert [place.line for place in doubts(found)["near-copy"].places] == [51]

    done = CliRunner().invoke(
        app, ["data", "check", str(found.path), "--sample", "10"], catch_exceptions=False
    )
    assert "10 of 100 rows, evenly spaced" in done.stdout


def test_places_are_counted_to_the_end_and_shown_at_first(tmp_path: Path) -> None:
    rows = [good(n, query=WORDS[n % 24]) for n in range(50)]
    found = doubts(surveyed(tmp_path, rows))["one-word"]
    assert (found.count, len(found.places)) == (50, SHOWN)


def invoked(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["data", "check", *map(str, arguments)])


def test_doubts_do_not_end_the_command_unless_they_are_to(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [good(n) for n in range(30)])
    calm = invoked(path, "--strict")
    assert (calm.exit_code, "No doubts." in calm.stdout, calm.stderr) == (0, True, "")
    assert "gmr size gmr-3b --train --rows 30 --documents 5 " in calm.stdout

    rows = [good(n) for n in range(30)]
    rows[3]["query"] = "weather"
    write_rows(path, rows)
    loose, strict = invoked(path), invoked(path, "--strict")
    sentence = f"doubt: 1 of 30 queries. Queries of one word hardly say what is asked for. {path}:4"
    assert sentence in loose.stdout.splitlines()
    assert (loose.exit_code, strict.exit_code, loose.stderr) == (0, 1, "")

    rows[3]["positives"] = []
    rows[4]["query"] = "winter"
    write_rows(path, rows)
    wrong = invoked(path)
    assert wrong.exit_code == 1
    assert wrong.stderr.splitlines()[0].startswith(f"{path}:4: there are 0 positives")
    assert "1 of 29 queries" in wrong.stdout
    assert "evenly spaced" not in wrong.stdout  # all rows that can be read are in the sample


def test_the_plan_of_a_run_has_the_documents_that_a_run_draws(tmp_path: Path) -> None:
    negatives = [f"Little is said of {sentence(number, 4)}." for number in range(1000)]
    path = write_rows(tmp_path / "rows.jsonl", [good(0, negatives=negatives)])
    assert "gmr size gmr-3b --train --rows 1 --documents 17 " in invoked(path).stdout


@pytest.mark.slow
def test_a_retriever_of_vectors_looks_for_relevant_negatives(tmp_path: Path) -> None:
    rows = [good(n) for n in range(5)]
    rows[2]["negatives"][1] = rows[2]["query"]  # as near as a document can be
    path = write_rows(tmp_path / "rows.jsonl", rows)
    model = write_sentence_model(tmp_path / "model")
    done = invoked(path, "--retriever", "dense", "--retriever-model", model)
    assert done.exit_code == 0
    (line,) = [line for line in done.stdout.splitlines() if "dense scores negatives" in line]
    lines = line.rpartition(f"{path}:")[2].split(", ")
    assert lines[0] == "3"
    assert " of 5 rows" in line or line.startswith("doubt: 5 rows")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--retriever", "bm52"], "There is no retriever 'bm52'"),
        (["--retriever", "gme"], "The retriever gme needs --model."),
        (["--report", "r.pdf"], "--report is a file that ends in .html or .md, not r.pdf."),
        (["--sample", "0"], "'--sample'"),
    ],
)
def test_wrong_usage(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [good(0)])
    done = invoked(path, *arguments)
    assert sentence in done.stderr
    assert done.exit_code == 2


def test_what_cannot_be_done_is_said_before_any_row_is_read(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [good(0)])
    for arguments, sentence in (
        (["--report", str(path.with_suffix(".md") / "r.md")], "it cannot be written"),
        (["--model", "gmr-none"], "There is no model 'gmr-none'"),
    ):
        path.with_suffix(".md").write_text("a file")
        done = invoked(path, *arguments)
        assert sentence in done.stderr
        assert (done.exit_code, done.stdout) == (1, "")


def test_the_sample_that_ships_has_few_doubts(tmp_path: Path) -> None:
    write_sample(tmp_path / "rows")
    done = invoked(tmp_path / "rows/rows.jsonl")
    assert done.exit_code == 0
    assert done.stdout.count("doubt:") <= 1


words = st.lists(st.sampled_from(WORDS), min_size=3, max_size=40)


@given(words, st.integers(0, 39))
def test_near_copies_are_symmetric_and_found_without_comparing_all(
    ours: list[str], place: int
) -> None:
    theirs = [*ours[:place], "changed", *ours[place:]]
    left, right = triples(" ".join(ours)), triples(" ".join(theirs))
    assert likeness(left, right) == likeness(right, left)
    assert likeness(left, left) == 1.0

    copies = NearCopies()
    for number in range(30):
        copies.add(sentence(number, 20), f"other {number}")
    copies.add(" ".join(ours), "this one")
    found = copies.find(" ".join(ours))
    assert found == ("this one", 1.0)
    near = copies.find(" ".join(theirs))
    assert near is None or (near[0] == "this one" and near[1] >= NEAR)


@pytest.mark.parametrize(
    ("text", "words", "script"),
    [
        ("", 0, None),
        ("12:30", 2, None),
        ("don't", 2, "Latin"),
        ("weather", 1, "Latin"),
        ("Привет, мир", 2, "Cyrillic"),
        ("天气", 2, "Han"),
        ("天気です", 4, "Kana"),
        ("สภาพอากาศ", 9, "Thai"),
        ("날씨", 1, "Hangul"),
        ("شكرا", 1, "Arabic"),
        ("मौसम", 1, "Devanagari"),
    ],
)
def test_words_and_scripts(text: str, words: int, script: str | None) -> None:
    assert (word_count(text), script_of(text)) == (words, script)


@given(st.text())
def test_any_text_is_looked_at(text: str) -> None:
    assert word_count(text) >= 0
    assert script_of(text) is None or text
    assert all(0 <= part < 2**32 for part in triples(text))
