"""The network in training: a frozen base with low-rank maps, and a head on the last position.

Depends on tensors, checkpoints and an architecture's adapter, not on a loss. Invariant: a pair's
logits are those that transformers' own forward pass gives for the words of the head, and do not
depend on the other pairs of the batch.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers.utils.logging import disable_progress_bar

from model_store.checkpoint import Checkpoint
from model_store.families.family import Family
from model_store.manifest import CheckpointUnusable
from model_store.networks.architecture import DecoderArchitecture
from model_store.training.batches import Batch
from model_store.training.config import TrainConfig, TrainingError
from model_store.training.head import Head, make_head
from model_store.training.lora import add_lora
from model_store.training.shared_prefix import packed_arguments, use_shared_prefixes


class PairReader:
    """Reads batches with a network: the final hidden state at each pair's last position."""

    def __init__(self, family: Family, architecture: DecoderArchitecture) -> None:
        self._image_token, self._architecture = family.image_token_id, architecture

    def decoder(self, model: Any) -> Any:
        """The language model of a network, without the head of its vocabulary."""
        return self._architecture.language_model(model)

    def read(self, model: Any, batch: Batch) -> Tensor:
        """`[pairs, hidden]`; `model` is a network of the reader's architecture.

        For a packed batch, its decoder is one after `use_shared_prefixes`.
        """
        decoder = self.decoder(model)
        embedded = decoder.embed_tokens(batch.ids)
        deepstack: dict[str, Any] = {}
        if batch.pixels is not None and batch.grids is not None:
            assert self._image_token is not None
            pictures = self._pictures(model, batch.pixels, batch.grids)
            placeholders = torch.eq(batch.ids, self._image_token)
            values = pictures[batch.image_rows].to(embedded.dtype)
            image_states, *maps = values.split(embedded.shape[-1], dim=-1)
            embedded = embedded.masked_scatter(
                placeholders[..., None].expand_as(embedded), image_states
            )
            if maps:  # names of transformers, for the networks that have such maps
                deepstack = {"visual_pos_masks": placeholders, "deepstack_visual_embeds": maps}

        output = decoder(
            inputs_embeds=embedded,
            position_ids=self._architecture.position_ids(batch.positions),
            use_cache=False,
            **deepstack,
            **packed_arguments(decoder, batch.packing),
        )
        rows = torch.arange(len(batch.last), device=embedded.device)
        if batch.packing is not None:
            rows = torch.zeros_like(rows)
        hidden: Tensor = output.last_hidden_state[rows, batch.last]
        return hidden

    def _pictures(self, model: Any, pixels: Tensor, grids: Tensor) -> Tensor:
        """Values of all image tokens, `[tokens, values]`.

        Without a gradient where no parameter of the vision tower is trained: checkpointing makes
        its inputs require one.
        """
        tower = self._architecture.vision
        assert tower is not None
        module = self._architecture.vision_model(model)
        trained = any(parameter.requires_grad for parameter in module.parameters())
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            return tower.embed(module, pixels, grids)


class Reranker(nn.Module):
    """Takes a batch, gives fp32 logits `[pairs, words]`."""

    def __init__(
        self, network: PeftModel, head: Head, reader: PairReader, *, autocast: bool
    ) -> None:
        super().__init__()
        self.network, self.head = network, head
        self._reader, self._autocast = reader, autocast

    def base(self) -> Any:
        """The base's network, low-rank maps included."""
        return self.network.get_base_model()

    def layers(self) -> Any:
        """The layers of the language model."""
        return self._reader.decoder(self.base()).layers

    def forward(self, batch: Batch) -> Tensor:
        with torch.autocast(batch.ids.device.type, torch.bfloat16, enabled=self._autocast):
            hidden = self._reader.read(self.base(), batch)
        logits: Tensor = self.head(hidden)
        return logits


def load_network(checkpoint: Checkpoint, dtype: torch.dtype) -> Any:
    """A checkpoint's network on the CPU; raises `CheckpointUnusable`."""
    try:
        return checkpoint.decoder.model_class().from_pretrained(
            checkpoint.folder,
            dtype=dtype,
            attn_implementation="sdpa",
            local_files_only=True,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointUnusable(
            f"{checkpoint.name}: the weights cannot be loaded ({type(error).__name__})."
        ) from error


def load_reranker(config: TrainConfig, checkpoint: Checkpoint, device: torch.device) -> Reranker:
    """The base's weights with fresh low-rank maps, seeded; raises `TrainingError`."""
    disable_progress_bar()
    torch.manual_seed(config.seed)

    try:
        network = load_network(
            checkpoint, torch.bfloat16 if config.precision == "bf16" else torch.float32
        )
    except CheckpointUnusable as error:
        raise TrainingError(str(error)) from error

    family, architecture = checkpoint.family, checkpoint.decoder
    vocabulary = network.get_output_embeddings().weight
    head = make_head(config.head, vocabulary, family, config.seed)
    if config.batch.shared_prefix:
        use_shared_prefixes(architecture.language_model(network))
    if config.batch.checkpointing:
        network.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": False}
        )

    model = Reranker(
        add_lora(network, config.lora, architecture),
        head,
        PairReader(family, architecture),
        autocast=config.precision == "bf16",
    )
    return model.to(device)
