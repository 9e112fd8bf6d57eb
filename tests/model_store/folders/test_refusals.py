"""A folder of a model that cannot be served is refused in one sentence, which names the file, the
field and the reason; code of the folder's own is never executed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_store.checkpoint import resolve
from model_store.families.prompt import Prompt
from model_store.manifest import CheckpointUnusable, write_manifest
from tests.conftest import CALM, free_port
from tests.text_decoders import put, write_reranker

EVIL = """
from pathlib import Path
(Path(__file__).parent / "executed").touch()
class Evil: pass
"""


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reranker(tmp_path_factory.mktemp("models"), "qwen3-reranker")


@pytest.fixture
def folder(qwen3: Path, tmp_path: Path) -> Path:
    """A copy of a small Qwen3-Reranker, under a name that says nothing."""
    return Path(shutil.copytree(qwen3, tmp_path / "mine"))


def edit(folder: Path, name: str, **changes: object) -> None:
    stated = json.loads((folder / name).read_text(encoding="utf-8"))
    put(folder, name, stated | changes)


def renamed(folder: Path, name: str) -> Path:
    return Path(folder.rename(folder.parent / name))


def refusal(folder: Path, **chosen: Any) -> str:
    """The sentence with which a folder is refused before an engine loads it."""
    with pytest.raises(CheckpointUnusable) as caught:
        _ = resolve(str(folder), **chosen).family
    sentence = str(caught.value)
    assert re.fullmatch(r"[^\n]{1,1200}\.", sentence)
    assert not (folder / "executed").exists()
    return sentence


COMPANY = "a pair's score would depend on its company"
OTHER_KINDS: dict[str, str] = {
    "JinaForRanking": COMPANY,
    "LayerWiseMiniCPMForCausalLM": "a head in each of several layers",
    "CostWiseGemmaForCausalLM": "a head in each of several layers",
    "Qwen3Model": "an embedding model",
    "XLMRobertaModel": "an embedding model",
}


@pytest.mark.parametrize("architecture", OTHER_KINDS)
def test_a_network_of_another_kind(folder: Path, architecture: str) -> None:
    edit(folder, "config.json", architectures=[architecture], model_type="any")
    sentence = refusal(folder)
    assert f"architectures of config.json has {architecture}, " in sentence
    assert OTHER_KINDS[architecture] in sentence


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("jina-reranker-v3", COMPANY),
        ("jina-reranker-v3.5", COMPANY),
        ("LightOn-rerank-LW-2B", COMPANY),
        ("rank_zephyr_7b_v1_full", COMPANY),
        ("RankVicuna-7b", COMPANY),
        ("ZipRerank-8B", COMPANY),
        ("bge-reranker-v2-minicpm-layerwise", "a head in each of several layers"),
        ("Qwen3-Embedding-0.6B", "an embedding model"),
        ("jina-embeddings-v4", "an embedding model"),
        ("gme-Qwen2-VL-2B-Instruct", "an embedding model"),
    ],
)
def test_a_name_of_another_kind(folder: Path, name: str, reason: str) -> None:
    """Their networks can be those of pointwise rerankers, so that nothing else tells."""
    folder = renamed(folder, name)
    assert refusal(folder).startswith(f"{name}: by its name it is ")
    assert reason in refusal(folder)
    assert resolve(str(folder), family="qwen3-reranker").family.name == "qwen3-reranker"


@pytest.mark.parametrize("name", ["my-embedding-reranker", "embedded", "first", "ranker"])
def test_other_names_are_not_refused(folder: Path, name: str) -> None:
    assert resolve(str(renamed(folder, name))).manifest.family == "qwen3-reranker"


def test_an_unknown_architecture_with_code_of_its_own(folder: Path) -> None:
    (folder / "modeling.py").write_text(EVIL, encoding="utf-8")
    own = {"AutoConfig": "modeling.Evil", "AutoModelForCausalLM": "modeling.Evil"}
    edit(folder, "config.json", architectures=["Evil"], model_type="evil", auto_map=own)
    sentence = refusal(folder)
    assert "config.json has the architectures ['Evil'] and the model_type 'evil'" in sentence
    assert "its auto_map names code of the folder's own, which is never executed" in sentence
    assert re.search(r"only the model_types .*\bqwen3\b.* can be served", sentence)


def test_a_known_architecture_is_served_without_the_code_that_it_names(folder: Path) -> None:
    (folder / "modeling.py").write_text(EVIL, encoding="utf-8")
    own = {"AutoConfig": "modeling.Evil", "AutoModelForCausalLM": "modeling.Evil"}
    edit(folder, "config.json", auto_map=own)
    edit(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["modeling.Evil", None]})
    checkpoint = resolve(str(folder))
    (prompt,) = checkpoint.family.render(("i",), ("q",), [("d",)])
    assert isinstance(prompt, Prompt)
    assert not (folder / "executed").exists()


def without(*names: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return remove


def vocabulary_alone(folder: Path) -> None:
    without("tokenizer.json")(folder)
    put(folder, "vocab.json", {})


def sentencepiece_alone(folder: Path) -> None:
    without("tokenizer.json")(folder)
    (folder / "tokenizer.model").write_bytes(b"\n\x0e")


def no_think_tokens(folder: Path) -> None:
    """Qwen2.5's tokenizer beside Qwen3's weights: the think block could not be written."""
    path = folder / "tokenizer.json"
    stated = json.loads(path.read_text(encoding="utf-8"))
    stated["added_tokens"] = [
        token for token in stated["added_tokens"] if "think" not in token["content"]
    ]
    path.write_text(json.dumps(stated), encoding="utf-8")


def labels_of_two_tokens(folder: Path) -> None:
    path = folder / "tokenizer.json"
    stated = json.loads(path.read_text(encoding="utf-8"))
    for merge in ("y es", "ye s", ["y", "es"], ["ye", "s"]):
        if merge in stated["model"]["merges"]:
            stated["model"]["merges"].remove(merge)
    path.write_text(json.dumps(stated), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (without("tokenizer.json"), "there is no tokenizer.json, and no vocab.json with"),
        (vocabulary_alone, "there is no tokenizer.json, and vocab.json lacks merges.txt"),
        (sentencepiece_alone, "tokenizer.model alone is not read"),
        (
            no_think_tokens,
            "its tokenizer does not fit the family qwen3-reranker: the tokenizer has no control"
            " token <think>",
        ),
        (labels_of_two_tokens, "the label 'yes' is 2 tokens, not one"),
        (without("config.json"), "there is no config.json"),
        (without("model.safetensors"), "there are no safetensors weights"),
    ],
)
def test_parts_that_are_missing(folder: Path, spoil: Callable[[Path], None], sentence: str) -> None:
    spoil(folder)
    assert sentence in refusal(folder)


def test_labels_that_are_swapped(folder: Path) -> None:
    """A common mistake with Qwen3-Reranker: the score of the opposite."""
    manifest = resolve(str(folder)).manifest.model_copy(update={"read_out": "no - yes"})
    write_manifest(folder, manifest)
    assert "the family qwen3-reranker has no read-out 'no - yes'; it has 'yes - no'" in refusal(
        folder
    )


@pytest.mark.parametrize("name", ["Qwen3-Reranker-0.6B", "mine"])
def test_labels_that_are_swapped_in_the_files_of_sentence_transformers(
    folder: Path, name: str
) -> None:
    tokenizer = resolve(str(folder)).family.tokenizer
    yes, no = tokenizer.label("yes"), tokenizer.label("no")
    (folder / "1_LogitScore").mkdir()
    put(folder, "1_LogitScore/config.json", {"true_token_id": no, "false_token_id": yes})
    sentence = refusal(renamed(folder, name))
    assert f"true_token_id and false_token_id of 1_LogitScore/config.json are ({no}, {yes})" in (
        sentence
    )
    put(
        folder.parent / name,
        "1_LogitScore/config.json",
        {"true_token_id": yes} | {"false_token_id": no},
    )
    assert resolve(str(folder.parent / name)).family.label_ids == (yes, no)


def test_serve_ends_with_1_and_the_sentence(folder: Path) -> None:
    edit(folder, "config.json", architectures=["JinaForRanking"])
    command = ["serve", "--model", str(folder), "--port", str(free_port())]
    ended = subprocess.run(
        [sys.executable, "-m", "service.cli", *command],
        env=os.environ | CALM,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1
    said = ended.stdout + ended.stderr
    assert said.count(COMPANY) == 1
    assert "Traceback" not in said
