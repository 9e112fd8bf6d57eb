"""Folders that engines would read differently, in part, or not at all get one sentence each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from model_store.checkpoint import resolve
from model_store.folders.weights import quantization_of
from model_store.manifest import (
    MANIFEST,
    CheckpointUnusable,
    digest_files,
    read_manifest,
    write_manifest,
)
from model_store.networks.qwen2_5_vl import QWEN2_5_VL
from tests.conftest import TINY
from tests.layouts import Layout, config_of, put, stated, write_layout
from tests.model_store.test_checkpoint import refusal

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 1\n"
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """gmr-tiny as a hub has it."""
    return write_layout(tmp_path / "mine", Layout())


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return write_layout(tmp_path / "mine", Layout(sharded=True))


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """gmr-tiny with its manifest."""
    return Path(shutil.copytree(TINY, tmp_path / "mine"))


def rewrite(folder: Path, change: Callable[[Tensors], Tensors | None]) -> None:
    """Replace the weights by the result of a function, or by the tensors that it changed."""
    tensors = load_file(folder / WEIGHTS)
    changed = change(tensors)
    save_file(tensors if changed is None else changed, folder / WEIGHTS, metadata={"format": "pt"})


def reconfigure(folder: Path, **fields: object) -> None:
    put(folder, "config.json", stated("config.json") | fields)


@pytest.mark.parametrize(
    "layout",
    [
        Layout(),
        Layout(tied="no"),
        Layout("flat", "top", "mrope"),
        Layout("flat", "not said", "mrope"),
        Layout("nested of 2025", "text", "default"),
    ],
)
@pytest.mark.parametrize(
    "silent", [(), ("num_key_value_heads",), ("hidden_size", "num_attention_heads")]
)
def test_the_tensors_of_a_configuration_are_those_of_transformers(
    layout: Layout, silent: tuple[str, ...]
) -> None:
    config = config_of(layout)
    for level in (config, config.get("text_config", config)):
        for field in silent:
            level.pop(field, None)
    with torch.device("meta"):
        network = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**deepcopy(config)))

    assert QWEN2_5_VL.tensor_shapes(config) == {
        name: tuple(parameter.shape) for name, parameter in network.named_parameters()
    }


def test_gmr_tinys_tensors_are_those_of_its_configuration() -> None:
    shapes = {}
    with safe_open(TINY / WEIGHTS, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - it is no mapping
            shape = file.get_slice(name).get_shape()
            shapes[QWEN2_5_VL.current_name(name)] = tuple(shape)
    assert QWEN2_5_VL.tensor_shapes(stated("config.json")) == shapes


class TestWeights:
    """Weights that are incomplete, or that a loader would not read."""

    @pytest.mark.parametrize(
        ("name", "sentence"),
        [
            ("score.weight", "the weights hold score.weight, which nothing reads (1 in all)."),
            (
                "model.layers.0.self_attn.q_proj.lora_A.default.weight",
                "which nothing reads (1 in all): a LoRA adapter that was not merged.",
            ),
            (
                "model.layers.4.mlp.up_proj.weight",
                "the weights hold model.layers.4.mlp.up_proj.weight, which nothing reads",
            ),
        ],
    )
    def test_a_tensor_that_nothing_reads(self, folder: Path, name: str, sentence: str) -> None:
        rewrite(folder, lambda tensors: tensors | {name: torch.zeros(1, 256)})
        assert sentence in refusal(str(folder))

    def test_a_tensor_that_is_missing(self, folder: Path) -> None:
        rewrite(
            folder,
            lambda tensors: {name: tensors[name] for name in tensors if "layers.2.mlp" not in name},
        )
        assert (
            refusal(str(folder))
            == "mine: the weights lack model.language_model.layers.2.mlp.down_proj.weight (3"
            " missing in all)."
        )

    def test_a_head_that_is_missing(self, folder: Path) -> None:
        reconfigure(
            folder,
            tie_word_embeddings=False,
            text_config=stated("config.json")["text_config"] | {"tie_word_embeddings": False},
        )
        assert (
            "lack lm_head.weight (1 missing in all), and config.json does not say"
            " tie_word_embeddings" in refusal(str(folder))
        )

    def test_a_head_that_differs_from_the_embeddings_to_which_it_is_tied(
        self, folder: Path
    ) -> None:
        rewrite(
            folder,
            lambda tensors: tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"] * 2},
        )
        assert (
            "lm_head.weight differs from the embeddings although config.json says"
            " tie_word_embeddings" in refusal(str(folder))
        )

    def test_a_tensor_of_another_shape(self, folder: Path) -> None:
        rewrite(folder, lambda tensors: tensors | {"model.norm.weight": torch.zeros(255)})
        assert "model.norm.weight has the shape [255], and config.json asks for [256]" in refusal(
            str(folder)
        )

    def test_a_tensor_under_both_of_its_names(self, folder: Path) -> None:
        rewrite(
            folder,
            lambda tensors: (
                tensors | {QWEN2_5_VL.embeddings: tensors["model.embed_tokens.weight"].clone()}
            ),
        )
        assert "twice" in refusal(str(folder))

    def test_numbers_that_are_no_floats(self, folder: Path) -> None:
        rewrite(
            folder,
            lambda tensors: (
                tensors
                | {"model.norm.weight": tensors["model.norm.weight"].to(torch.float8_e4m3fn)}
            ),
        )
        assert "model.norm.weight is stored as F8_E4M3" in refusal(str(folder))

    @pytest.mark.parametrize("prefix", ["base_model.model.", "module.", "_orig_mod."])
    def test_names_that_a_wrapper_gave(self, folder: Path, prefix: str) -> None:
        rewrite(folder, lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()})
        sentence = refusal(str(folder))
        assert f"names begin with {prefix!r}" in sentence
        assert "save the network itself" in sentence

    @pytest.mark.parametrize(
        "extra",
        [
            "adapter_model.safetensors",
            "model-00001-of-00002.safetensors",
            "consolidated.safetensors",
        ],
    )
    def test_a_file_that_one_loader_reads_and_another_does_not(
        self, folder: Path, extra: str
    ) -> None:
        shutil.copy(folder / WEIGHTS, folder / extra)
        assert f"{extra} lies beside model.safetensors" in refusal(str(folder))

    @pytest.mark.parametrize("extra", ["adapter_model.safetensors", WEIGHTS])
    def test_a_file_beside_those_of_the_index(self, sharded: Path, extra: str) -> None:
        shutil.copy(TINY / WEIGHTS, sharded / extra)
        assert f"{extra} is not named in {INDEX}" in refusal(str(sharded))

    def test_a_shard_that_is_missing(self, sharded: Path) -> None:
        (sharded / "model-00002-of-00003.safetensors").unlink()
        assert (
            refusal(str(sharded))
            == f"mine: model-00002-of-00003.safetensors is missing, and {INDEX} names it: the"
            " download was not completed."
        )

    def test_an_index_that_is_missing(self, sharded: Path) -> None:
        (sharded / INDEX).unlink()
        assert f"{INDEX} is missing" in refusal(str(sharded))

    @pytest.mark.parametrize(
        "index",
        [
            {},
            {"weight_map": {}},
            {"weight_map": {"a": "../x.safetensors"}},
            {"weight_map": {"a": 5}},
        ],
    )
    def test_an_index_that_names_no_files(self, sharded: Path, index: dict[str, Any]) -> None:
        put(sharded, INDEX, index)
        assert f"{INDEX} names no safetensors files" in refusal(str(sharded))

    @pytest.mark.parametrize("kept", [0, 5, 100, 20_000, -1])
    def test_a_file_that_is_cut_off(self, folder: Path, kept: int) -> None:
        content = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(content[:kept])
        assert WEIGHTS in refusal(str(folder))

    @pytest.mark.parametrize(
        "header",
        [b"[]", b"{}}", b'{"a": 5}', b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}'],
    )
    def test_a_file_of_another_format(self, folder: Path, header: bytes) -> None:
        (folder / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header)
        assert "model.safetensors is no safetensors file, or is damaged" in refusal(str(folder))

    def test_pickled_weights(self, folder: Path) -> None:
        (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
        assert "pickled ones (*.bin) are never opened" in refusal(str(folder))


class TestFiles:
    """Files that loaders read and the digest does not cover."""

    @pytest.fixture(params=["plain", "published"])
    def either(self, request: pytest.FixtureRequest) -> Path:
        fixture = "folder" if request.param == "plain" else "published"
        folder: Path = request.getfixturevalue(fixture)
        return folder

    def test_an_adapter_beside_the_weights(self, either: Path) -> None:
        put(either, "adapter_config.json", {"peft_type": "LORA", "r": 4})
        sentence = refusal(str(either))
        assert "adapter_config.json lies beside the weights" in sentence
        assert "RERANK_ADAPTERS" in sentence

    def test_an_adapter_beside_the_weights_that_the_manifest_lists(self, published: Path) -> None:
        put(published, "adapter_config.json", {"peft_type": "LORA", "r": 4})
        manifest = read_manifest(published)
        assert manifest
        files = manifest.files | digest_files(published, ["adapter_config.json"])
        write_manifest(published, manifest.model_copy(update={"files": files}))
        assert "adapter_config.json lies beside the weights" in refusal(str(published))

    def test_an_adapter_alone(self, tmp_path: Path) -> None:
        put(tmp_path, "adapter_config.json", {"peft_type": "LORA", "r": 4})
        assert "is a LoRA adapter: serve its base and name it in RERANK_ADAPTERS" in refusal(
            str(tmp_path)
        )

    @pytest.mark.parametrize(
        "name",
        [
            "generation_config.4.json",
            "processor_config.json",
            "added_tokens.json",
            "special_tokens_map.json",
            "sentence_roberta_config.json",
            "merges.txt",
            "tokenizer.model",
            "more.safetensors",
            "hf_quant_config.json",
            "1_Pooling/config.json",
            "additional_chat_templates/rag.jinja",
        ],
    )
    def test_a_file_that_the_manifest_does_not_list(self, published: Path, name: str) -> None:
        (published / name).parent.mkdir(exist_ok=True)
        (published / name).write_text("{}", encoding="utf-8")
        assert f"{name} is not in its manifest.json" in refusal(str(published))

    @pytest.mark.parametrize(
        "name", ["README.md", "LICENSE", ".gitattributes", ".cache/x.json", "modeling.py"]
    )
    def test_files_that_no_loader_reads_are_allowed(self, published: Path, name: str) -> None:
        (published / name).parent.mkdir(exist_ok=True)
        (published / name).write_text("{}", encoding="utf-8")
        assert resolve(str(published)).digest == resolve("gmr-tiny").digest

    def test_an_embedding_model(self, folder: Path) -> None:
        (folder / "modules.json").write_text(
            '[{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]', "utf-8"
        )
        assert "it is an embedding model, not a reranker" in refusal(str(folder))

    @pytest.mark.parametrize(
        "name",
        [
            WEIGHTS,
            "tokenizer.json",
            "config.json",
            "chat_template.jinja",
            "preprocessor_config.json",
        ],
    )
    def test_a_pointer_of_git_lfs(self, folder: Path, name: str) -> None:
        (folder / name).write_text(POINTER, encoding="utf-8")
        assert f"{name} is a git-lfs pointer, not the file itself: run `git lfs pull`" in refusal(
            str(folder)
        )

    def test_a_link_to_nowhere(self, folder: Path) -> None:
        """A hub's cache has such links where its files were removed."""
        (folder / WEIGHTS).unlink()
        (folder / WEIGHTS).symlink_to(folder / "blobs" / "gone")
        assert (
            refusal(str(folder))
            == "mine: model.safetensors cannot be read (No such file or directory)."
        )

    @pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
    def test_a_byte_order_mark(self, folder: Path, name: str) -> None:
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
        assert f"{name} begins with a byte order mark" in refusal(str(folder))


class TestConfig:
    """Configurations of networks that cannot be served."""

    @pytest.mark.parametrize(
        "changes",
        [
            {"architectures": ["Qwen2VLForConditionalGeneration"]},
            {"architectures": "Qwen2_5_VLForConditionalGeneration"},
            {"model_type": "qwen2_vl"},
            {"model_type": None},
        ],
    )
    def test_another_network(self, folder: Path, changes: dict[str, object]) -> None:
        reconfigure(folder, **changes)
        assert "config.json has the architectures " in refusal(str(folder))

    @pytest.mark.parametrize("value", [0, -1, 2**40, 4.0, "4", True])
    def test_a_field_that_is_no_count(self, folder: Path, value: object) -> None:
        reconfigure(
            folder, text_config=stated("config.json")["text_config"] | {"num_hidden_layers": value}
        )
        assert (
            "config.json describes no network that can be built: num_hidden_layers is"
            in refusal(str(folder))
        )

    @pytest.mark.parametrize(
        "field", ["patch_size", "temporal_patch_size", "spatial_merge_size", "in_channels"]
    )
    def test_patches_that_are_cut_otherwise(self, folder: Path, field: str) -> None:
        reconfigure(folder, vision_config=stated("config.json")["vision_config"] | {field: 4})
        assert f"{field} of config.json is 4, and only" in refusal(str(folder))

    def test_a_window_that_a_pair_does_not_fit(self, folder: Path) -> None:
        window = {"use_sliding_window": True, "sliding_window": 1024}
        reconfigure(folder, text_config=stated("config.json")["text_config"] | window)
        assert "a sliding window of 1024 tokens" in refusal(str(folder))

    @pytest.mark.parametrize(
        "field", ["image_token_id", "vision_start_token_id", "vision_end_token_id"]
    )
    def test_a_token_that_the_tokenizer_has_elsewhere(self, folder: Path, field: str) -> None:
        reconfigure(folder, **{field: 7})
        with pytest.raises(
            CheckpointUnusable,
            match=rf"^mine: {field} of config\.json is 7, and the tokenizer has <",
        ):
            _ = resolve(str(folder)).family

    def test_a_tokenizer_with_more_tokens_than_the_network(self, folder: Path) -> None:
        tokenizer = stated("tokenizer.json")
        tokens = tokenizer["added_tokens"]
        tokens.append(tokens[0] | {"id": 16384, "content": "<|more|>"})
        put(folder, "tokenizer.json", tokenizer)

        with pytest.raises(
            CheckpointUnusable,
            match=r"^mine: its tokenizer has 16385 tokens, and the network 16384\.$",
        ):
            _ = resolve(str(folder)).family

    def test_shapes_alone_need_no_weights(self, folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        assert resolve(str(folder), weights=False).family


class TestQuantised:
    """Quantised weights, which need an engine with kernels for them."""

    @pytest.fixture(params=["awq", "gptq", "fp8", "bitsandbytes", "compressed-tensors"])
    def method(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    def test_a_method_is_found_where_it_is_stated(self, folder: Path, method: str) -> None:
        for config in (
            {"quantization_config": {"quant_method": method}},
            {"text_config": {"quantization_config": {"quant_method": method}}},
        ):
            assert quantization_of(folder, config) == method
        assert quantization_of(folder, stated("config.json")) == ""

        put(folder, "hf_quant_config.json", {})
        assert quantization_of(folder, stated("config.json")) == "as hf_quant_config.json says"

    def test_tensors_of_a_quantised_matrix_are_read(self, folder: Path) -> None:
        matrix = "model.layers.0.mlp.up_proj."

        def quantise(tensors: Tensors) -> None:
            tensors.pop(f"{matrix}weight")
            for part in ("qweight", "qzeros", "scales"):
                tensors[matrix + part] = torch.zeros(2, dtype=torch.int32)

        rewrite(folder, quantise)
        assert "which nothing reads" in refusal(str(folder))

        reconfigure(folder, quantization_config={"quant_method": "awq", "bits": 4})
        assert resolve(str(folder))

        rewrite(folder, lambda tensors: tensors | {"score.weight": torch.zeros(1)})
        assert "the weights hold score.weight, which nothing reads (1 in all)" in refusal(
            str(folder)
        )


def test_a_mistyped_folder_is_not_taken_for_a_hubs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal("models/my-gmr").startswith(
        "There is no folder models/my-gmr (a hub model needs RERANK_MODEL_REVISION"
    )


def test_a_published_checkpoint_is_whole() -> None:
    manifest = read_manifest(TINY)
    assert manifest
    assert resolve("gmr-tiny").manifest == manifest
    assert MANIFEST not in manifest.files
    assert json.loads((TINY / MANIFEST).read_text(encoding="utf-8"))["name"] == "gmr-tiny"
