"""Both stages of ERank's training by `gmr train`'s own functions: what they leave and refuse, and
what a kill changes."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from model_store.checkpoint import resolve
from model_store.errors import DataError
from model_store.golden import GoldenPair, read_golden
from model_store.training.benchmark import Rows, measure
from model_store.training.config import TrainingError
from model_store.training.erank.run import check, train
from model_store.training.journal import read_metrics
from model_store.training.methods import load_run
from model_store.training.publish.card import Story
from model_store.training.publish.job import PublishJob
from model_store.training.publish.run import publish
from model_store.training.publish.runs import open_run
from model_store.training.signals import Stopped
from model_store.training.train import train as train_unified
from service.cli.main import app
from tests.erank import AuthorsCode, write_erank
from tests.model_store.disk import file_size_limit
from tests.qwen3 import write_qwen3

WORDS = ("two", "nine", "four", "seven")
SCORES = {"two": 2, "nine": 9, "four": 4, "seven": 7}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that writes numbers, rows whose documents make it write them, and answers."""
    folder = tmp_path_factory.mktemp("erank-training")
    write_erank(folder / "erank-4b-small")
    rows, answers = [], []
    for number in range(4):
        words = WORDS[number:] + WORDS[:number]
        documents = [f"It is {word}." for word in words]
        row = {"id": f"q{number}", "instruction": "Find it", "query": "how many"}
        rows.append(row | {"positives": documents[:1], "negatives": documents[1:]})
        for document, word in enumerate(words):
            answer = {"id": row["id"], "document": document, "thought": f"so {word}"}
            answers.append(answer | {"score": SCORES[word]})
    write_lines(folder / "rows.jsonl", rows)
    write_lines(folder / "answers.jsonl", answers)
    return folder


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def sft(folder: Path, output: Path, **changes: Any) -> Any:
    values = {
        "method": "sft-generated",
        "model": str(folder / "erank-4b-small"),
        "output": str(output),
        "data": {"train": str(folder / "rows.jsonl"), "answers": str(folder / "answers.jsonl")},
        "lora": {"rank": 4, "alpha": 8},
        "optimizer": {"learning_rate": 3e-3},
        "batch": {"pairs": 4, "pairs_at_once": 2, "checkpointing": False},
        "steps": 4,
        "save_every": 2,
        "precision": "fp32",
        "device": "cpu",
    }
    return loaded(output, values | changes)


def grpo(folder: Path, output: Path, **changes: Any) -> Any:
    values = {
        "method": "grpo",
        "model": str(folder / "erank-4b-small"),
        "output": str(output),
        "data": {"train": str(folder / "rows.jsonl"), "documents": 3},
        "rollouts": {
            "answers": 3, "max_tokens": 24, "answers_at_once": 9, "checkpointing": False,
        },
        "lora": {"rank": 4, "alpha": 8},
        "optimizer": {"learning_rate": 1e-3, "schedule": "constant", "warmup": 0.0},
        "steps": 3,
        "save_every": 1,
        "precision": "fp32",
        "device": "cpu",
    }  # fmt: skip
    return loaded(output, values | changes)


def loaded(output: Path, values: dict[str, Any]) -> Any:
    path = output.with_name(f"{output.name}.yaml")
    path.write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML
    return load_run(str(path))


def weights(output: Path) -> bytes:
    return (output / "adapter" / "adapter_model.safetensors").read_bytes()


def killed_after(run: Any, step: int) -> None:
    """Train in a process of its own, and kill it once the state of a step is saved."""
    process = multiprocessing.get_context("fork").Process(
        target=train, args=(run,), kwargs={"stream": io.StringIO()}
    )
    process.start()
    note = run.output / "states" / f"checkpoint-{step}" / "run.json"
    while not note.exists():
        assert process.is_alive(), "it ended before it was killed"
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (run.output / "manifest.json").exists()


@pytest.fixture(scope="module")
def first(folder: Path) -> Path:
    """A finished run of the first stage."""
    output = folder / "sft"
    assert train(sft(folder, output), stream=io.StringIO()) == output
    return output


def test_the_first_stage_learns_and_leaves_a_run(folder: Path, first: Path) -> None:
    rows = read_metrics(first)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert (first / "training.png").stat().st_size > 1000
    manifest = json.loads((first / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["read_out"] == "generated 0..10"
    assert manifest["last"]["loss"] == rows[-1]["loss"]
    assert manifest["run"]["pairs"] == 16

    before = (first / "manifest.json").stat().st_mtime_ns
    train(sft(folder, first), stream=io.StringIO())  # a finished run is left as it is
    assert (first / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(TrainingError, match=r"begun with another lora.rank \(4, now 8\)"):
        train(sft(folder, first, lora={"rank": 8, "alpha": 8}), stream=io.StringIO())


def test_a_killed_first_stage_goes_on_to_the_same_weights(folder: Path, first: Path) -> None:
    output = folder / "killed"
    run = sft(folder, output)
    killed_after(run, 2)
    said = io.StringIO()
    train(run, stream=said)
    assert "16 pairs, 4 steps, 2 of them done." in said.getvalue()
    assert weights(output) == weights(first)
    losses = [row["loss"] for row in read_metrics(first)]
    assert [row["loss"] for row in read_metrics(output)] == losses


def test_a_run_that_was_killed_behind_its_last_step_leaves_the_same(
    folder: Path, first: Path
) -> None:
    learnt = weights(first)
    described = (first / "manifest.json").read_bytes()
    for path in (first / "adapter").iterdir():
        path.unlink()
    (first / "manifest.json").unlink()
    train(sft(folder, first), stream=io.StringIO())
    assert weights(first) == learnt
    assert (first / "manifest.json").read_bytes() == described


def test_what_it_taught_is_published_and_measured(folder: Path, first: Path) -> None:
    base = resolve(str(folder / "erank-4b-small"))
    trained = open_run(first, base, Story())
    output = folder / "erank-published"
    questions = [
        GoldenPair("T-T", "Find it", ("how many",), (f"It is {word}.",), 0.0) for word in WORDS
    ]
    job = PublishJob(
        base=base,
        adapter=trained.folder,
        output=output,
        name=output.name,
        story=trained.story,
        read_out=trained.read_out,
        template=trained.template,
        questions=questions,
    )
    publish(job)
    published = resolve(str(output))
    assert published.readout.name == "generated 0..10"
    parity = json.loads((output / "parity.json").read_text(encoding="utf-8"))
    assert list(parity["ways"]) == ["adapter", "merged", "rounded", "read again"]
    card = (output / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "writes a" in card
    assert "number from 0 to 10; the score is the number times its probability" in card

    authors = AuthorsCode(output)
    golden = read_golden(output)
    assert golden
    for pair in golden:
        written = authors.written(pair.instruction, str(pair.query[0]), str(pair.document[0]))
        assert pair.logit == pytest.approx(written.score, abs=1e-3)

    measured = measure(published, Rows(folder / "rows.jsonl", published))
    assert set(measured.values["ndcg@10"]) == {"q0", "q1", "q2", "q3"}
    assert measured.values["hit@1"]["q1"] == 1.0  # its positive is nine


@pytest.mark.slow
def test_the_second_stage_rewards_a_query_at_once_and_resumes_to_the_same_weights(
    folder: Path,
) -> None:
    output, killed = folder / "grpo", folder / "grpo-killed"
    train(grpo(folder, output), stream=io.StringIO())
    rows = read_metrics(output)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert min(row["constant"] for row in rows) < 1.0
    assert all(-2.0 <= row["reward"] <= 1.0 for row in rows)
    before = json.loads((output / "stage1.json").read_text(encoding="utf-8"))["scores"]
    assert before["q0/1"] in (9, None)
    assert {pair.split("/")[0] for pair in before} <= {"q0", "q1", "q2", "q3"}

    run = grpo(folder, killed)
    killed_after(run, 1)
    said = io.StringIO()
    train(run, stream=said)
    assert "1 of them done." in said.getvalue()
    assert "Stage 1's scores" not in said.getvalue()
    assert weights(killed) == weights(output)


def first_scores(run: Any) -> str:
    """The output of a run up to its first step, in which it is stopped."""

    class Stopping(io.StringIO):
        def write(self, text: str) -> int:
            if "step 1/" in text:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().write(text)

    said = Stopping()
    with pytest.raises(Stopped):
        train(run, stream=said)
    return said.getvalue()


@pytest.mark.slow
def test_scores_of_stage_1_are_of_these_pairs(folder: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes((folder / "rows.jsonl").read_bytes())
    data = {"train": str(rows), "documents": 3}
    run = grpo(folder, tmp_path / "grpo", data=data, report_every=1)
    assert "Stage 1's scores of 12 pairs are computed." in first_scores(run)
    before = json.loads((run.output / "stage1.json").read_text(encoding="utf-8"))["scores"]
    shutil.rmtree(run.output / "states")  # as of a run that was killed before its first state

    kept = json.loads((run.output / "stage1.json").read_text(encoding="utf-8"))
    for name in [name for name in before if name.startswith(("q2", "q3"))]:
        del kept["scores"][name]
    (run.output / "stage1.json").write_text(json.dumps(kept), encoding="utf-8")
    assert "Stage 1's scores of 6 pairs are computed." in first_scores(run)
    again = json.loads((run.output / "stage1.json").read_text(encoding="utf-8"))["scores"]
    assert again == before
    shutil.rmtree(run.output / "states")

    rows.write_text(rows.read_text(encoding="utf-8").replace("nine", "eight"), encoding="utf-8")
    assert "Stage 1's scores of 12 pairs are computed." in first_scores(run)
    after = json.loads((run.output / "stage1.json").read_text(encoding="utf-8"))["scores"]
    assert before.keys() == after.keys()
    assert 9 in before.values()
    assert 9 not in after.values()


def test_a_run_of_another_method_is_left_as_it_is(folder: Path, tmp_path: Path) -> None:
    own = sft(folder, tmp_path / "own")
    (own.output / "states" / "step-00000002").mkdir(parents=True)
    with pytest.raises(TrainingError, match="own: this run was begun with another method; choose"):
        train(own, stream=io.StringIO())

    write_qwen3(tmp_path / "qwen3", num_hidden_layers=1)
    unified = loaded(tmp_path / "unified", {
        "model": str(tmp_path / "qwen3"), "output": str(tmp_path / "unified"),
        "data": {"train": str(folder / "rows.jsonl"), "random_share": 0.0}, "device": "cpu",
    })  # fmt: skip
    (unified.output / "states" / "checkpoint-2").mkdir(parents=True)
    with pytest.raises(TrainingError, match="unified: this run was begun with another method; ch"):
        train_unified(unified, stream=io.StringIO())


@pytest.mark.slow
def test_a_reward_without_variance_is_said_and_ends_the_run(folder: Path) -> None:
    write_qwen3(folder / "erank-of-nothing")
    run = grpo(folder, folder / "silent", model=str(folder / "erank-of-nothing"), constant_steps=2)
    said = io.StringIO()
    with pytest.raises(TrainingError, match=r"the first 2 steps have no variance, no answer is in"):
        train(run, stream=said)
    assert said.getvalue().count("all have the same reward") == 2
    assert read_metrics(run.output)[0]["constant"] == 1.0
    assert read_metrics(run.output)[0]["unscored"] == 1.0

    shutil.rmtree(run.output / "states")  # as of a run that was killed before its first state
    again = io.StringIO()
    with pytest.raises(TrainingError, match="the first 2 steps have no variance"):
        train(run, stream=again)
    assert again.getvalue().count("all have the same reward") == 2


@pytest.mark.parametrize("size", [20_000, 60_000])  # of the maps, of the tokenizer
def test_a_full_disk_is_a_sentence_and_leaves_the_states_before(
    folder: Path, tmp_path: Path, size: int
) -> None:
    run = sft(folder, tmp_path / "full")
    with (
        file_size_limit(size),
        pytest.raises(
            TrainingError,
            match=r"step 2 cannot be written \(.*File too large.*the states before it",
        ),
    ):
        train(run, stream=io.StringIO())
    assert not list((run.output / "states").glob("checkpoint-*"))


def refused(run: Any) -> str:
    with pytest.raises((TrainingError, DataError)) as caught:
        check(run)
    return str(caught.value)


def test_bad_data_is_refused_before_the_first_step(folder: Path, tmp_path: Path) -> None:
    assert check(sft(folder, tmp_path / "a")) == 16
    assert check(grpo(folder, tmp_path / "b")) == 12
    rows, answers = str(folder / "rows.jsonl"), str(folder / "answers.jsonl")
    few = {"train": rows, "documents": 9}
    assert "rows.jsonl:1: the row has 1 positives and 3 negatives, and data.documents is 9." in (
        refused(grpo(folder, tmp_path / "c", data=few))
    )
    short = {"train": rows, "answers": answers, "max_answer_tokens": 8}
    assert "answers.jsonl:1: the answer has" in refused(sft(folder, tmp_path / "d", data=short))
    other = write_lines(tmp_path / "answers.jsonl", [{"id": "q9", "document": 0, "thought": "",
                                                      "score": 1}])  # fmt: skip
    missing = {"train": rows, "answers": str(other)}
    assert "answers.jsonl:1: rows.jsonl has no row 'q9'." in (
        refused(sft(folder, tmp_path / "e", data=missing))
    )
    assert "gmr-tiny reads its score from yes - no" in (
        refused(sft(folder, tmp_path / "f", model="gmr-tiny"))
    )
    assert (
        "10,000,000 steps of 3 documents each are asked for, and a run has at most 20,000,000"
        in (refused(grpo(folder, tmp_path / "i", steps=10**7)))
    )
    with pytest.raises(TrainingError, match="method is sft-generated or grpo"):
        loaded(tmp_path / "g", {"method": "ppo"})
    with pytest.raises(TrainingError, match=r"must be a multiple of rollouts\.answers_at_once"):
        grpo(folder, tmp_path / "h", rollouts={"answers": 3, "answers_at_once": 2})


def asked(folder: Path, rows: Path, output: Path, *, model: str) -> Any:
    """`gmr data answers` with a teacher that writes generations beside the answers."""
    arguments = ["data", "answers", rows, output, "--model", model, "--count", "1"]
    arguments += ["--teacher", folder / "erank-4b-small", "--max-tokens", "24"]
    arguments += ["--write-generations", output.with_name("generations.jsonl")]
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_a_teacher_writes_nothing_where_its_work_would_be_lost(
    folder: Path, tmp_path: Path
) -> None:
    base = str(folder / "erank-4b-small")
    generations = tmp_path / "generations.jsonl"
    long = {"id": "b", "instruction": "7" * 9900, "query": "q", "positives": ["p"]}
    rows = write_lines(tmp_path / "rows.jsonl", [{"query": "q", "positives": ["It is two."]}])
    wrong = write_lines(tmp_path / "wrong.jsonl", [{"query": "q", "positives": ["p"]}, long])
    (tmp_path / "file").write_text("", encoding="utf-8")
    for source, output, model, sentence in (
        (rows, tmp_path / "file" / "a.jsonl", base, "it cannot be written"),
        (rows, tmp_path / "a.jsonl", "gmr-tiny", "reads its score from yes - no"),
        (wrong, tmp_path / "a.jsonl", base, "wrong.jsonl:2: the instruction alone has more than"),
    ):
        done = asked(folder, source, output, model=model)
        assert (done.exit_code, sentence in done.stderr) == (1, True), done.output
        assert not generations.exists()

    assert asked(folder, rows, tmp_path / "a.jsonl", model=base).exit_code == 0
    assert generations.exists()
    assert json.loads((tmp_path / "a.jsonl").read_text(encoding="utf-8"))["id"] == "rows.jsonl:1"
