"""Small networks of real architectures that score a pair, with random weights, and tokenizers.

Each folder has the files that `save_pretrained` of transformers writes, without a manifest. The
scores of reference are those of sentence-transformers' `CrossEncoder`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors, trainers

from tests.conftest import TINY

CORPUS = (
    "Berlin is the capital of Germany, and Paris that of France.",
    "How do I sort a list in Python? Call sort() or sorted(), which return None and a new list.",
    "Berlin, die Hauptstadt von Deutschland; Straße, Größe, à la carte.",
    "The quick brown fox jumps over the lazy dog 1234567890 times a day!",
    "Rerankers score a query with a document; encoders read both at once.",
    "东京是日本的首都。北京是中国的首都。",
)
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPACE = "\u2581"
QUERY = "how do I sort a list"
DOCUMENTS = (
    "Sort the list in ascending order and return None.",
    "Berlin is the capital of Germany. " * 12,
    "",
    "Eine Liste wird mit sort() sortiert, à la carte, 中文 und 😀.",
    "def f(x):\n    return   x  # two  spaces\n\n",
)
WORDPIECE_CONTROLS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
UNIGRAM_CONTROLS = ("<s>", "<pad>", "</s>", "<unk>")
BYTE_LEVEL_CONTROLS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
BLANKS = ("  ", "    ", "\t\t")
"""Runs of blanks that a vocabulary adds, as ModernBERT's has them."""


def wordpiece() -> Any:
    """BERT's tokenizer, lower case."""
    words, characters = _words(" ".join(CORPUS).lower())
    pieces = [*WORDPIECE_CONTROLS, *characters, *[f"##{one}" for one in characters], *words]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    return transformers.BertTokenizer(vocab=vocabulary, model_max_length=512)


def _words(text: str) -> tuple[list[str], list[str]]:
    """Some words of a text, and its characters, in a fixed order."""
    words = sorted(set(re.findall(r"\w+", text)))
    characters = sorted({one for one in text if not one.isspace()} | set("<>[]/"))
    return words[::2], characters


def _pieces(first: Sequence[str], last: Sequence[str]) -> list[tuple[str, float]]:
    """Pieces of a Unigram model with their scores: control tokens have 0, as SentencePiece has
    it."""
    words, characters = _words(" ".join(CORPUS))
    ordinary = {SPACE: -4.0} | dict.fromkeys(characters, -8.0)
    for number, word in enumerate(words):
        ordinary[f"{SPACE}{word}"] = -5.0 - number / 100
        ordinary.setdefault(word[:2], -6.0 - number / 100)
    return [
        *[(piece, 0.0) for piece in first],
        *ordinary.items(),
        *[(piece, 0.0) for piece in last],
    ]


def unigram() -> Any:
    """XLM-RoBERTa's tokenizer: control tokens are pieces with the score 0."""
    vocabulary = _pieces(UNIGRAM_CONTROLS, ("<mask>",))
    return transformers.XLMRobertaTokenizer(vocab=vocabulary, model_max_length=512)


def deberta() -> Any:
    """DeBERTa's tokenizer of the third version."""
    vocabulary = _pieces(("[PAD]", "[CLS]", "[SEP]", "[UNK]"), ("[MASK]",))
    return transformers.DebertaV2Tokenizer(vocab=vocabulary, unk_id=3, model_max_length=512)


def _byte_level(controls: Sequence[str]) -> Any:
    """Vocabulary and merges of a byte-level BPE model."""
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[*controls],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return json.loads(tokenizer.to_str())["model"]


def byte_level() -> Any:
    """RoBERTa's tokenizer."""
    model = _byte_level(BYTE_LEVEL_CONTROLS)
    merges = [tuple(merge) for merge in model["merges"]]
    return transformers.RobertaTokenizer(vocab=model["vocab"], merges=merges, model_max_length=512)


def byte_level_with_blanks() -> Any:
    """A tokenizer as ModernBERT has: BERT's control tokens, and runs of blanks as added tokens."""
    model = _byte_level(WORDPIECE_CONTROLS)
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(model["vocab"], merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    first, last = ("[CLS]", model["vocab"]["[CLS]"]), ("[SEP]", model["vocab"]["[SEP]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[first, last],
    )
    tokenizer.add_tokens([*BLANKS])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        unk_token="[UNK]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=512,
    )


def qwen() -> Any:
    """gmr-tiny's tokenizer, of Qwen's kind: nothing around texts. It has no chat template here."""
    return transformers.AutoTokenizer.from_pretrained(TINY, chat_template=None)


def byte_level_with_ends() -> Any:
    """A tokenizer as Llama 3 has: a first token before each text of a pair."""
    model = _byte_level(("<|begin|>", "<|end|>", "<|pad|>"))
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(model["vocab"], merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_LLAMA_3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    first = processors.TemplateProcessing(
        single="<|begin|> $A",
        pair="<|begin|>:0 $A:0 <|begin|>:1 $B:1",
        special_tokens=[("<|begin|>", model["vocab"]["<|begin|>"])],
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(), first])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|begin|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=512,
    )


_SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
}
_SHIFTED = _SMALL | {"max_position_embeddings": 514, "pad_token_id": 1, "type_vocab_size": 1}
_DECODER = _SMALL | {"num_key_value_heads": 1, "head_dim": 32}
_NAMED = ("bos", "eos", "pad", "cls", "sep")
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "Albert": (unigram, _SMALL | {"embedding_size": 32, "pad_token_id": 1}),
    "Bert": (wordpiece, _SMALL),
    "Camembert": (unigram, _SHIFTED),
    "DebertaV2": (
        deberta,
        _SMALL
        | {
            "relative_attention": True,
            "position_buckets": 32,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "max_relative_positions": -1,
            "pooler_hidden_size": 64,
        },
    ),
    "DistilBert": (
        wordpiece,
        {"dim": 64, "hidden_dim": 96, "n_layers": 3, "n_heads": 2, "initializer_range": 0.2},
    ),
    "Electra": (wordpiece, _SMALL | {"embedding_size": 32}),
    "Ernie": (wordpiece, _SMALL),
    "EuroBert": (byte_level_with_blanks, _SMALL | {"pad_token_id": 0, "head_dim": 32}),
    "MPNet": (byte_level, _SHIFTED),
    "ModernBert": (
        byte_level_with_blanks,
        _SMALL | {"pad_token_id": 0, "local_attention": 32, "global_attn_every_n_layers": 2},
    ),
    "Roberta": (byte_level, _SHIFTED),
    "XLMRoberta": (unigram, _SHIFTED),
    "Gemma": (byte_level_with_ends, _DECODER | {"hidden_activation": "gelu_pytorch_tanh"}),
    "Llama": (byte_level_with_ends, _DECODER),
    "Qwen2": (qwen, _DECODER),
    "Qwen3": (qwen, _DECODER),
}


def write_pair_network(
    folder: Path, kind: str, *, seed: int = 0, labels: int = 1, **changes: object
) -> Path:
    """Write a folder of `kind`ForSequenceClassification; returns it."""
    make, settings = KINDS[kind]
    tokenizer = make()
    network = getattr(transformers, f"{kind}ForSequenceClassification")
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in _NAMED}
    stated = {"vocab_size": len(tokenizer), "num_labels": labels} | ids | settings
    torch.manual_seed(seed)
    model = network(network.config_class(**stated | changes)).eval()
    for name, parameter in model.named_parameters():
        if "classifier" in name or "score" in name:
            # scores of about one, which tell documents apart
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
