"""The next gmr-tiny's middle layers learn signs, and leave the comparison of means as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from model_store.checkpoint import resolve
from model_store.families.tokens import TOKENIZER_FILE
from model_store.recipes.tiny.packed_batches import PackedBatcher
from model_store.recipes.tiny.signs.stage import Signs, learn_signs, middle_layers
from model_store.recipes.tiny.start.assembly import assemble
from model_store.recipes.tiny.start.meanings import Meanings
from model_store.recipes.tiny.start.pooling import HALF, SEMANTIC
from tests.conftest import TINY

pytestmark = pytest.mark.slow


def test_the_stage_goes_on_where_it_stopped_and_changes_middle_layers_alone(
    tmp_path: Path,
) -> None:
    tokenizer = Tokenizer.from_file(str(TINY / TOKENIZER_FILE))
    batcher = PackedBatcher(resolve(str(TINY)).family, tokenizer)
    size = tokenizer.get_vocab_size()
    vectors = np.random.default_rng(0).normal(size=(size, SEMANTIC)).astype(np.float32)
    meanings = Meanings(vectors, np.full(size, -1, np.float32))
    network = assemble(tokenizer, meanings, labels=batcher.label_ids, seed=0, layers=5)
    begun = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    lines: list[str] = []

    def run(folder: str, stop: int = 0) -> dict[str, torch.Tensor]:
        def report(line: str) -> None:
            lines.append(line)
            if stop and line.startswith(f"signs {stop}/"):
                raise KeyboardInterrupt

        network.load_state_dict(begun)
        settings = Signs(steps=4, seed=1, words=2, queries=2, negatives=2, save_every=2)
        learn_signs(network, batcher, settings=settings, folder=tmp_path / folder, report=report)
        return {name: tensor.clone() for name, tensor in network.state_dict().items()}

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("parts", stop=2)
    parts = run("parts")
    assert "signs: goes on after step 2" in lines
    assert all(torch.equal(whole[name], parts[name]) for name in whole)

    middle = {f"model.language_model.layers.{number}." for number in (1, 2)}
    assert len(middle_layers(network)) == len(middle)
    for name, tensor in whole.items():
        if not name.startswith(tuple(middle)):
            assert torch.equal(tensor, begun[name]), name
    for layer in middle:
        for output in ("self_attn.o_proj", "mlp.down_proj"):
            weight = whole[f"{layer}{output}.weight"]
            assert weight[HALF:].any()
            assert not weight[:HALF].any()
