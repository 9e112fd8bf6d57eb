"""A checkpoint of every family has its scores in every form that hubs have of it, and a form that
cannot be served is refused with the remedy."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pytest

from model_store.checkpoint import resolve
from model_store.families.catalogue import FAMILIES
from model_store.manifest import CheckpointUnusable
from model_store.networks.catalogue import DECODERS
from service.wire import Pixels, ScoreCall, Scored
from service.worker.engines.torch.engine import TorchEngine
from tests.hub_folders import (
    EXECUTED,
    QUANTISATIONS,
    WRITERS,
    as_adapter,
    as_of_2024,
    as_of_transformers_5,
    is_untied,
    quantised,
    read,
)
from tests.worker.calls import verdicts
from tests.worker.engines.conftest import Configure

FORMS: Mapping[str, Callable[[Path], Path]] = {
    "as of 2024": as_of_2024,
    "as of transformers 5": as_of_transformers_5,
}


NOT_IN_VLLM = ("nemotron-rerank",)
"""Families of a network that vLLM does not have."""
REFUSED_BY_VLLM = {
    ("jina-reranker-m0", "as of transformers 5"): "rename model.visual.* to visual.*",
}
"""Forms that only transformers loads, and words of the sentence."""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family as its authors publish it; tests change copies of it."""
    root = tmp_path_factory.mktemp("published")
    return cache(lambda family: WRITERS[family](root / family))


def copy_of(folder: Path, root: Path) -> Path:
    return Path(shutil.copytree(folder, root / folder.name))


async def scores(folder: Path) -> list[float]:
    """Raw scores of a text and, where the model reads pictures, of a picture."""
    engine = TorchEngine(device="cpu", threads=1)
    (info,) = await engine.start(resolve(str(folder)))
    documents: list[list[str | int]] = [["Sort the list of seven and return None."]]
    images: list[Pixels] = []
    if info.images:
        side = 2 * info.images.cell
        rgb = bytes(range(256)) * (3 * side * side // 256 + 1)
        images.append(Pixels(b"p" * 32, side, side, rgb[: 3 * side * side]))
        documents.append([0])

    call = ScoreCall(info.model, None, ["how do I sort a list"], documents, images, truncate=True)
    found = await verdicts(engine, call)
    await engine.close()
    logits = [pair.logit for pair in found if isinstance(pair, Scored)]
    assert len(logits) == len(documents)
    return logits


def test_every_family_has_a_folder() -> None:
    lacking = FAMILIES.keys() - WRITERS.keys()
    assert not lacking, f"hub_folders.WRITERS makes no folder of {sorted(lacking)}: add a row"


@pytest.mark.parametrize("family", WRITERS)
async def test_torch_gives_every_form_the_same_scores(
    published: Callable[[str], Path], family: str, tmp_path: Path
) -> None:
    original = published(family)
    assert resolve(str(original)).manifest.family == family
    expected = await scores(original)
    for name, form in FORMS.items():
        folder = form(copy_of(original, tmp_path / name))
        doubled = name == "as of transformers 5" and is_untied(
            original, read(original, "config.json")
        )
        factor = 2 if doubled else 1
        assert await scores(folder) == pytest.approx(
            [factor * score for score in expected], abs=1e-4
        ), name
        assert not (folder / EXECUTED).exists()


@pytest.mark.parametrize("method", QUANTISATIONS)
@pytest.mark.parametrize("family", WRITERS)
async def test_quantised_weights_are_left_to_vllm(
    published: Callable[[str], Path], family: str, method: str, tmp_path: Path
) -> None:
    folder = quantised(copy_of(published(family), tmp_path), method)
    checkpoint = resolve(str(folder))
    assert checkpoint.manifest.family == family
    with pytest.raises(CheckpointUnusable) as refused:
        await TorchEngine(device="cpu", threads=1).start(checkpoint)
    assert f"its weights are quantised ({method}, by quantization_config of config.json)" in str(
        refused.value
    )
    assert "RERANK_ENGINE=vllm" in str(refused.value)


@pytest.mark.parametrize("family", WRITERS)
def test_an_adapter_alone_is_refused(
    published: Callable[[str], Path], family: str, tmp_path: Path
) -> None:
    folder = as_adapter(copy_of(published(family), tmp_path))
    with pytest.raises(CheckpointUnusable, match=r"is a LoRA adapter: serve its base"):
        resolve(str(folder))


@pytest.mark.slow
@pytest.mark.parametrize("family", WRITERS)
def test_vllm_takes_every_form_for_the_same_network(
    vllm_configuration: Configure,
    published: Callable[[str], Path],
    family: str,
    tmp_path: Path,
) -> None:
    expected = vllm_configuration(published(family))
    if family in NOT_IN_VLLM:
        assert "RERANK_ENGINE=torch" in expected["refused"]
        return
    assert expected["quantization"] is None
    for name, form in FORMS.items():
        folder = form(copy_of(published(family), tmp_path / name))
        found = vllm_configuration(folder)
        if (family, name) in REFUSED_BY_VLLM:
            assert REFUSED_BY_VLLM[family, name] in found["refused"]
            continue
        tied = read(folder, "config.json")["tie_word_embeddings"]
        assert found["tied"] == [tied, tied]
        assert found | {"tied": expected["tied"]} == expected, name

    for method in QUANTISATIONS if expected["architecture"] in DECODERS else ():
        folder = quantised(copy_of(published(family), tmp_path / method), method)
        found = vllm_configuration(folder)
        assert found["quantization"] is not None
        assert method in found["quantization"]
        assert found | {"quantization": None} == expected, method
