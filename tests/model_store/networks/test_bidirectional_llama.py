"""llama-nemotron-rerank-1b-v2 on a small network: ids and scores of its authors' computation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaForSequenceClassification, PreTrainedTokenizerFast

from model_store.checkpoint import Checkpoint, resolve
from model_store.families.prompt import Prompt
from model_store.manifest import CheckpointUnusable
from service.wire import ScoreCall, Scored
from service.worker.engines.torch.engine import TorchEngine
from tests.pair_networks import DOCUMENTS, QUERY, write_pair_network
from tests.worker.calls import verdicts

TEMPERATURE = 0.5
FIRST = "<|begin_of_text|>"
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30).filter(
    lambda text: "<|" not in text
)


def write(folder: Path, **changes: object) -> Path:
    """A folder as its authors publish it, with code of its own that is never executed."""
    write_pair_network(folder, "Llama", seed=8)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        content = (folder / name).read_text(encoding="utf-8").replace("<|begin|>", FIRST)
        (folder / name).write_text(content, encoding="utf-8")

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {
        "architectures": ["LlamaBidirectionalForSequenceClassification"],
        "model_type": "llama_bidirec",
        "auto_map": {"AutoConfig": "llama_bidirectional_model.LlamaBidirectionalConfig"},
        "pooling": "avg",
        "temperature": TEMPERATURE,
    }
    (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
    code = "raise AssertionError('code of the folder was executed')"
    (folder / "llama_bidirectional_model.py").write_text(code, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("models") / "llama-nemotron-rerank-1b-v2")


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Checkpoint:
    return resolve(str(folder))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return PreTrainedTokenizerFast.from_pretrained(folder)


def written(query: str, document: str) -> str:
    return f"question:{query} \n \n passage:{document}"


@settings(max_examples=100, deadline=None)
@given(query=texts, document=texts)
def test_ids_are_those_of_the_authors_text(
    checkpoint: Checkpoint, tokenizer: Any, query: str, document: str
) -> None:
    (prompt,) = checkpoint.family.render(("",), (query,), [(document,)])
    assert isinstance(prompt, Prompt)
    assert list(prompt.ids) == tokenizer(written(query, document))["input_ids"]


def layer_output(layer: Any, hidden: torch.Tensor, angles: Any) -> torch.Tensor:
    """One layer without a mask, by matrix products alone."""
    attention = layer.self_attn
    normed = layer.input_layernorm(hidden)
    query, key, value = (
        projection(normed).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )

    def turned(heads: torch.Tensor) -> torch.Tensor:
        first, second = heads.chunk(2, dim=-1)
        return heads * angles[0] + torch.cat((-second, first), dim=-1) * angles[1]

    attended = scaled_dot_product_attention(turned(query), turned(key), value, enable_gqa=True)
    hidden = hidden + attention.o_proj(attended.transpose(1, 2).flatten(2))
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


@torch.inference_mode()
def reference(model: Any, ids: list[int]) -> float:
    """The head's output for the mean of the last hidden states, of one pair without padding."""
    decoder = model.model
    hidden = decoder.embed_tokens(torch.tensor([ids]))
    angles = decoder.rotary_emb(hidden, torch.arange(len(ids))[None])
    for layer in decoder.layers:
        hidden = layer_output(layer, hidden, [one[:, None] for one in angles])
    return float(model.score(decoder.norm(hidden).mean(1))[0, 0]) / TEMPERATURE


async def test_scores_are_the_authors_in_any_company(
    folder: Path, checkpoint: Checkpoint, tokenizer: Any
) -> None:
    engine = TorchEngine(device="cpu", threads=1)
    (info,) = await engine.start(checkpoint)
    assert (info.family, info.cacheable_side) == ("nemotron-rerank", "none")
    assert info.probability.name == "identity"
    assert not info.takes_instruction

    async def scores(documents: tuple[str, ...]) -> list[float]:
        call = ScoreCall("m", None, [QUERY], [[text] for text in documents], [], truncate=True)
        return [pair.logit for pair in await verdicts(engine, call) if isinstance(pair, Scored)]

    together = await scores(DOCUMENTS)
    alone = [(await scores((document,)))[0] for document in DOCUMENTS]
    await engine.close()
    assert together == alone

    model = LlamaForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    for document, score in zip(DOCUMENTS, together, strict=True):
        ids = tokenizer(written(QUERY, document))["input_ids"]
        assert score == pytest.approx(reference(model, ids), abs=1e-4)


@pytest.mark.parametrize("name", ["llama-nemotron-rerank-vl-1b-v2", "nemotron-3.5-rerank-8b-bf16"])
def test_its_kin_that_read_images_are_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointUnusable, match="code of its authors, which is never executed"):
        resolve(str(write(tmp_path / name)))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"pooling": "last"}, "the pooling 'last'"),
        ({"temperature": 0}, "the temperature 0"),
        ({"temperature": "hot"}, "the temperature 'hot'"),
        ({"id2label": {"0": "a", "1": "b"}}, "2 labels"),
        ({"hidden_size": 0}, "describes no network that can be built"),
    ],
)
def test_other_configurations_are_refused(
    tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(CheckpointUnusable, match=sentence):
        resolve(str(write(tmp_path / "m", **changes)))
