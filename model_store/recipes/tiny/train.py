"""Training of gmr-tiny's base: the vision tower learns to name what a picture shows, then the
language model learns signs.

Depends on losses and schedules; examples, the network and files are made elsewhere. Invariant: the
embeddings stay as they were initialised, since training only those of words in the examples would
destroy their similarity to all others. All runs on a CPU over fp32 weights, in bf16 autocast where
the CPU has its instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, cycle
from random import Random

import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize
from torch.utils.data import IterableDataset
from transformers import Qwen2_5_VLForConditionalGeneration as Network
from transformers.modeling_outputs import BaseModelOutputWithPast

from model_store.networks.score_row import score_row
from model_store.recipes.tiny.network import EMBEDDING_RMS
from model_store.recipes.tiny.packed_batches import PackedBatch, PackedBatcher, pixel_values
from model_store.recipes.tiny.steps import advance, autocast, make_optimizers, stream
from model_store.synthetic import cells, pages, scenes
from model_store.synthetic.examples import Example
from model_store.synthetic.pictures import fitted

Report = Callable[[str], None]

REPORT_EVERY = 50
SCENES = 52
PAGES = 12
"""Scenes and pages of a step of `see`: printed words are learnt sooner than shapes and counts, and
a page costs as much as three scenes."""
QUERIES = 9
NEGATIVES = 9
"""Queries of one step of `learn_signs`, and irrelevant documents of each."""

_SHARPNESS = 50.0  # of naming: the logit of a word whose direction an image token has exactly
_RANDOM_WORDS = 512  # words that no picture need show, among those to choose a name from
_SIGN_WEIGHT = 8.0


class _Pictures(IterableDataset[tuple[Tensor, Tensor, list[list[int]]]]):
    """Batches of scenes and pages: patches, grids, and the tokens of the words true of each."""

    def __init__(self, batcher: PackedBatcher, seed: int, scenes: int, pages: int) -> None:
        self._batcher, self._seed = batcher, seed
        self._scenes, self._pages = scenes, pages

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, list[list[int]]]]:
        rng = Random(f"pictures/{self._seed}")
        while True:
            drawn: list[Image] = []
            for _ in range(self._scenes):
                drawn.append(scenes.picture(scenes.any_scene(rng, "train"), rng))
            for _ in range(self._pages):
                drawn.append(pages.page_picture(pages.any_page(rng, "train"), rng))

            pixels, grids = pixel_values([fitted(picture) for picture in drawn])
            names = [self._batcher.word_ids(picture.info["words"]) for picture in drawn]
            yield pixels, grids, names


class _Examples(IterableDataset[PackedBatch]):
    """Batches of examples of the named cells; half of them have the default instruction.

    A cell that is named twice is drawn twice as often. The batchers take turns.
    """

    def __init__(
        self,
        batchers: Sequence[PackedBatcher],
        seed: int,
        names: Sequence[str],
        queries: int,
        negatives: int,
    ) -> None:
        self._batchers, self._seed, self._names = batchers, seed, names
        self._queries, self._negatives = queries, negatives

    def __iter__(self) -> Iterator[PackedBatch]:
        rng = Random(f"examples/{self._seed}")
        for batcher in cycle(self._batchers):
            examples: list[Example] = []
            for name in rng.choices(self._names, k=self._queries):
                plain = rng.random() < 0.5
                examples.append(cells.sample(name, rng, "train", self._negatives, plain=plain))
            yield batcher.batch(examples)


def see(
    network: Network,
    batcher: PackedBatcher,
    *,
    steps: int,
    seed: int,
    report: Report,
    scenes: int = SCENES,
    pages: int = PAGES,
    report_every: int = REPORT_EVERY,
) -> None:
    """Train the vision tower, so that the tokens of an image name what it shows."""
    visual = network.model.visual
    embeddings = network.get_input_embeddings().weight.detach()
    optimizers = make_optimizers(visual.parameters(), 2e-3)
    data = _Pictures(batcher, seed, scenes, pages)
    for step, (pixels, grids, names) in stream(data, steps):
        with autocast():
            tokens = visual(pixels, grid_thw=grids).pooler_output
        loss = naming_loss(tokens.float(), tokens_of(grids), names, embeddings)
        advance(optimizers, loss, step, steps)
        if step % report_every == 0:
            report(f"see {step}/{steps}: loss {loss.item():.3f}")


def learn_signs(
    network: Network,
    batchers: Sequence[PackedBatcher],
    names: Sequence[str],
    *,
    steps: int,
    seed: int,
    report: Report,
    save: Callable[[], None],
    queries: int = QUERIES,
    negatives: int = NEGATIVES,
    report_every: int = REPORT_EVERY,
) -> None:
    """Train the language model on signs: yes or no at the last token of each word and each image of
    the side that a prompt ends with, never at the last token of the prompt.

    The sign of a word is yes if the other side has the word, that of an image if it shows what is
    asked for. Signs are read after each of the last two layers, so that a layer is left that can
    weigh them. The batchers, of one read-out, take turns. `save` is called at every report.
    """
    network.model.visual.requires_grad_(False)
    network.get_input_embeddings().weight.requires_grad_(False)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizers = make_optimizers(trained, 1e-3)
    data = _Examples(batchers, seed, names, queries, negatives)
    for step, batch in stream(data, steps):
        with autocast():
            depths = _last_two_layers(network, batch)
        row = score_row(network, batchers[0].readout, batchers[0].label_ids)
        logits = torch.stack([hidden[batch.signs].float() @ row for hidden in depths])
        signs = binary_cross_entropy_with_logits(
            logits, batch.truths.expand_as(logits), pos_weight=torch.tensor(3.0)
        )
        advance(optimizers, _SIGN_WEIGHT * signs, step, steps)
        if step % report_every == 0:
            report(f"signs {step}/{steps}: loss {signs.item():.3f}")
            save()


def pictures_of(network: Network, batch: PackedBatch) -> Tensor | None:
    """The vision tower's output for a batch's images, one after the other, `[image tokens,
    hidden]`; None without images."""
    if batch.pixels is None:
        return None
    with torch.no_grad():
        tokens: Tensor = network.model.visual(batch.pixels, grid_thw=batch.grids).pooler_output
    return tokens


def read(network: Network, batch: PackedBatch, pictures: Tensor | None) -> Tensor:
    """Final hidden states of all positions of a batch, `[rows * tokens, hidden]`; `pictures` are
    those of `pictures_of`."""
    hidden: Tensor = _states(network, batch, pictures).last_hidden_state
    return hidden.flatten(0, 1)


def _last_two_layers(network: Network, batch: PackedBatch) -> tuple[Tensor, Tensor]:
    """Hidden states after the last layer but one and after the last, both normalised as the head
    reads them, `[rows * tokens, hidden]`."""
    states = _states(network, batch, pictures_of(network, batch), output_hidden_states=True)
    earlier: Tensor = network.model.language_model.norm(states.hidden_states[-2])
    return earlier.flatten(0, 1), states.last_hidden_state.flatten(0, 1)


def _states(
    network: Network, batch: PackedBatch, pictures: Tensor | None, **options: bool
) -> BaseModelOutputWithPast:
    """The language model's output for a batch's tokens, with images in place of placeholders."""
    embedded = network.get_input_embeddings()(batch.ids)
    if pictures is not None:
        placeholders = batch.ids == network.config.image_token_id
        mask = placeholders[..., None].expand_as(embedded)
        embedded = embedded.masked_scatter(mask, pictures.to(embedded.dtype))

    states: BaseModelOutputWithPast = network.model.language_model(
        inputs_embeds=embedded,
        position_ids=batch.positions,
        attention_mask=batch.mask(),
        use_cache=False,
        **options,
    )
    return states


def naming_loss(
    tokens: Tensor, counts: Sequence[int], names: Sequence[Sequence[int]], embeddings: Tensor
) -> Tensor:
    """Cross-entropy of the words that are true of each image; a word is as likely as the image
    token whose direction is nearest to its embedding.

    `tokens` are `[tokens, hidden]` of all images one after the other, `counts` the tokens of each
    image, `names` the word tokens of each image. Words compete with all words of the batch and with
    some random ones. A second term holds image tokens to the size of embeddings.
    """
    known = sorted(set(chain.from_iterable(names)))
    random_words = torch.randint(len(embeddings), (_RANDOM_WORDS,))
    candidates = torch.cat([torch.tensor(known), random_words])
    size = tokens.pow(2).mean(-1, keepdim=True).sqrt() + 1e-6
    likeness = _SHARPNESS * normalize(tokens, dim=1) @ normalize(embeddings[candidates], dim=1).T
    named = torch.stack([image.logsumexp(0) for image in likeness.split(list(counts))])

    index = {word: number for number, word in enumerate(known)}
    owners: list[int] = []
    targets: list[int] = []
    for image, words in enumerate(names):
        owners += [image] * len(words)
        targets += [index[word] for word in words]
    naming = cross_entropy(named[torch.tensor(owners)], torch.tensor(targets))
    return naming + 0.1 * (size / EMBEDDING_RMS).log().pow(2).mean()


def tokens_of(grids: Tensor) -> list[int]:
    """Image tokens of each picture."""
    counts: list[int] = (grids.prod(-1) // 4).tolist()
    return counts
