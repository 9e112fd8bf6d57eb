"""The stage that brings the next gmr-tiny's scores of texts near its teacher's.

Depends on rows with `teacher_scores`, not on the teacher. Invariant: a step is a function of the
state before it, so a stage that was stopped goes on as if it had not been; embeddings and the
vision tower stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.files import atomic_path
from model_store.networks.score_row import score_row
from model_store.recipes.tiny.packed_batches import PackedBatcher
from model_store.recipes.tiny.steps import advance, autocast, make_optimizers
from model_store.recipes.tiny.train import Report, read
from model_store.synthetic.examples import Example
from model_store.training.data import rows as data
from model_store.training.distillation import listwise_kl, margin_mse

STATE = "state.pt"
_WINDOW = 400  # rows of about one length, of which a step draws some


@dataclass(frozen=True, slots=True, kw_only=True)
class Distillation:
    """Settings of the stage.

    `rate` is Muon's of the layers that begin empty, `constructed_rate` that of the others: the
    first and the last two. `tokens` bounds a step, about. The loss is the KL divergence, `margins`
    times the squared error of margins, and `size` times that of scores.
    """

    steps: int
    seed: int
    tokens: int = 8000
    rate: float = 2.5e-4
    constructed_rate: float = 5e-5
    warmup: int = 100
    margins: float = 0.02
    size: float = 0.005
    save_every: int = 100


def distil(
    network: Network,
    batcher: PackedBatcher,
    rows: Sequence[data.Example],
    *,
    settings: Distillation,
    folder: Path,
    report: Report,
    measure: Callable[[int], None] = lambda step: None,
) -> None:
    """Train the language model; `measure` is called after each saved state.

    Rows have equally many documents. The state is in `folder`, from which a restart goes on.
    """
    optimizers = _optimizers(network, settings)
    folder.mkdir(parents=True, exist_ok=True)
    done = _resume(folder / STATE, network, optimizers)
    if done:
        report(f"distil: goes on after step {done}")

    ordered = sorted(rows, key=_length)
    network.train()
    for step in range(done + 1, settings.steps + 1):
        drawn = _draw(ordered, settings, step)
        batch = batcher.batch([_example(row, batcher.default_instruction) for row in drawn])
        with autocast():
            hidden = read(network, batch, None)
        scores = hidden[batch.last].float() @ score_row(network, batcher.readout, batcher.label_ids)
        loss, parts = _loss(scores, torch.tensor([row.teacher_scores for row in drawn]), settings)
        advance(optimizers, loss, step, settings.steps, settings.warmup)
        if step % 20 == 0:
            report(f"distil {step}/{settings.steps}: {parts}, {batch.ids.numel()} tokens")
        if step % settings.save_every == 0 or step == settings.steps:
            _save(folder / STATE, network, optimizers, step)
            network.eval()
            measure(step)
            network.train()
    network.eval()


def constructed(name: str, layers: int) -> bool:
    """Whether a parameter is of a layer whose initial weights compute the first scores."""
    numbers = (0, layers - 2, layers - 1)
    return any(f".layers.{number}." in name for number in numbers) or ".layers." not in name


def _optimizers(network: Network, settings: Distillation) -> list[torch.optim.Optimizer]:
    network.model.visual.requires_grad_(False)
    network.get_input_embeddings().weight.requires_grad_(False)
    layers = network.config.text_config.num_hidden_layers
    careful: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            (careful if constructed(name, layers) else free).append(parameter)
    return [
        *make_optimizers(free, settings.rate),
        *make_optimizers(careful, settings.constructed_rate),
    ]


def _loss(scores: Tensor, wanted: Tensor, settings: Distillation) -> tuple[Tensor, str]:
    divergence = listwise_kl(scores, wanted)
    margins, size = margin_mse(scores, wanted), (scores - wanted).square().mean()
    first = scores[:, 0] > scores[:, 1:].max(1).values
    parts = f"KL {divergence.item():.3f}, margins {margins.item():.2f}, size {size.item():.2f}"
    parts += f", first {first.float().mean().item():.2f}"
    return divergence + settings.margins * margins + settings.size * size, parts


def _draw(ordered: Sequence[data.Example], settings: Distillation, step: int) -> list[data.Example]:
    """Rows of about one length; the seed and the step decide them."""
    rng = Random(f"distil/{settings.seed}/{step}")
    middle = rng.randrange(len(ordered))
    start = max(0, min(middle - _WINDOW // 2, len(ordered) - _WINDOW))
    window = ordered[start : start + _WINDOW]
    # about 4.2 characters a token, and a prompt of about 60 tokens and 9 more a document
    tokens = 60 + 9 * len(ordered[middle].documents) + _length(ordered[middle]) / 4.2
    return rng.sample(window, max(1, min(len(window), 64, int(settings.tokens / tokens))))


def _length(row: data.Example) -> int:
    return sum(len(side.text or "") for side in (row.query, *row.documents))


def _example(row: data.Example, default: str) -> Example:
    documents = [(side.text or "",) for side in row.documents]
    query = (row.query.text or "",)
    return Example("T-T", row.instruction or default, query, [*documents], frozenset())


def _save(
    path: Path, network: Network, optimizers: Iterable[torch.optim.Optimizer], step: int
) -> None:
    state = {
        "step": step,
        "network": network.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    with atomic_path(path) as draft:
        torch.save(state, draft)


def _resume(path: Path, network: Network, optimizers: Sequence[torch.optim.Optimizer]) -> int:
    """The step of the saved state, 0 without one."""
    if not path.exists():
        return 0

    state = torch.load(path, weights_only=True)
    network.load_state_dict(state["network"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return int(state["step"])
