"""`gmr models inspect` describes what `gmr serve` would serve, and refuses what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from model_store.checkpoint import resolve
from model_store.manifest import (
    MANIFEST,
    CheckpointUnusable,
    digest_files,
    read_manifest,
    write_manifest,
)
from service.cli.main import app
from tests.chat_rerankers import write_text
from tests.conftest import TINY
from tests.layouts import Layout, put, write_layout
from tests.qwen3 import HEAD, INSTRUCTION, TAIL, write_qwen3
from tests.text_decoders import write_reranker


def inspect(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["models", "inspect", *map(str, arguments)])


def described(*arguments: object) -> dict[str, Any]:
    done = inspect(*arguments, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen3-Reranker as a hub has it."""
    return write_qwen3(tmp_path_factory.mktemp("qwen3") / "mine")


def test_the_shipped_checkpoint_is_described_by_its_manifest() -> None:
    found, manifest = described("gmr-tiny"), read_manifest(TINY)
    assert manifest
    assert (found["family"], found["reason"]) == ("gmr", "its manifest says so")
    assert found["digest"] == resolve("gmr-tiny").digest
    assert found["assumed"] == {}
    assert found["golden_pairs"] == 18
    assert found["engines"] == {"torch": "", "vllm": ""}
    assert found["files"] == {name: file.bytes for name, file in manifest.files.items()}
    assert found["query"] == found["document"] == ["text", "image", "text+image"]
    assert found["images"] == {
        "cell": 28,
        "min_pixels": 12_544,
        "max_pixels": 50_176,
        "max_tokens": 64,
    }
    assert found["weights"]["bytes"] == (TINY / "model.safetensors").stat().st_size
    assert found["weights"]["dtypes"] == ["BF16"]


def test_the_prompt_is_shown_with_its_slots(plain: Path) -> None:
    (prompt,) = described(plain)["prompts"]
    body = "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
    assert prompt == {
        "query": "text",
        "document": "text",
        "instruction": True,
        "text": HEAD + body + TAIL,
    }


def test_an_images_place_is_shown_where_images_are_read() -> None:
    _, prompt = described("gmr-tiny")["prompts"]
    assert (prompt["query"], prompt["document"]) == ("text", "image")
    assert (
        "<Query>:{query}\n<Document>:<|vision_start|><|image_pad|> x 16<|vision_end|>"
        in (prompt["text"])
    )


def test_what_a_plain_folder_does_not_state_is_listed_as_assumed(plain: Path) -> None:
    found = described(plain)
    assert found["reason"] == "its network is one that this family runs on"
    assert found["assumed"] == {
        "template": "official",
        "default_instruction": INSTRUCTION,
        "max_tokens": 8192,
        "read_out": "yes - no",
        "transform": "sigmoid",
    }
    assert found["golden_pairs"] == 0


def test_pixel_bounds_are_assumed_where_no_file_has_them(tmp_path: Path) -> None:
    layouts = {stated: tmp_path / stated for stated in ("pixels", "none")}
    write_layout(layouts["pixels"], Layout(processor="pixels"))
    write_layout(layouts["none"], Layout(processor="none"))
    assert "pixels" not in described(layouts["pixels"])["assumed"]

    found = described(layouts["none"])
    assert found["assumed"]["pixels"] == {"min_pixels": 3136, "max_pixels": 1_003_520}
    assert found["engines"]["torch"] == ""
    assert "there is no preprocessor_config.json, which vLLM needs" in found["engines"]["vllm"]


def test_other_families_that_fit_are_named_with_their_reasons(tmp_path: Path) -> None:
    found = described(write_reranker(tmp_path, "zerank"))
    assert (found["family"], found["reason"]) == ("zerank", "its name is zerank-2")
    assert found["others"] == {"qwen3-reranker": "its network is one that this family runs on"}
    assert [prompt["instruction"] for prompt in found["prompts"]] == [True, False]
    assert "<instruction>{instruction}</instruction>" in found["prompts"][0]["text"]
    assert "instruction>" not in found["prompts"][1]["text"]


def test_what_a_folder_of_sentence_transformers_states_is_not_assumed(tmp_path: Path) -> None:
    found = described(write_text(tmp_path / "mine"))
    assert found["reason"].startswith("its modules.json lists Transformer and LogitScore")
    assert found["assumed"].keys() <= {"max_tokens"}


def test_a_named_family_is_the_reason(plain: Path) -> None:
    found = described(plain, "--family", "qwen3-reranker")
    assert (found["family"], found["reason"]) == ("qwen3-reranker", "it was named so")


@pytest.mark.parametrize("published", [False, True])
def test_a_folder_without_weights_is_described(tmp_path: Path, *, published: bool) -> None:
    folder = tmp_path / "mine"
    if published:
        shutil.copytree(TINY, folder)
    else:
        write_layout(folder, Layout())
    whole = described(folder)
    (folder / "model.safetensors").unlink()

    found = described(folder)
    assert found["weights"] is None
    with pytest.raises(CheckpointUnusable) as refusal:
        resolve(str(folder))
    assert found["weights_refusal"] == str(refusal.value)
    assert found["prompts"] == whole["prompts"]


def unlisted_file(folder: Path) -> None:
    (folder / "extra.json").write_text("{}", encoding="utf-8")


def changed_file(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("{}", encoding="utf-8")


def other_network(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    (folder / "golden.json").unlink()
    put(folder, "config.json", {"architectures": ["OtherModel"], "model_type": "other"})


def unknown_transform(folder: Path) -> None:
    changed(folder, transform="cosine")


def no_tokenizer(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    (folder / "golden.json").unlink()
    (folder / "tokenizer.json").unlink()


def pickled_weights(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    (folder / "golden.json").unlink()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def adapter(folder: Path) -> None:
    put(folder, "adapter_config.json", {})


def changed(folder: Path, **fields: object) -> None:
    manifest = read_manifest(folder)
    assert manifest
    write_manifest(folder, manifest.model_copy(update=fields))


BROKEN: list[Callable[[Path], None]] = [
    unlisted_file,
    changed_file,
    other_network,
    unknown_transform,
    no_tokenizer,
    pickled_weights,
    adapter,
]


def serve(folder: Path) -> None:
    """The checks of a worker before it loads weights."""
    checkpoint = resolve(str(folder))
    assert checkpoint.family
    assert checkpoint.transform


@pytest.mark.parametrize("damage", BROKEN, ids=lambda damage: damage.__name__)
def test_a_refusal_is_the_sentence_of_the_service(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(TINY, tmp_path / "copy"))
    damage(folder)
    with pytest.raises(CheckpointUnusable) as refusal:
        serve(folder)
    done = inspect(folder)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"{refusal.value}\n"


def test_golden_pairs_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TINY, tmp_path / "copy"))
    put(folder, "golden.json", [{"cell": "T-T"}])
    manifest = read_manifest(folder)
    assert manifest
    changed(folder, files=manifest.files | digest_files(folder, ["golden.json"]))
    done = inspect(folder)
    assert done.exit_code == 1
    assert done.stderr == "copy: golden.json or one of its pictures cannot be read.\n"


def test_the_lines_for_people_have_what_the_json_has(plain: Path) -> None:
    lines = inspect(plain).stdout.splitlines()
    assert "family: qwen3-reranker: its network is one that this family runs on" in lines
    assert "read-out: yes - no" in lines
    assert "tokens of a pair: 8,192" in lines
    assert "query: text" in lines
    assert "golden pairs: none: a worker skips its check at the start" in lines
    assert "<Document>: {document}<|im_end|>" in lines


def test_a_folders_texts_are_no_commands_to_a_terminal(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TINY, tmp_path / "copy"))
    changed(folder, default_instruction="red \x1b[31m\x07 \u202e[bold]text[/bold]")
    done = inspect(folder)
    assert done.exit_code == 0
    assert "instruction: red \\x1b[31m\\x07 \\u202e[bold]text[/bold]" in done.stdout.splitlines()


def test_a_wrong_option_is_named() -> None:
    assert inspect("gmr-tiny", "--output", "there").exit_code == 2
    assert inspect("gmr-tiny", "--golden", "0").exit_code == 2
    assert inspect("gmr-tiny", "--golden", "257").exit_code == 2

    unknown = inspect(TINY, "--family", "nothing")
    assert unknown.exit_code == 1
    assert "the model family 'nothing' is not known" in unknown.stderr
