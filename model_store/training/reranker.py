"""The network in training: a frozen Qwen2.5-VL with low-rank maps, and a head on the last position.

Depends on tensors and checkpoints, not on a loss. Invariant: a pair's logits are those that
transformers' own forward pass gives for the words of the head, and do not depend on the other pairs
of the batch.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration as Network
from transformers.utils.logging import disable_progress_bar

from model_store.checkpoint import Checkpoint
from model_store.families.tokens import LiteralTokenizer
from model_store.training.batches import Batch
from model_store.training.config import TrainConfig, TrainingError
from model_store.training.head import Head, make_head
from model_store.training.lora import add_lora


class Reranker(nn.Module):
    """Takes a batch, gives fp32 logits `[pairs, words]`."""

    def __init__(
        self, network: PeftModel, head: Head, *, image_token: int | None, autocast: bool
    ) -> None:
        super().__init__()
        self.network, self.head = network, head
        self._image_token, self._autocast = image_token, autocast

    def base(self) -> Any:
        """The Qwen2.5-VL without the head of its vocabulary, low-rank maps included."""
        return self.network.get_base_model().model

    def forward(self, batch: Batch) -> Tensor:
        with torch.autocast(batch.ids.device.type, torch.bfloat16, enabled=self._autocast):
            hidden = read_pairs(self.base(), batch, self._image_token)
        logits: Tensor = self.head(hidden)
        return logits


def read_pairs(base: Any, batch: Batch, image_token: int | None) -> Tensor:
    """The final hidden state at each pair's last position, `[pairs, hidden]`; `base` is a
    Qwen2.5-VL without its head."""
    embedded = base.language_model.embed_tokens(batch.ids)
    if batch.pixels is not None:
        pictures = _pictures(base.visual, batch.pixels, batch.grids)
        placeholders = (batch.ids == image_token)[..., None].expand_as(embedded)
        image_states = pictures[batch.image_rows].to(embedded.dtype)
        embedded = embedded.masked_scatter(placeholders, image_states)

    output = base.language_model(
        inputs_embeds=embedded, position_ids=batch.positions, use_cache=False
    )
    rows = torch.arange(len(batch.last), device=embedded.device)
    hidden: Tensor = output.last_hidden_state[rows, batch.last]
    return hidden


def _pictures(visual: Any, pixels: Tensor, grids: Tensor | None) -> Tensor:
    """Hidden states of all image tokens, `[tokens, hidden]`.

    Without a gradient where no parameter of the vision tower is trained: checkpointing makes its
    inputs require one.
    """
    trained = any(parameter.requires_grad for parameter in visual.parameters())
    with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
        tokens: Tensor = visual(pixels.to(visual.dtype), grid_thw=grids).pooler_output
    return tokens


def load_reranker(config: TrainConfig, checkpoint: Checkpoint, device: torch.device) -> Reranker:
    """The base's weights with fresh low-rank maps, seeded; raises `TrainingError`."""
    disable_progress_bar()
    torch.manual_seed(config.seed)
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    try:
        network = Network.from_pretrained(
            checkpoint.folder,
            dtype=dtype,
            attn_implementation="sdpa",
            local_files_only=True,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise TrainingError(
            f"{checkpoint.name}: the weights cannot be loaded ({type(error).__name__})."
        ) from error

    vocabulary = network.get_output_embeddings().weight
    head = make_head(config.head, vocabulary, LiteralTokenizer.load(checkpoint.folder), config.seed)
    if config.batch.checkpointing:
        network.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": False}
        )

    model = Reranker(
        add_lora(network, config.lora),
        head,
        image_token=checkpoint.family.image_token_id,
        autocast=config.precision == "bf16",
    )
    return model.to(device)
