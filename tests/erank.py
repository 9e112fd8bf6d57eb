"""A small ERank that writes scores, and ERank as its authors' code scores a pair.

The network is a Qwen3 with random weights, of which some are set: a word of the document decides
what it writes. So every kind of answer is at hand: each number with a probability below 1, other
texts in the place of a number, and thinking without an end.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from model_store.checkpoint import resolve
from model_store.golden import GoldenPair, write_golden
from model_store.manifest import digest_files, write_manifest
from tests.qwen3 import write_tokenizer

PROMPT = """Given a query and a document, please give a relevance score of 0~10.
The goal or relevance definition is: {instruction}

Here is the query:
{query}

Here is the document:
{document}

After thinking, directly choose a relevance score from [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10].
- 0 represents completely not related
- 10 means perfectly related.

Desired output format:
<think>put your thinking here</think><answer>Only allows an integer here</answer>

Your output:"""
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen3's chat template, as far as a message of a user needs it."""
NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
)  # fmt: skip
OTHERS = {"green": "none", "light": "12", "black": "-3", "water": "7.5"}
"""Words of a document, and what the model writes in the place of a number."""
ENDLESS = "paper"
"""A document with this word has the model think without an end."""
INSTRUCTION, QUERY = "Find it", "how many"
BOUND = 40
"""A bound on answers that all answers with an end are within."""

_WORDS = (*NUMBERS, *OTHERS, ENDLESS)
_HIDDEN = 128
_SURE, _LIKELY, _UNLIKELY = 20.0, 18.0, 17.0
"""Logits of the token that follows, and of those that a document's word makes follow instead."""
_NEXT: dict[str, dict[str, float]] = {
    "\n": {"<think>": _SURE},
    "<think>": {"so": _SURE},
    "so": {" page": _SURE, "</think>": _LIKELY},
    " page": {" says": _SURE},
    " says": {"</think>": _SURE, " so": _LIKELY},
    " so": {" page": _SURE},
    "</think>": {" <": _SURE},
    " <": {"answ": _SURE},
    "answ": {"er": _SURE},
    "er": {">": _SURE},
    ">": dict.fromkeys((*"0123456789-", "none"), _LIKELY),
    **{digit: {"<": _SURE} for digit in "023456789"},
    "1": {"<": _SURE, "0": _UNLIKELY, "2": _UNLIKELY},
    "7": {"<": _SURE, ".": _UNLIKELY},
    "-": {"3": _SURE},
    ".": {"5": _SURE},
    "none": {"<": _SURE},
    "<": {"/": _SURE},
    "/": {"answ": _SURE},
}
"""The logits of tokens after a token."""


def _lifted(word: str) -> dict[str, float]:
    """The tokens that a word of the document lifts, and by how much."""
    others = {
        "ten": {"1": 8.0, "0": 6.0},
        "green": {"none": 5.0},
        "light": {"1": 8.0, "2": 6.0},
        "black": {"-": 5.0},
        "water": {"7": 8.0, ".": 6.0},
        ENDLESS: {" so": 5.0},
    }
    if word in others:
        return others[word]

    number = NUMBERS.index(word)
    near = str(number + 2 if number < 8 else number - 2)
    shorter = {"</think>": 5.0} if number % 3 == 0 else {}
    return {str(number): 6.0, near: 4.0} | shorter


def write_erank(folder: Path, *, seed: int = 0) -> Path:
    """Write a folder as a hub has ERank, without a manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    size = write_tokenizer(folder)
    (folder / "chat_template.jinja").write_text(CHAT, encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(folder)

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=size,
        hidden_size=_HIDDEN,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=16_384,
        rope_theta=1e6,
        initializer_range=0.02,
        tie_word_embeddings=False,
        eos_token_id=None,
    )
    model = Qwen3ForCausalLM(config)
    _set_weights(model, lambda token: int(tokenizer.encode(token, add_special_tokens=False)[0]))
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def _set_weights(model: Qwen3ForCausalLM, token_id: Callable[[str], int]) -> None:
    """Give the network a direction for each token of `_NEXT` and for each word of a document.

    In the first layer every position attends to the document's words, and adds their directions to
    its own token's; the output head reads both. All other weights stay small random numbers, which
    the rest of the prompt moves every logit by.
    """
    constant, is_word, first_token = 0, 1, 2
    first_word = first_token + len(_NEXT)
    assert first_word + len(_WORDS) <= _HIDDEN

    embeddings, head = model.model.embed_tokens.weight, model.lm_head.weight
    embeddings.mul_(10)
    embeddings[:, : first_word + len(_WORDS)] = 0.0
    embeddings[:, constant] = 2.0
    scale = math.sqrt(_HIDDEN) / math.sqrt(2.0**2 + 4.0**2 + 4.0**2)
    for number, (token, following) in enumerate(_NEXT.items()):
        embeddings[token_id(token), first_token + number] = 4.0
        for after, logit in following.items():
            head[token_id(after), first_token + number] += logit / (4.0 * scale)

    attention = model.model.layers[0].self_attn
    # the slowest of the rotary embedding's pairs: hardly turned by thousands of positions
    slow = attention.head_dim // 2 - 1
    attention.q_proj.weight[slow, constant] = 8.0
    attention.k_proj.weight[slow, constant] = -2.0
    attention.k_proj.weight[slow, is_word] = 8.0
    attention.q_norm.weight.fill_(1.5)
    attention.o_proj.weight[first_word : first_word + len(_WORDS)] = 0.0
    for number, word in enumerate(_WORDS):
        embedding = embeddings[token_id(f" {word}")]
        embedding[is_word], embedding[first_word + number] = 4.0, 4.0

        width = math.sqrt(_HIDDEN) / math.sqrt(2.0**2 + 4.0**2 + 4.0**2)
        attention.v_proj.weight[number, first_word + number] = 1 / width
        attention.o_proj.weight[first_word + number, number] = 1.0
        for token, logit in _lifted(word).items():
            head[token_id(token), first_word + number] += logit / (4.0 * scale)


def publish(folder: Path) -> Path:
    """Give a folder golden pairs by its authors' code, and a manifest; returns it."""
    authors = AuthorsCode(folder)
    pairs = []
    for word in ("two", "ten", "nine"):
        score = authors.written(INSTRUCTION, QUERY, f"It is {word}.").score
        assert score is not None
        pairs.append(GoldenPair("T-T", INSTRUCTION, (QUERY,), (f"It is {word}.",), score))

    manifest = resolve(str(folder)).manifest
    files = digest_files(folder, [*manifest.files, *write_golden(folder, pairs)])
    write_manifest(folder, manifest.model_copy(update={"files": files}))
    return folder


def ids_of(tokenizer: AutoTokenizer, instruction: str, query: str, document: str) -> list[int]:
    """The prompt's ids as the authors' code has them."""
    text = PROMPT.format(instruction=instruction, query=query, document=document)
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
    )
    return tokenizer.encode(rendered, add_special_tokens=False)


@dataclass(frozen=True)
class Written:
    """An answer by transformers: its text, and the probability of each of its tokens."""

    text: str
    tokens: list[str]
    probabilities: list[float]

    @property
    def score(self) -> float | None:
        """The number times the probability of the tokens that wrote it."""
        found = re.search(r"</think>\s*<answer>(10|[0-9])</answer>", self.text)
        if not found:
            return None
        start, product = 0, 1.0
        for token, probability in zip(self.tokens, self.probabilities, strict=True):
            if found.start(1) <= start < found.end(1):
                product *= probability
            start += len(token)
        return int(found[1]) * product


class AuthorsCode:
    """ERank's loop in fp32, one pair at a time, by transformers' own generation."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def written(
        self, instruction: str, query: str, document: str, *, max_tokens: int = BOUND
    ) -> Written:
        ids = torch.tensor([ids_of(self.tokenizer, instruction, query, document)])

        def ended(found: Tensor, scores: Tensor, **_: object) -> Tensor:
            text = self.tokenizer.decode(found[0, ids.shape[1] :])
            return torch.tensor([text.endswith("</answer>")])

        output = self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_tokens,
            do_sample=False,
            stopping_criteria=[ended],
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
        new = output.sequences[0, ids.shape[1] :].tolist()
        probabilities = [
            float(logits[0].float().softmax(-1)[token])
            for logits, token in zip(output.logits, new, strict=True)
        ]
        tokens = [self.tokenizer.decode([token]) for token in new]
        return Written("".join(tokens), tokens, probabilities)
