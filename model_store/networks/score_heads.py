"""Networks of transformers with a head of one score: BERT's kin, and decoders of text.

Depends on names and numbers of a `config.json`; tensors come from transformers' own class, made
without memory. Invariant: a network with another number of labels than one is refused, since its
outputs are classes and no relevance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from model_store.manifest import CheckpointUnusable
from model_store.networks.architecture import Shapes, VisionTower
from model_store.networks.decoder import count
from model_store.networks.text_decoders import GEMMA, LLAMA, QWEN2, QWEN3, TextDecoder

if TYPE_CHECKING:
    from torch import Tensor

_COUNTS = (
    "vocab_size",
    "hidden_size",
    "embedding_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "num_hidden_groups",
    "inner_group_num",
    "dim",
    "hidden_dim",
    "n_layers",
    "n_heads",
)
_MAX_LAYERS = 1024
_LABELS_BY_DEFAULT = 2
"""Labels of a network whose configuration states none, as transformers has it."""
_ROPE_BY_LENGTH = ("dynamic", "longrope")


@dataclass(eq=False)
class Encoder:
    """The adapter of an encoder that reads a pair at once, `...ForSequenceClassification`."""

    name: str
    model_type: str
    embeddings: str
    in_vllm: bool = False
    typed: bool = False
    """True where its forward pass takes token types."""
    after_padding: bool = False
    """True where positions begin after the id of the padding token."""
    head: str = ""
    vision: VisionTower | None = None
    stated_tokens: Mapping[str, tuple[int, str]] = field(default_factory=dict)

    def refuse_other_arithmetic(
        self, name: str, config: Mapping[str, Any], max_tokens: int
    ) -> None:
        """One label, absolute positions, and no angles that follow from other texts' lengths."""
        refuse_other_labels(name, config)
        kind = config.get("position_embedding_type", "absolute")
        if kind not in ("absolute", "rope"):
            raise CheckpointUnusable(
                f"{name}: config.json has position_embedding_type {kind!r:.40}, which transformers"
                " no longer computes."
            )
        if config.get("is_decoder"):
            raise CheckpointUnusable(
                f"{name}: config.json has is_decoder, and this network reads a pair in both"
                " directions."
            )

        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if isinstance(rope, Mapping) and rope.get("rope_type", rope.get("type")) in _ROPE_BY_LENGTH:
            raise CheckpointUnusable(
                f"{name}: config.json has rotary embeddings whose angles depend on the length of"
                " other texts."
            )

    def is_tied(self, config: Mapping[str, Any]) -> bool:
        return False

    def tensor_shapes(self, config: Mapping[str, Any]) -> Shapes:
        import torch

        read = self._config(config)
        try:
            with torch.device("meta"):
                model = self.model_class()(read)
        except (TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise ValueError(f"{type(error).__name__} from its fields") from None
        return {tensor: tuple(shape.shape) for tensor, shape in model.state_dict().items()}

    def current_name(self, tensor: str) -> str:
        return tensor

    def vllm_overrides(self, config: Mapping[str, Any]) -> dict[str, Any]:
        if not self.in_vllm:
            raise CheckpointUnusable(
                f"vLLM has no {self.name}: set RERANK_ENGINE=torch for this checkpoint."
            )
        return {}

    def model_class(self) -> Any:
        import transformers

        return getattr(transformers, self.name)

    def token_types(self, config: Mapping[str, Any]) -> int:
        return int(self._config(config).type_vocab_size) if self.typed else 0

    def positions(self, config: Mapping[str, Any]) -> int:
        read = self._config(config)
        skipped = int(read.pad_token_id) + 1 if self.after_padding else 0
        return int(read.max_position_embeddings) - skipped

    def prepare(self, model: Any, config: Mapping[str, Any]) -> None:
        """Nothing: transformers' class is the network."""

    def scores(self, model: Any, ids: Tensor, mask: Tensor, types: Tensor | None) -> Tensor:
        """Raw scores `[rows]` of ids `[rows, tokens]`; `mask` is 0 at padding."""
        typed = {} if types is None else {"token_type_ids": types}
        logits: Tensor = model(input_ids=ids, attention_mask=mask, **typed).logits[:, 0]
        return logits

    def _config(self, config: Mapping[str, Any]) -> Any:
        """transformers' configuration, with its defaults; raises `ValueError`."""
        _refuse_large(config)
        try:
            return self.model_class().config_class.from_dict(dict(config))
        except (TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise ValueError(f"{type(error).__name__} from its fields") from None


@dataclass(eq=False)
class ScoringDecoder(TextDecoder):
    """A causal decoder with a score head in the place of its output embeddings."""

    head: str = "score.weight"

    def refuse_other_arithmetic(
        self, name: str, config: Mapping[str, Any], max_tokens: int
    ) -> None:
        refuse_other_labels(name, config)
        super().refuse_other_arithmetic(name, config, max_tokens)

    def is_tied(self, config: Mapping[str, Any]) -> bool:
        return False

    def tensor_shapes(self, config: Mapping[str, Any]) -> Shapes:
        shapes = super().tensor_shapes(config)
        shapes[self.head] = (1, self.decoder_sizes(config).width)
        return shapes

    def vllm_overrides(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {}


def refuse_other_labels(name: str, config: Mapping[str, Any]) -> None:
    """Raise `CheckpointUnusable` unless a `config.json` describes one label."""
    names = config.get("id2label")
    stated = config.get("num_labels", _LABELS_BY_DEFAULT)
    labels = len(names) if isinstance(names, Mapping) else stated
    if labels != 1:
        raise CheckpointUnusable(
            f"{name}: config.json describes {labels!r:.20} labels: it is a classifier, and a"
            " reranker has one."
        )


def _refuse_large(config: Mapping[str, Any]) -> None:
    """Raise `ValueError` for a field that is no count, or too large a one."""
    for field_name in _COUNTS:
        if field_name in config:
            value = count(config, field_name, config)
            if field_name in ("n_layers", "num_hidden_groups") and value > _MAX_LAYERS:
                raise ValueError(f"{field_name} is {value}, more than {_MAX_LAYERS}")


def _scoring(decoder: TextDecoder) -> ScoringDecoder:
    fields = {item.name: getattr(decoder, item.name) for item in dataclasses.fields(decoder)}
    name = decoder.name.replace("ForCausalLM", "ForSequenceClassification")
    return ScoringDecoder(**fields | {"name": name, "head": ScoringDecoder.head})


def _encoder(kind: str, model_type: str, prefix: str, **facts: Any) -> Encoder:
    embeddings = f"{prefix}.embeddings.word_embeddings.weight"
    return Encoder(f"{kind}ForSequenceClassification", model_type, embeddings, **facts)


_ROBERTA = {"typed": True, "after_padding": True}
ENCODERS = (
    _encoder("Bert", "bert", "bert", typed=True, in_vllm=True),
    _encoder("Roberta", "roberta", "roberta", in_vllm=True, **_ROBERTA),
    _encoder("XLMRoberta", "xlm-roberta", "roberta", in_vllm=True, **_ROBERTA),
    Encoder(
        "ModernBertForSequenceClassification",
        "modernbert",
        "model.embeddings.tok_embeddings.weight",
        in_vllm=True,
    ),
    _encoder("Albert", "albert", "albert", typed=True),
    _encoder("Camembert", "camembert", "roberta", **_ROBERTA),
    _encoder("DebertaV2", "deberta-v2", "deberta", typed=True),
    _encoder("DistilBert", "distilbert", "distilbert"),
    _encoder("Electra", "electra", "electra", typed=True),
    _encoder("Ernie", "ernie", "ernie", typed=True),
    Encoder("EuroBertForSequenceClassification", "eurobert", "model.embed_tokens.weight"),
    _encoder("MPNet", "mpnet", "mpnet", after_padding=True),
)
SCORING_DECODERS = tuple(_scoring(decoder) for decoder in (QWEN2, QWEN3, GEMMA, LLAMA))
