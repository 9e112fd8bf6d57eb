"""Networks with a head of one score give the scores of sentence-transformers' `CrossEncoder`, on
both engines, and on a CPU in whatever company to the last bit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from torch.nn import Identity
from typer.testing import CliRunner

from model_store.checkpoint import resolve
from model_store.folders.vllm_overrides import vllm_overrides
from model_store.golden import read_golden
from model_store.manifest import CheckpointUnusable
from service.cli.main import app
from service.wire import Pixels, ScoreCall, Scored
from service.worker.engines.torch.engine import TorchEngine
from service.worker.golden_check import check_golden
from tests.pair_networks import DOCUMENTS, KINDS, QUERY, write_pair_network
from tests.worker.calls import verdicts
from tests.worker.engines.conftest import Serve

IN_VLLM = ("Bert", "XLMRoberta", "ModernBert", "Qwen3")
COMPANY = tuple(f"{document} {number}" for number in range(9) for document in DOCUMENTS[::2])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: write_pair_network(root / kind, kind, seed=5) for kind in KINDS}


def expected(folder: Path, documents: Sequence[str]) -> list[float]:
    """Raw scores by sentence-transformers."""
    reference = CrossEncoder(str(folder), device="cpu")
    found: list[float] = reference.predict(
        [(QUERY, document) for document in documents], activation_fn=Identity()
    ).tolist()
    return found


def call_of(documents: Sequence[str], model: str = "m") -> ScoreCall:
    return ScoreCall(model, None, [QUERY], [[text] for text in documents], [], truncate=True)


async def scores(engine: TorchEngine, documents: Sequence[str]) -> list[float]:
    found = await verdicts(engine, call_of(documents))
    return [pair.logit for pair in found if isinstance(pair, Scored)]


@pytest.mark.parametrize("kind", KINDS)
async def test_torch_scores_as_sentence_transformers_does(
    folders: Mapping[str, Path], kind: str
) -> None:
    engine = TorchEngine(device="cpu", threads=1)
    (info,) = await engine.start(resolve(str(folders[kind])))
    assert info.family == "text-pair"
    assert info.images is None
    assert info.takes_instruction is False
    assert info.probability.name == "sigmoid"

    together = await scores(engine, DOCUMENTS)
    assert together == pytest.approx(expected(folders[kind], DOCUMENTS), abs=1e-4)
    assert len(set(together)) == len(DOCUMENTS)

    crowd = await scores(engine, (*DOCUMENTS, *COMPANY))
    alone = [(await scores(engine, [document]))[0] for document in DOCUMENTS]
    await engine.close()
    assert alone == together == crowd[: len(DOCUMENTS)]


async def test_an_image_is_refused_and_leaves_the_others(folders: Mapping[str, Path]) -> None:
    engine = TorchEngine(device="cpu", threads=1)
    await engine.start(resolve(str(folders["Bert"])))
    image = Pixels(b"d" * 32, 28, 28, bytes(3 * 28 * 28))
    call = ScoreCall("m", None, [QUERY], [["a"], [0], ["b"]], [image], truncate=True)
    found = await verdicts(engine, call)
    await engine.close()
    assert [isinstance(pair, Scored) for pair in found] == [True, False, True]


def test_digests_follow_from_all_that_changes_a_score(
    folders: Mapping[str, Path], tmp_path: Path
) -> None:
    digests = [resolve(str(folders["Bert"])).digest]
    for number, (file, field, value) in enumerate(
        [
            ("tokenizer_config.json", "model_max_length", 256),
            ("tokenizer_config.json", "model_input_names", ["input_ids", "attention_mask"]),
            ("config.json", "layer_norm_eps", 1e-3),
            ("config.json", "sbert_ce_default_activation_function", "torch.nn.Identity"),
        ]
    ):
        folder = write_pair_network(tmp_path / str(number), "Bert", seed=5)
        stated = json.loads((folder / file).read_text(encoding="utf-8")) | {field: value}
        (folder / file).write_text(json.dumps(stated), encoding="utf-8")
        digests.append(resolve(str(folder)).digest)
    digests.append(resolve(str(write_pair_network(tmp_path / "w", "Bert", seed=6))).digest)
    assert len(set(digests)) == len(digests)


async def test_what_older_transformers_saved_beside_weights_is_passed_over(
    folders: Mapping[str, Path], tmp_path: Path
) -> None:
    folder = write_pair_network(tmp_path / "m", "Bert", seed=5)
    tensors = load_file(folder / "model.safetensors")
    tensors["bert.embeddings.position_ids"] = torch.arange(512)[None]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    engine = TorchEngine(device="cpu", threads=1)
    await engine.start(resolve(str(folder)))
    found = await scores(engine, DOCUMENTS)
    await engine.close()
    assert found == pytest.approx(expected(folders["Bert"], DOCUMENTS), abs=1e-4)


async def test_a_decoder_is_read_before_the_padding_token_at_a_pairs_end(tmp_path: Path) -> None:
    folder = write_pair_network(tmp_path / "m", "Llama", seed=5)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    end, number = {"SpecialToken": {"id": "<|end|>", "type_id": 0}}, config["eos_token_id"]
    texts = [{"Sequence": {"id": side, "type_id": 0}} for side in "AB"]
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [texts[0], end],
        "pair": [*texts, end],
        "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [number], "tokens": ["<|end|>"]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": number}))

    engine = TorchEngine(device="cpu", threads=1)
    await engine.start(resolve(str(folder)))
    found = await scores(engine, DOCUMENTS)
    await engine.close()
    reference = CrossEncoder(str(folder), device="cpu")
    theirs = [
        float(reference.predict([(QUERY, document)], activation_fn=Identity())[0])
        for document in DOCUMENTS
    ]
    assert found == pytest.approx(theirs, abs=1e-4)


def test_an_untrained_head_is_refused(tmp_path: Path) -> None:
    folder = write_pair_network(tmp_path / "m", "Roberta")
    tensors = load_file(folder / "model.safetensors")
    del tensors["classifier.out_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointUnusable, match=r"the weights lack classifier\.out_proj\.weight"):
        resolve(str(folder))


def test_vllm_refuses_what_it_has_not(folders: Mapping[str, Path]) -> None:
    checkpoint = resolve(str(folders["Electra"]))
    with pytest.raises(CheckpointUnusable, match=r"vLLM has no Electra.*set RERANK_ENGINE=torch"):
        vllm_overrides(checkpoint.name, checkpoint.folder, checkpoint.readout)


@pytest.mark.parametrize("kind", ["Bert", "Qwen3"])
async def test_golden_pairs_of_a_foreign_folder_gate_its_start(tmp_path: Path, kind: str) -> None:
    folder = write_pair_network(tmp_path / "m", kind, seed=7)
    done = CliRunner().invoke(app, ["models", "inspect", str(folder), "--golden", "3"])
    assert done.exit_code == 0, done.output

    pairs = read_golden(folder)
    for pair in pairs:
        (query,), (document,) = pair.query, pair.document
        reference = CrossEncoder(str(folder), device="cpu")
        (score,) = reference.predict([(query, document)], activation_fn=Identity()).tolist()
        assert pair.logit == pytest.approx(score, abs=1e-4)

    engine = TorchEngine(device="cpu", threads=1)
    (info,) = await engine.start(resolve(str(folder)))
    drift = await check_golden(engine, info, pairs, 1e-3)
    await engine.close()
    assert drift is not None
    assert drift < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("kind", IN_VLLM)
def test_vllm_scores_as_sentence_transformers_does(
    folders: Mapping[str, Path], vllm_worker: Serve, kind: str
) -> None:
    worker = vllm_worker(folders[kind])
    found = worker.ask(call_of(DOCUMENTS, worker.info.model))
    logits = [pair.logit for pair in found if isinstance(pair, Scored)]
    assert logits == pytest.approx(expected(folders[kind], DOCUMENTS), abs=1e-3)
