"""The small ERank: its data, its base, and the arithmetic of its figures."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest
import torch

from model_store.checkpoint import resolve
from model_store.evaluation.metrics import ndcg
from model_store.evaluation.nine_cells import questions
from model_store.evaluation.results import Results
from model_store.families.prompt import Prompt
from model_store.recipes.erank_tiny.base import make_base
from model_store.recipes.erank_tiny.data import write_generations, write_rows
from model_store.recipes.erank_tiny.job import gain_of
from model_store.recipes.erank_tiny.network import COUNT
from model_store.training.benchmark import ranked_relevances
from model_store.training.erank.answers import read_answers
from model_store.training.erank.teaching import take
from model_store.training.reranker import load_network


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("erank"))


@pytest.mark.slow
def test_the_base_counts_words_before_any_training(base: Path) -> None:
    torch.set_num_threads(1)
    checkpoint = resolve(str(base))
    assert checkpoint.readout.name == "generated 0..10"
    network = load_network(checkpoint, torch.float32).eval()
    values: list[float] = []
    for example in questions("T-T", 12):
        counts: list[float] = []
        query, documents = tuple(map(str, example.query)), [(str(d[0]),) for d in example.documents]
        for prompt in checkpoint.family.render((example.instruction,), query, documents):
            assert isinstance(prompt, Prompt)
            ids = torch.tensor([[*prompt.prefix.ids, *prompt.suffix.ids]])
            with torch.inference_mode():
                states = network(input_ids=ids, output_hidden_states=True, logits_to_keep=1)
            counts.append(float(states.hidden_states[3][0, -1, COUNT]))
        values.append(ndcg(ranked_relevances(counts, 1), 10))
    assert fmean(values) > 0.75  # 0.91; a count of words that a document repeats has 0.49


@pytest.mark.slow
def test_the_teachers_consensus_follows_the_words_of_the_query(base: Path, tmp_path: Path) -> None:
    rows, generations = tmp_path / "rows.jsonl", tmp_path / "generations.jsonl"
    write_rows(rows, 4, seed=3)
    write_generations(rows, generations, seed=3)
    answers = tmp_path / "answers.jsonl"
    chosen = take(rows, generations, answers, str(base), 2048)
    assert (chosen.pairs, chosen.generations) == (80, 240)
    readout = resolve(str(base)).readout
    taught = list(read_answers(answers, readout))  # type: ignore[arg-type]
    relevant = [each.score for each in taught if each.document == 0]
    others = [each.score for each in taught if each.document >= 10]
    assert fmean(relevant) > fmean(others) + 2
    assert {each.thought for each in taught} <= {f"{number} words" for number in range(7)}

    again = tmp_path / "again.jsonl"
    write_generations(rows, again, seed=3)
    assert again.read_bytes() == generations.read_bytes()


def test_a_gain_is_paired_by_query_and_has_an_interval() -> None:
    def results(values: dict[str, float]) -> Results:
        return Results(
            benchmark="rows",
            metric="ndcg@10",
            checkpoint=f"sha256:{0:064}",
            datasets={"rows": values},
        )

    before = [results({"a": 0.2, "b": 0.4}), results({"a": 0.4, "b": 0.2})]
    after = [results({"a": 0.4, "b": 0.6}), results({"a": 0.6, "b": 0.4})]
    gain = gain_of(before, after)
    assert (gain.before, gain.after) == (pytest.approx(0.3), pytest.approx(0.5))
    assert gain.low == pytest.approx(0.2)
    assert gain.high == pytest.approx(0.2)
