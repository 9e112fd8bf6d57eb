"""One checkpoint with either side first in its prompt, whose images may be as large as the
workload's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from model_store.checkpoint import Checkpoint, resolve
from model_store.families.prompt import Image, Prompt
from model_store.families.tokens import LiteralTokenizer
from service.bench.plan import BenchRefused
from service.bench.reuse.pool import Pool
from service.bench.reuse.prompts import cache_gib, with_prompt
from tests.bench.test_plan import plan
from tests.conftest import TINY


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    folder, checkpoint = tmp_path_factory.mktemp("prompts"), resolve("gmr-tiny")
    return {
        prompt: with_prompt(checkpoint, prompt, folder / prompt, weights=True)
        for prompt in ("document", "query")
    }


def prompts_of(checkpoint: Checkpoint, *queries: str) -> list[Prompt]:
    picture = Image(b"", 448, 448)
    rendered = []
    for query in queries:
        rendered += checkpoint.family.render(("Judge.",), (query,), [(picture,)])
    return [prompt for prompt in rendered if isinstance(prompt, Prompt)]


@pytest.mark.parametrize("side", ["document", "query"])
def test_prompts_begin_with_the_side_that_is_asked_for(
    made: dict[str, Checkpoint], side: str
) -> None:
    one, other = prompts_of(made[side], "a red square", "two circles")
    assert made[side].family.cacheable_side == side
    assert (one.prefix == other.prefix) == (side == "document")
    assert one.ids.count(made[side].family.images.token_id) == 256  # type: ignore[union-attr]


def test_scores_of_another_prompt_are_left_out(made: dict[str, Checkpoint]) -> None:
    for checkpoint in made.values():
        assert not (checkpoint.folder / "golden.json").exists()
        assert not [name for name in checkpoint.manifest.files if name.startswith("golden")]


def test_the_cache_has_room_for_the_documents_of_the_largest_pool(
    made: dict[str, Checkpoint],
) -> None:
    """gmr-tiny keeps 2,048 bytes of a token in fp32; a picture's pair has 256 tokens and more."""
    tokenizer = LiteralTokenizer.load(TINY)
    pools = [Pool("D", 1000, 100, tokenizer), Pool("DI", 4000, 100, tokenizer)]
    checkpoint, float32 = made["document"], plan(model="gmr-tiny")
    least = 4000 * 256 * 2048 / 2**30
    assert least < cache_gib(checkpoint, float32, pools) <= 2 * least + 1
    assert cache_gib(checkpoint, float32, pools[:1]) == 1
    assert cache_gib(checkpoint, replace(float32, dtype="bfloat16"), pools) < cache_gib(
        checkpoint, float32, pools
    )


def test_a_family_with_one_order_is_refused(tmp_path: Path) -> None:
    checkpoint = resolve("gmr-tiny")
    other = checkpoint.manifest.model_copy(update={"family": "qwen3-reranker"})
    with pytest.raises(BenchRefused, match="gmr-tiny is no GMR, whose prompt has both orders"):
        with_prompt(replace(checkpoint, manifest=other), "query", tmp_path / "x", weights=True)
