"""A name in a registry resolves to a whole, local checkpoint, or is refused in one sentence."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from model_store.checkpoint import resolve, resolve_adapter
from model_store.manifest import CheckpointUnusable, digest_files, read_manifest, write_manifest
from model_store.registry.channels import current, promote, rollback
from model_store.registry.storage import Storage, open_storage
from model_store.registry.versions import Version, upload
from tests.conftest import TINY
from tests.model_store.registry.published import fresh_memory
from tests.worker.engines.vllm.adapters import make_adapter


@pytest.fixture(params=["folder", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "registry") if request.param == "folder" else fresh_memory()


@pytest.fixture
def storage(root: str) -> Storage:
    return open_storage(root)


@pytest.fixture
def version(storage: Storage) -> Version:
    """gmr-tiny, published and in production."""
    version = upload(storage, TINY)
    promote(storage, "gmr-tiny", "production", version.digest, after=None)
    return version


def refusal(name: str, *, registry: str | None = None, cache: Path | None = None) -> str:
    with pytest.raises(CheckpointUnusable) as caught:
        resolve(name, registry=registry, cache=cache)
    sentence = str(caught.value)
    assert re.fullmatch(r"[^\n]+\.", sentence)
    return sentence


def test_a_channel_and_a_digest_resolve(root: str, version: Version, tmp_path: Path) -> None:
    for which in ("production", version.digest, f"sha256:{version.digest}", version.digest[:8]):
        checkpoint = resolve(f"gmr-tiny@{which}", registry=root, cache=tmp_path / "cache")
        assert checkpoint.name == "gmr-tiny"
        assert checkpoint.digest == resolve("gmr-tiny").digest
        assert checkpoint.folder == tmp_path / "cache" / "registry" / version.digest


def test_a_url_resolves_without_a_registry(version: Version, root: str, tmp_path: Path) -> None:
    url = root if "://" in root else f"file://{root}"
    for name in (f"{url}/gmr-tiny@production", f"{url}/gmr-tiny/{version.digest}"):
        assert resolve(name, cache=tmp_path / "cache").digest == resolve("gmr-tiny").digest


def test_a_channel_follows_its_promotions(
    storage: Storage, version: Version, root: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(TINY, tmp_path / "copy"))
    manifest = read_manifest(folder)
    assert manifest

    write_manifest(folder, manifest.model_copy(update={"max_tokens": 3000}))
    second = upload(storage, folder)

    def max_tokens() -> int:
        checkpoint = resolve("gmr-tiny@production", registry=root, cache=tmp_path / "cache")
        return checkpoint.manifest.max_tokens

    before = current(storage, "gmr-tiny", "production")
    promote(storage, "gmr-tiny", "production", second.digest, after=before)
    assert max_tokens() == 3000

    rollback(storage, "gmr-tiny", "production")
    assert max_tokens() == 3200


def test_a_version_that_does_not_verify_is_refused(
    root: str, storage: Storage, version: Version, tmp_path: Path
) -> None:
    (tmp_path / "other").write_bytes(b"{}")
    storage.put(tmp_path / "other", f"gmr-tiny/{version.digest}/config.json")
    assert "config.json is not the file that was published" in refusal(
        "gmr-tiny@production", registry=root, cache=tmp_path / "cache"
    )


@pytest.mark.parametrize(
    "name",
    [
        "gmr-tiny@",
        "@production",
        "gmr-tiny@nowhere",
        "gmr-tiny@00000000",
        "x@production",
        "../x@production",
    ],
)
def test_a_missing_version_is_one_sentence(
    version: Version, root: str, tmp_path: Path, name: str
) -> None:
    assert refusal(name, registry=root, cache=tmp_path / "cache")


@pytest.mark.parametrize(
    "name",
    [
        "memory://",
        "memory://x",
        "://@",
        "s3://x@production",
        "nothing://a/b@production",
        "file://@a",
    ],
)
def test_a_url_that_names_nothing_is_one_sentence(tmp_path: Path, name: str) -> None:
    assert refusal(name, cache=tmp_path / "cache")


def test_a_registry_must_be_named(tmp_path: Path) -> None:
    assert "RERANK_REGISTRY" in refusal("gmr-tiny@production", cache=tmp_path / "cache")


class TestAdapters:
    """Adapters that are published alone, for one base."""

    @pytest.fixture
    def adapter(self, tmp_path: Path) -> Path:
        """An adapter's folder whose manifest names gmr-tiny as its base."""
        folder = tmp_path / "adapter"
        make_adapter(folder, 4, 1)
        manifest = read_manifest(TINY)
        assert manifest
        files = {name: file for name, file in manifest.files.items() if name.startswith("golden")}
        for name in files:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(TINY / name, folder / name)
        files |= digest_files(folder, ["adapter_config.json", "adapter_model.safetensors"])
        update = {"name": "small-lora", "base": resolve("gmr-tiny").digest, "files": files}
        write_manifest(folder, manifest.model_copy(update=update))
        return folder

    def test_it_is_no_model(
        self, adapter: Path, storage: Storage, root: str, tmp_path: Path
    ) -> None:
        assert "is an adapter" in refusal(str(adapter))
        upload(storage, adapter)
        digest = storage.names("small-lora")[0]
        assert "is an adapter" in refusal(
            f"small-lora@{digest}", registry=root, cache=tmp_path / "cache"
        )

    def test_it_comes_from_a_registry(
        self, adapter: Path, storage: Storage, root: str, tmp_path: Path
    ) -> None:
        promote(storage, "small-lora", "production", upload(storage, adapter).digest, after=None)
        resolved = resolve_adapter(
            "x",
            Path("small-lora@production"),
            registry=root,
            cache=tmp_path / "cache",
            model=resolve("gmr-tiny"),
        )
        assert (resolved.name, resolved.rank) == ("x", 4)
        assert resolved.digest == resolve_adapter("x", adapter).digest

    def test_another_base_is_refused(self, adapter: Path, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(TINY, tmp_path / "other"))
        manifest = read_manifest(folder)
        assert manifest
        write_manifest(folder, manifest.model_copy(update={"max_tokens": 3000}))
        with pytest.raises(CheckpointUnusable, match="was trained on another checkpoint"):
            resolve_adapter("x", adapter, model=resolve(str(folder)))
