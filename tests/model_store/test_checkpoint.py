"""A name resolves to a whole checkpoint, or is refused in one sentence with the reason."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.checkpoint import resolve
from model_store.families.gmr import DEFAULT_INSTRUCTION, MAX_PIXELS, MAX_TOKENS, MIN_PIXELS
from model_store.families.readout import SingleLabel
from model_store.manifest import (
    MANIFEST,
    CheckpointUnusable,
    PixelBounds,
    read_manifest,
    write_manifest,
)
from tests.conftest import TINY

PLAIN = ("config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors")


def refusal(name: str) -> str:
    """The one sentence with which a name is refused."""
    with pytest.raises(CheckpointUnusable) as caught:
        resolve(name)
    sentence = str(caught.value)
    assert re.fullmatch(r"[^\n]+\.", sentence)
    assert str(Path.home()) not in sentence
    return sentence


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A model as its authors release it: no manifest."""
    folder = tmp_path / "released"
    folder.mkdir()
    for name in PLAIN:
        shutil.copy(TINY / name, folder / name)
    return folder


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A copy of gmr-tiny with its manifest."""
    return Path(shutil.copytree(TINY, tmp_path / "copy"))


def test_a_shipped_name_resolves() -> None:
    checkpoint = resolve("gmr-tiny")
    assert checkpoint.folder.samefile(TINY)
    assert checkpoint.name == "gmr-tiny"
    assert checkpoint.manifest == read_manifest(TINY)
    assert re.fullmatch("[0-9a-f]{64}", checkpoint.digest)


def test_a_folder_resolves_under_its_manifests_name(published: Path) -> None:
    assert resolve(str(published)).name == "gmr-tiny"
    assert resolve(str(published)).digest == resolve("gmr-tiny").digest


def test_a_dot_is_the_current_folder(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(published)
    assert resolve(".").folder.samefile(published)


def test_a_released_model_gets_the_familys_limits(released: Path) -> None:
    checkpoint = resolve(str(released))
    manifest = checkpoint.manifest
    assert (checkpoint.name, manifest.family, manifest.template) == ("released", "gmr", "code")
    assert (manifest.max_tokens, manifest.default_instruction) == (MAX_TOKENS, DEFAULT_INSTRUCTION)
    assert set(manifest.files) == set(PLAIN)
    assert manifest.pixels == resolve("gmr-tiny").manifest.pixels


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (None, (MIN_PIXELS, MAX_PIXELS)),
        ({}, (MIN_PIXELS, MAX_PIXELS)),
        ({"min_pixels": 1, "max_pixels": 2**40}, (1, MAX_PIXELS)),
        ({"min_pixels": 784, "max_pixels": 2352}, (784, 2352)),
        (
            {
                "min_pixels": None,
                "max_pixels": 50176,
                "size": {"shortest_edge": 784, "longest_edge": 9},
            },
            (784, 50176),
        ),
        ({"size": {"shortest_edge": 12544, "longest_edge": 50176}}, (12544, 50176)),
    ],
)
def test_image_limits_are_the_processors_up_to_the_familys(
    released: Path, stated: dict[str, object] | None, expected: tuple[int, int]
) -> None:
    (released / "preprocessor_config.json").unlink()
    if stated is not None:
        (released / "preprocessor_config.json").write_text(json.dumps(stated), encoding="utf-8")

    smallest, largest = expected
    pixels = PixelBounds(min_pixels=smallest, max_pixels=largest)
    assert resolve(str(released)).manifest.pixels == pixels


@pytest.mark.parametrize(
    "name", ["gmr-huge", "", "./nowhere", "/nowhere/at/all", "a/b/c", "..", "\0", "gmr-tiny/"]
)
def test_an_unknown_name_is_refused(name: str) -> None:
    assert refusal(name)


def test_an_unknown_name_is_refused_with_the_names_that_ship() -> None:
    expected = (
        "There is no model 'gmr-huge': it is no folder, no hub id, and none of gmr-mini,"
        " gmr-tiny, gmr-tiny-d."
    )
    assert refusal("gmr-huge") == expected


@settings(max_examples=60, deadline=None)
@given(name=st.text(max_size=30))
def test_any_name_that_is_no_model_gets_a_sentence(name: str) -> None:
    with pytest.raises(CheckpointUnusable):
        resolve(name)


class TestUnusable:
    """Folders that are incomplete or changed, and are never served."""

    @pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "golden.json"])
    def test_a_changed_file(self, published: Path, name: str) -> None:
        with (published / name).open("ab") as file:
            file.write(b" ")
        assert f"{name} is not the file that was published" in refusal(str(published))

    def test_a_missing_file(self, published: Path) -> None:
        (published / "chat_template.jinja").unlink()
        assert "chat_template.jinja is missing" in refusal(str(published))

    def test_a_checkpoint_whose_publication_stopped_before_the_manifest(
        self, published: Path
    ) -> None:
        (published / MANIFEST).rename(published / f"{MANIFEST}.draft")
        assert "not published to the end" in refusal(str(published))

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        assert "config.json" in refusal(str(tmp_path))

    @pytest.mark.parametrize("config", ["", "[]", "null", "{", "\x00", '"x"', "[" * 10_000])
    def test_a_config_that_is_no_object(self, released: Path, config: str) -> None:
        (released / "config.json").write_text(config, encoding="utf-8")
        assert refusal(str(released)) in (
            "released: config.json is not valid JSON in UTF-8.",
            "released: config.json is no JSON object.",
        )

    @pytest.mark.parametrize(
        "architectures", [None, [], 5, ["BertForMaskedLM"], "Qwen2_5_VLForConditionalGeneration"]
    )
    def test_another_architecture(self, released: Path, architectures: object) -> None:
        (released / "config.json").write_text(
            json.dumps({"architectures": architectures}), encoding="utf-8"
        )
        assert "config.json has the architectures " in refusal(str(released))

    def test_no_weights(self, released: Path) -> None:
        (released / "model.safetensors").rename(released / "pytorch_model.bin")
        assert "no safetensors weights" in refusal(str(released))

    @pytest.mark.parametrize(
        ("stated", "named"),
        [
            ("", "preprocessor_config.json"),
            ("[]", "preprocessor_config.json"),
            ("{", "preprocessor_config.json"),
            ('{"size": 5}', "size of preprocessor_config.json"),
            (
                '{"min_pixels": "3136"}',
                "min_pixels of preprocessor_config.json is '3136', not a whole number",
            ),
            (
                '{"max_pixels": -5}',
                "max_pixels of preprocessor_config.json is -5, not a whole number",
            ),
            ('{"max_pixels": true}', "max_pixels of preprocessor_config.json is True"),
            (
                '{"size": {"longest_edge": 1e6}}',
                "longest_edge of preprocessor_config.json is 1000000.0",
            ),
            ('{"max_pixels": 784}', "min_pixels is 3136, more than max_pixels, 784"),
            (
                '{"min_pixels": 2000000, "max_pixels": 3000000}',
                "pictures are read at 1003520 at most",
            ),
            ('{"image_mean": [0.5, 0.5, 0.5]}', "image_mean of preprocessor_config.json"),
            ('{"patch_size": 16}', "patch_size of preprocessor_config.json is 16"),
            ('{"do_resize": false}', "do_resize of preprocessor_config.json"),
        ],
    )
    def test_a_processor_that_cannot_be_followed(
        self, released: Path, stated: str, named: str
    ) -> None:
        (released / "preprocessor_config.json").write_text(stated, encoding="utf-8")
        assert named in refusal(str(released))

    @pytest.mark.parametrize("change", [{"family": "bert"}, {"template": "prose"}])
    def test_an_unknown_family_or_template(self, published: Path, change: dict[str, str]) -> None:
        manifest = read_manifest(published)
        assert manifest
        write_manifest(published, manifest.model_copy(update=change))
        with pytest.raises(CheckpointUnusable, match="is not known"):
            _ = resolve(str(published)).family

    @pytest.mark.parametrize(
        "tokenizer",
        [
            None,
            "",
            "{}",
            '{"added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}}',
        ],
    )
    def test_a_tokenizer_that_does_not_fit(self, released: Path, tokenizer: str | None) -> None:
        (released / "tokenizer.json").unlink()
        if tokenizer is not None:
            (released / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
        with pytest.raises(CheckpointUnusable, match=r"^released: [^\n]+\.$"):
            _ = resolve(str(released)).family


class TestDigest:
    """The digest covers all that decides a score, and nothing else."""

    @pytest.mark.parametrize("change", [{"name": "other"}, {"lineage": {"seed": 5}}])
    def test_it_ignores_name_and_lineage(self, published: Path, change: dict[str, object]) -> None:
        manifest = read_manifest(published)
        assert manifest
        write_manifest(published, manifest.model_copy(update=change))
        assert resolve(str(published)).digest == resolve("gmr-tiny").digest

    @pytest.mark.parametrize(
        "change", [{"template": "spaced"}, {"max_tokens": 3000}, {"default_instruction": "x"}]
    )
    def test_it_follows_template_and_limits(
        self, published: Path, change: dict[str, object]
    ) -> None:
        manifest = read_manifest(published)
        assert manifest
        write_manifest(published, manifest.model_copy(update=change))
        assert resolve(str(published)).digest != resolve("gmr-tiny").digest

    def test_it_follows_the_weights(self, released: Path) -> None:
        before = resolve(str(released)).digest
        with (released / "model.safetensors").open("r+b") as file:
            file.seek(-1, 2)
            file.write(b"\x01")
        assert resolve(str(released)).digest != before

    @pytest.mark.parametrize(
        "name",
        [
            "generation_config.json",
            "merges.txt",
            "added_tokens.json",
            "special_tokens_map.json",
            "chat_template.jinja",
            "tokenizer.4.0.0.json",
            "additional_chat_templates/rag.jinja",
            "tokenizer.model",
        ],
    )
    def test_it_follows_every_file_that_a_loader_reads(self, released: Path, name: str) -> None:
        before = resolve(str(released)).digest
        (released / name).parent.mkdir(exist_ok=True)
        (released / name).write_text("{}", encoding="utf-8")
        assert resolve(str(released)).digest != before

    @pytest.mark.parametrize(
        "name",
        ["README.md", ".gitattributes", ".git/config.json", "modeling.py", "pytorch_model.bin"],
    )
    def test_it_ignores_what_no_loader_reads(self, released: Path, name: str) -> None:
        before = resolve(str(released)).digest
        (released / name).parent.mkdir(exist_ok=True)
        (released / name).write_text("{}", encoding="utf-8")
        assert resolve(str(released)).digest == before


def test_the_default_read_out_is_in_no_digest_and_another_one_is_by_name(
    published: Path,
) -> None:
    manifest = read_manifest(published)
    assert manifest

    described = manifest.model_dump(exclude={"lineage", "name", "base", "read_out", "transform"})
    described["prompt"] = resolve("gmr-tiny").family.fingerprint
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    assert resolve(str(published)).digest == digest

    write_manifest(published, manifest.model_copy(update={"read_out": "yes"}))
    single = resolve(str(published))
    assert single.family.readout == SingleLabel("yes")
    assert single.digest != digest

    write_manifest(published, manifest.model_copy(update={"read_out": "no"}))
    with pytest.raises(
        CheckpointUnusable,
        match=r"^gmr-tiny: the family gmr has no read-out 'no'; it has 'yes - no' and 'yes'\.$",
    ):
        _ = resolve(str(published)).family


def test_a_transform_that_is_not_known_is_refused(published: Path) -> None:
    manifest = read_manifest(published)
    assert manifest
    write_manifest(published, manifest.model_copy(update={"transform": "softmax"}))
    with pytest.raises(CheckpointUnusable, match="the transform 'softmax' is not known"):
        _ = resolve(str(published)).transform
