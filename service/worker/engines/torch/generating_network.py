"""A causal decoder that writes its scores, behind the torch engine's network seam.

Depends on tensors, prompts and readers of answers, not on calls or threads. Invariant: a row's
answer does not depend on the other rows of its batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model_store.checkpoint import Checkpoint
from model_store.families.generated_answer import Answer, AnswerReader
from model_store.families.prompt import Segment
from service.worker.engines.torch.decoder_network import CausalDecoder, ReadPrefix
from service.worker.engines.torch.greedy_decoder import GreedyDecoder, RowKeys, tiled_rows
from service.worker.engines.torch.shared_prefix import ROW_TILE


class GeneratingNetwork(CausalDecoder):
    """A decoder that writes text, with the output head over the whole vocabulary."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(checkpoint, device, dtype)
        self._head: torch.nn.Module = self._model.get_output_embeddings()
        self._greedy = GreedyDecoder(
            self._architecture.language_model(self._model), self._architecture.rotary
        )

    @torch.inference_mode()
    def begin(
        self, prefix: ReadPrefix, suffixes: Sequence[Segment], readers: Sequence[AnswerReader]
    ) -> Generation:
        """Read prompts of text; each one's answer goes to its reader."""
        lengths = [len(suffix.ids) for suffix in suffixes]
        longest = max(lengths)
        ids = torch.zeros(len(suffixes), longest + -longest % ROW_TILE, dtype=torch.long)
        for row, suffix in enumerate(suffixes):
            ids[row, : lengths[row]] = torch.tensor(suffix.ids)

        positions = self._positions(suffixes, prefix.end, ids.shape[1])
        hidden, keys = self._greedy.read(
            prefix.keys,
            self._embed(ids.to(self._device)),
            positions,
            torch.tensor(lengths, device=self._device),
        )
        ends = [prefix.end + length for length in lengths]
        axes = positions.shape[0]
        following = torch.tensor(ends, device=self._device).expand(axes, -1)
        return Generation(self, keys, hidden, following, readers)

    @torch.inference_mode()
    def most_likely(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The most likely token after each hidden state, and the logarithm of its probability.

        Takes `[rows, hidden]`, and returns `[rows]` twice.
        """
        tiled = tiled_rows(len(hidden), hidden.device)
        logits = self._head(hidden[tiled])[: len(hidden)].float()
        best = logits.argmax(-1)
        return best, logits.log_softmax(-1).gather(-1, best[:, None])[:, 0]

    @torch.inference_mode()
    def next_hidden(self, keys: RowKeys, tokens: Tensor, positions: Tensor) -> Tensor:
        """The final hidden states after one more token of each row."""
        return self._greedy.next_hidden(keys, self._embed(tokens), positions)


class Generation:
    """Answers that are being written, in step."""

    def __init__(
        self,
        network: GeneratingNetwork,
        keys: RowKeys,
        hidden: Tensor,
        positions: Tensor,
        readers: Sequence[AnswerReader],
    ) -> None:
        self._network, self._keys, self._hidden = network, keys, hidden
        self._positions, self._readers = positions, readers
        self._tokens: Tensor | None = None

    def step(self) -> bool:
        """Write one more token of each answer; returns False once all have ended.

        Raises `ArithmeticError` where a token has no probability.
        """
        if self._tokens is not None:
            self._hidden = self._network.next_hidden(self._keys, self._tokens, self._positions)
            self._positions = self._positions + 1

        self._tokens, logprobs = self._network.most_likely(self._hidden)
        if not bool(logprobs.isfinite().all()):
            raise ArithmeticError("a token has no probability")
        for reader, token, logprob in zip(
            self._readers, self._tokens.tolist(), logprobs.tolist(), strict=True
        ):
            reader.add(token, logprob)
        return not all(reader.ended for reader in self._readers)

    @property
    def answers(self) -> list[Answer]:
        """The answers so far."""
        return [reader.answer for reader in self._readers]
