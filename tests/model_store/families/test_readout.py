"""A read-out is one row: the row of combined labels gives the combination of their logits."""

from __future__ import annotations

import re

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3ForSequenceClassification

from model_store.families.readout import (
    LabelPair,
    ReadOut,
    ScoreHead,
    SingleLabel,
    Transform,
    transform_of,
)
from model_store.networks.score_row import score_row

SHAPE = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}


@pytest.mark.parametrize(
    ("readout", "name"),
    [
        (LabelPair("yes", "no"), "yes - no"),
        (SingleLabel("yes"), "yes"),
        (ScoreHead(), "score head"),
    ],
)
def test_manifests_state_it_by_a_name(readout: ReadOut, name: str) -> None:
    assert readout.name == name


@pytest.mark.parametrize(
    ("readout", "ids"), [(LabelPair("yes", "no"), (5, 9)), (SingleLabel("yes"), (5,))]
)
def test_the_row_of_labels_gives_their_logits(readout: ReadOut, ids: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(**SHAPE)).eval()
    with torch.inference_mode():
        tokens = torch.tensor([[1, 2, 3]])
        hidden = model.model(tokens).last_hidden_state[0, -1]
        logits = model(tokens).logits[0, -1, list(ids)].tolist()
        score = float(hidden @ score_row(model, readout, ids))

    assert score == pytest.approx(readout.combine(logits), abs=1e-5)


def test_a_score_head_is_the_networks_own() -> None:
    torch.manual_seed(0)
    config = Qwen3Config(**SHAPE, num_labels=1, pad_token_id=0)
    model = Qwen3ForSequenceClassification(config).eval()
    with torch.inference_mode():
        tokens = torch.tensor([[1, 2, 3]])
        hidden = model.model(tokens).last_hidden_state[0, -1]
        score = float(hidden @ score_row(model, ScoreHead(), ()))
        expected = float(model(tokens).logits[0, 0])

    assert score == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "transform"),
    [
        ("sigmoid", Transform()),
        ("identity", Transform("linear")),
        ("sigmoid(x - 2.65)", Transform("sigmoid", 1, 2.65)),
        ("sigmoid(x / 5)", Transform("sigmoid", 5)),
        ("x / 10", Transform("linear", 10)),
    ],
)
def test_transforms_have_the_name_of_their_formula(name: str, transform: Transform) -> None:
    assert transform_of(name) == transform


@pytest.mark.parametrize(
    "name", ["x", "x /", "sigmoid(x", "x / 0", "x - 1 / 2", "tanh", "sigmoid)", "sigmoid(x)"]
)
def test_other_transforms_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=re.escape(name)):
        transform_of(name)
