"""The network that counts equal words: what it finds without training, and what it costs."""

from __future__ import annotations

from statistics import fmean

import pytest

from model_store.checkpoint import Checkpoint, resolve
from model_store.errors import DataError
from model_store.evaluation.metrics import ndcg
from model_store.evaluation.nine_cells import questions
from model_store.recipes.tiny.scoring import open_scorer
from model_store.recipes.tiny.small import NAME, make_small
from model_store.sizing.network import network_cost
from model_store.training.benchmark import ranked_relevances
from tests.conftest import TINY

pytestmark = pytest.mark.slow
CHANCE = 0.227
"""nDCG@10 of a random order of 20 candidates, of which one is relevant."""


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("small") / NAME
    make_small(folder)
    return resolve(str(folder))


@pytest.mark.parametrize("first", [0, 1], ids=["own instruction", "default instruction"])
def test_it_finds_texts_that_have_the_querys_words(words: Checkpoint, first: int) -> None:
    score = open_scorer(words)
    values: list[float] = []
    for example in list(questions("T-T", 16))[first::2]:
        (scores,) = score([example])
        values.append(ndcg(ranked_relevances(list(scores), 1), 10))
    assert fmean(values) > CHANCE + 0.2


def test_it_has_the_prompt_of_gmr_tiny_and_a_twelfth_of_its_work(words: Checkpoint) -> None:
    assert words.family.fingerprint == resolve("gmr-tiny").family.fingerprint
    tiny, small = (network_cost(str(each)).operations(1, 1, 1) for each in (TINY, words.folder))
    assert small < tiny / 12


def test_a_folder_that_exists_is_refused(words: Checkpoint) -> None:
    with pytest.raises(DataError, match="is there already"):
        make_small(words.folder)
