"""A few real steps of gmr-tiny's training: they change what they should, nothing else, and the same
way each time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.families.gmr import Gmr
from model_store.families.tokens import TOKENIZER_FILE, LiteralTokenizer
from model_store.recipes.tiny.network import EMBEDDING_RMS, begin, spelled
from model_store.recipes.tiny.packed_batches import PackedBatcher
from model_store.recipes.tiny.train import learn_signs, naming_loss, see
from tests.conftest import TINY

pytestmark = pytest.mark.slow

Weights = dict[str, Tensor]
SEED = 11
STEPS = 10


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(TINY / TOKENIZER_FILE))


@pytest.fixture(scope="module")
def batcher(tokenizer: Tokenizer) -> PackedBatcher:
    return PackedBatcher(Gmr(LiteralTokenizer.load(TINY)), tokenizer)


@pytest.fixture(scope="module")
def fresh(tokenizer: Tokenizer) -> Network:
    return begin(tokenizer, SEED)


def weights(network: Network) -> Weights:
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def changed(before: Weights, after: Weights) -> set[str]:
    return {name for name, values in before.items() if not torch.equal(values, after[name])}


class Run:
    """Both stages from the beginning, with what they reported and saved, and the weights after
    each."""

    def __init__(self, tokenizer: Tokenizer, batcher: PackedBatcher) -> None:
        self.lines: list[str] = []
        self.saved = 0
        network = begin(tokenizer, SEED)
        self.begun = weights(network)
        see(
            network,
            batcher,
            steps=3,
            seed=SEED,
            report=self.lines.append,
            scenes=3,
            pages=1,
            report_every=5,
        )
        self.seen = weights(network)
        learn_signs(
            network,
            [batcher],
            ["I-T", "T-I"],
            steps=STEPS,
            seed=SEED,
            report=self.lines.append,
            save=self.save,
            queries=2,
            negatives=1,
            report_every=5,
        )
        self.taught = weights(network)

    def save(self) -> None:
        self.saved += 1


@pytest.fixture(scope="module")
def run(tokenizer: Tokenizer, batcher: PackedBatcher) -> Run:
    return Run(tokenizer, batcher)


class TestSteps:
    """What a stage may touch."""

    def test_seeing_changes_the_vision_tower_alone(self, run: Run) -> None:
        names = changed(run.begun, run.seen)
        assert names
        assert all(name.startswith("model.visual.") for name in names)
        assert {name for name in run.begun if name.startswith("model.visual.")} == names

    def test_signs_change_the_language_model_but_not_its_embeddings(self, run: Run) -> None:
        names = changed(run.seen, run.taught)
        assert {
            name for name in run.seen if name.startswith("model.language_model.layers.")
        } <= names
        assert not [
            name for name in names if "visual" in name or "embed" in name or "lm_head" in name
        ]

    def test_weights_stay_finite(self, run: Run) -> None:
        assert all(values.isfinite().all() for values in run.taught.values())

    def test_progress_is_reported_and_saved_now_and_then(self, run: Run) -> None:
        assert [line.split(":")[0] for line in run.lines] == ["signs 5/10", "signs 10/10"]
        assert run.saved == 2

    def test_the_same_seed_gives_the_same_weights(
        self, run: Run, tokenizer: Tokenizer, batcher: PackedBatcher
    ) -> None:
        again = Run(tokenizer, batcher)
        assert changed(run.taught, again.taught) == set()
        assert run.lines == again.lines


class TestBeginning:
    """The network before its first step."""

    def test_a_seed_decides_all_weights(self, tokenizer: Tokenizer, fresh: Network) -> None:
        assert changed(weights(fresh), weights(begin(tokenizer, SEED))) == set()
        assert changed(weights(fresh), weights(begin(tokenizer, SEED + 1)))

    def test_it_is_of_a_few_million_parameters_in_fp32(self, fresh: Network) -> None:
        assert 4e6 < fresh.num_parameters() < 12e6
        assert {parameter.dtype for parameter in fresh.parameters()} == {torch.float32}

    def test_its_head_is_tied_to_its_embeddings(self, fresh: Network) -> None:
        assert fresh.get_output_embeddings().weight is fresh.get_input_embeddings().weight

    def test_embeddings_are_spelled(self, tokenizer: Tokenizer, fresh: Network) -> None:
        rows = spelled(tokenizer)
        assert torch.equal(fresh.get_input_embeddings().weight, rows)
        assert rows.pow(2).mean(-1).sqrt() == pytest.approx(EMBEDDING_RMS * torch.ones(len(rows)))

    def test_spellings_of_a_word_are_near_each_other(self, tokenizer: Tokenizer) -> None:
        rows = torch.nn.functional.normalize(spelled(tokenizer), dim=1)
        sort, spaced, other = (
            rows[tokenizer.token_to_id(token)] for token in ("sort", "Ġsort", "Ġgreen")
        )
        assert sort @ spaced > 0.8 > 0.3 > spaced @ other


class TestNaming:
    """The loss of the vision stage."""

    @pytest.fixture
    def embeddings(self) -> Tensor:
        return EMBEDDING_RMS * torch.randn(16384, 64, generator=torch.Generator().manual_seed(1))

    def loss(self, tokens: Tensor, embeddings: Tensor) -> float:
        torch.manual_seed(2)
        return float(naming_loss(tokens, [2, 1], [[5, 6], [7]], embeddings))

    def test_pictures_that_say_their_words_cost_little(self, embeddings: Tensor) -> None:
        right, swapped = embeddings[[5, 6, 7]], embeddings[[7, 7, 5]]
        assert self.loss(right, embeddings) < 1.0 < self.loss(swapped, embeddings)

    def test_tokens_of_another_size_cost_more(self, embeddings: Tensor) -> None:
        right = embeddings[[5, 6, 7]]
        assert self.loss(right, embeddings) < self.loss(3 * right, embeddings)


def test_a_loss_that_is_not_finite_stops_the_training(
    fresh: Network, batcher: PackedBatcher
) -> None:
    broken = begin_with(fresh, lambda values: values.fill_(float("nan")))
    with pytest.raises(FloatingPointError, match="not finite at step 1"):
        see(broken, batcher, steps=1, seed=SEED, report=print, scenes=3, pages=1)


def begin_with(network: Network, change: Callable[[Tensor], Tensor]) -> Network:
    """A copy of a network with its vision tower's merger changed."""
    copy = Network(network.config)
    copy.load_state_dict(network.state_dict())
    with torch.no_grad():
        for parameter in copy.model.visual.merger.parameters():
            change(parameter)
    return copy
