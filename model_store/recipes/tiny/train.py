"""gmr-tiny's training: first the vision tower learns to name what it sees, then the language model
learns to answer yes or no.

Knows losses and schedules; data, network and files are its neighbours'. Everything runs on CPU in
bf16 autocast over fp32 weights. The embeddings stay as they were spelled: moving only those of
words that training happens to meet would spoil the likeness of all others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize
from torch.utils.data import DataLoader, IterableDataset
from transformers import Qwen2_5_VLForConditionalGeneration as Network
from transformers.modeling_outputs import BaseModelOutputWithPast

from model_store.recipes.tiny.batches import Batch, Batcher, pixel_values
from model_store.recipes.tiny.network import EMBEDDING_RMS
from model_store.synthetic import cells, pages, scenes
from model_store.synthetic.pictures import fitted

Report = Callable[[str], None]
Item = TypeVar("Item")

REPORT_EVERY = 50
SCENES = 52
PAGES = 12
"""Pictures of one step of `see`. Printed words are learnt sooner than shapes and counts, and a page
costs three times a scene."""
QUERIES = 9
NEGATIVES = 9
"""Queries of one step of `learn_signs`, and irrelevant documents of each."""

_SHARPNESS = 50.0  # of naming, in logits for an image token that has a word's very direction
_STRANGERS = 512  # words that nothing shows, among those to choose a name from
_SIGN_WEIGHT = 8.0


class _Pictures(IterableDataset[tuple[Tensor, Tensor, list[list[int]]]]):
    """Batches of scenes and pages: patches, grids, and the tokens of the words true of each."""

    def __init__(self, batcher: Batcher, seed: int) -> None:
        self._batcher, self._seed = batcher, seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, list[list[int]]]]:
        rng = Random(f"pictures/{self._seed}")
        while True:
            drawn = [scenes.picture(scenes.any_scene(rng, "train"), rng) for _ in range(SCENES)]
            drawn += [pages.page_picture(pages.any_page(rng, "train"), rng) for _ in range(PAGES)]
            pixels, grids = pixel_values([fitted(picture) for picture in drawn])
            yield (
                pixels,
                grids,
                [self._batcher.word_ids(picture.info["words"]) for picture in drawn],
            )


class _Examples(IterableDataset[Batch]):
    """Batches of examples of the named cells, one named twice twice as often; half of them ask with
    the default instruction."""

    def __init__(self, batcher: Batcher, seed: int, names: Sequence[str]) -> None:
        self._batcher, self._seed, self._names = batcher, seed, names

    def __iter__(self) -> Iterator[Batch]:
        rng = Random(f"examples/{self._seed}")
        while True:
            chosen = rng.choices(self._names, k=QUERIES)
            yield self._batcher.batch(
                [
                    cells.sample(name, rng, "train", NEGATIVES, plain=rng.random() < 0.5)
                    for name in chosen
                ]
            )


def see(network: Network, batcher: Batcher, *, steps: int, seed: int, report: Report) -> None:
    """Teach the vision tower: an image's tokens name what it shows."""
    visual = network.model.visual
    embeddings = network.get_input_embeddings().weight.detach()
    optimizers = _optimizers(visual.parameters(), 2e-3)
    for step, (pixels, grids, names) in _stream(_Pictures(batcher, seed), steps):
        with torch.autocast("cpu", torch.bfloat16):
            tokens = visual(pixels, grid_thw=grids).pooler_output
        loss = naming_loss(tokens.float(), _tokens_of(grids), names, embeddings)
        _advance(optimizers, loss, step, steps)
        if step % REPORT_EVERY == 0:
            report(f"see {step}/{steps}: loss {loss.item():.3f}")


def learn_signs(
    network: Network,
    batcher: Batcher,
    names: Sequence[str],
    *,
    steps: int,
    seed: int,
    report: Report,
    keep: Callable[[], None],
) -> None:
    """Teach the language model signs: yes or no at the end of each word and each image of a
    document, never at the answer.

    Does the query say this word, does this image show what is asked for? They are read from the
    last layer and from the one before it, so that a layer is left that can weigh them. `keep` is
    called now and then, to save what there is.
    """
    network.model.visual.requires_grad_(False)
    network.get_input_embeddings().weight.requires_grad_(False)
    optimizers = _optimizers((each for each in network.parameters() if each.requires_grad), 1e-3)
    for step, batch in _stream(_Examples(batcher, seed, names), steps):
        with torch.autocast("cpu", torch.bfloat16):
            depths = _last_two_layers(network, batch)
        head = answer_head(network, batcher.label_ids)
        logits = torch.stack([hidden[batch.signs].float() @ head for hidden in depths])
        signs = binary_cross_entropy_with_logits(
            logits, batch.truths.expand_as(logits), pos_weight=torch.tensor(3.0)
        )
        _advance(optimizers, _SIGN_WEIGHT * signs, step, steps)
        if step % REPORT_EVERY == 0:
            report(f"signs {step}/{steps}: loss {signs.item():.3f}")
            keep()


def pictures_of(network: Network, batch: Batch) -> Tensor | None:
    """What the vision tower makes of a batch's images, one after the other, `[image tokens,
    hidden]`; None where it has none."""
    if batch.pixels is None:
        return None
    with torch.no_grad():
        tokens: Tensor = network.model.visual(batch.pixels, grid_thw=batch.grids).pooler_output
    return tokens


def read(network: Network, batch: Batch, pictures: Tensor | None) -> Tensor:
    """Final hidden states of all positions of a batch, `[rows * tokens, hidden]`; `pictures` is
    what `pictures_of` gives."""
    hidden: Tensor = _states(network, batch, pictures).last_hidden_state
    return hidden.flatten(0, 1)


def _last_two_layers(network: Network, batch: Batch) -> tuple[Tensor, Tensor]:
    """Hidden states after the last layer but one and after the last, each as the head reads it,
    `[rows * tokens, hidden]`."""
    states = _states(network, batch, pictures_of(network, batch), output_hidden_states=True)
    earlier: Tensor = network.model.language_model.norm(states.hidden_states[-2])
    return earlier.flatten(0, 1), states.last_hidden_state.flatten(0, 1)


def _states(
    network: Network, batch: Batch, pictures: Tensor | None, **options: bool
) -> BaseModelOutputWithPast:
    """What the language model gives for a batch's tokens, with image tokens in their places."""
    embedded = network.get_input_embeddings()(batch.ids)
    if pictures is not None:
        places = (batch.ids == network.config.image_token_id)[..., None].expand_as(embedded)
        embedded = embedded.masked_scatter(places, pictures.to(embedded.dtype))
    states: BaseModelOutputWithPast = network.model.language_model(
        inputs_embeds=embedded,
        position_ids=batch.positions,
        attention_mask=batch.mask(),
        use_cache=False,
        **options,
    )
    return states


def answer_head(network: Network, label_ids: tuple[int, ...]) -> Tensor:
    """The row that turns a final hidden state into logit(yes) - logit(no)."""
    yes, no = network.get_output_embeddings().weight[list(label_ids)].float()
    difference: Tensor = yes - no
    return difference


def naming_loss(
    tokens: Tensor, counts: Sequence[int], names: Sequence[Sequence[int]], embeddings: Tensor
) -> Tensor:
    """Cross-entropy of the words true of each image, where a word is as likely as the image token
    most like its embedding.

    Takes `[tokens, hidden]` of all images one after the other, how many are each one's, and each
    one's word tokens. Words compete with all words of the batch and with some strangers. Image
    tokens are held to the size of embeddings.
    """
    known = sorted({word for words in names for word in words})
    strangers = torch.randint(len(embeddings), (_STRANGERS,))
    candidates = torch.cat([torch.tensor(known), strangers])
    size = tokens.pow(2).mean(-1, keepdim=True).sqrt() + 1e-6
    likeness = _SHARPNESS * normalize(tokens, dim=1) @ normalize(embeddings[candidates], dim=1).T
    named = torch.stack([image.logsumexp(0) for image in likeness.split(list(counts))])
    place = {word: at for at, word in enumerate(known)}
    owners = torch.tensor([image for image, words in enumerate(names) for _ in words])
    targets = torch.tensor([place[word] for words in names for word in words])
    return cross_entropy(named[owners], targets) + 0.1 * (size / EMBEDDING_RMS).log().pow(2).mean()


def _stream(data: IterableDataset[Item], steps: int) -> Iterator[tuple[int, Item]]:
    """`steps` items with their numbers, made by a process beside this one."""
    loader = iter(DataLoader(data, batch_size=None, num_workers=1, prefetch_factor=4))
    for step in range(1, steps + 1):
        yield step, next(loader)


def _optimizers(parameters: Iterable[nn.Parameter], rate: float) -> list[torch.optim.Optimizer]:
    """AdamW, but for matrices Muon, with steps as large as AdamW's (Liu et al., 2025, "Muon is
    Scalable for LLM Training")."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in parameters:
        (matrices if parameter.ndim == 2 else others).append(parameter)
    muon = torch.optim.Muon(
        [{"params": matrices, "top": rate}],
        lr=rate,
        weight_decay=0.05,
        adjust_lr_fn="match_rms_adamw",
    )
    adam = torch.optim.AdamW(
        [{"params": others, "top": rate / 2}],
        lr=rate / 2,
        betas=(0.9, 0.98),
        weight_decay=0.0,
        fused=True,
    )
    return [muon, adam]


def _advance(
    optimizers: Sequence[torch.optim.Optimizer],
    loss: Tensor,
    step: int,
    steps: int,
    warmup: int = 50,
) -> None:
    """One step along the gradient; the rate rises for `warmup` steps and falls along a cosine to a
    twentieth."""
    if not math.isfinite(loss.item()):
        raise FloatingPointError(f"the loss is not finite at step {step}")
    share = (
        step / warmup
        if step < warmup
        else 0.05 + 0.475 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
    )
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    for group in groups:
        for parameter in group["params"]:
            parameter.grad = None
    loss.backward()
    for group in groups:
        group["lr"] = group["top"] * share
        nn.utils.clip_grad_norm_(group["params"], 1.0)
    for optimizer in optimizers:
        optimizer.step()


def _tokens_of(grids: Tensor) -> list[int]:
    counts: list[int] = (grids.prod(-1) // 4).tolist()
    return counts
