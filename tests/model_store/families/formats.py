"""Prompts of published rerankers as their authors' code and chat templates make them: token ids by
transformers alone, from the facts that their pages and packages state.

A format takes the authors' tokenizer and a pair. It depends on no family of this project.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from model_store.families.prompt import Image, Item

Format = Callable[[Any, Item, Item, Item], list[int]]
"""(tokenizer, instruction, query, document) to token ids."""

VL_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}<|im_end|>\n{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2-VL's chat template, without video."""
JUDGE = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct"
    ' provided. Note that the answer can only be "yes" or "no".'
)
MXBAI_TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For"
    " each query-document pair, carefully analyze the semantic relationship between them, then"
    " provide your binary relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
)
BGE_TASK = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the query"
    " by providing a prediction of either 'Yes' or 'No'."
)


def ids_of(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text in which control tokens are read as such."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def joined(tokenizer: Any, *texts: str) -> list[int]:
    """Ids of texts that are encoded apart."""
    ids: list[int] = []
    for text in texts:
        ids += ids_of(tokenizer, text)
    return ids


def parts_of(item: Item) -> list[dict[str, str]]:
    """One side of a pair as the content of a chat message."""
    parts: list[dict[str, str]] = []
    for part in item:
        if isinstance(part, str):
            parts.append({"type": "text", "text": part})
        else:
            parts.append({"type": "image"})
    return parts


def expanded(text: str, cell: int, *items: Item) -> str:
    """A prompt with as many placeholders as each image has cells, as processors write it."""
    first, *rest = text.split("<|image_pad|>")
    for item in items:
        for part in item:
            if isinstance(part, Image):
                cells = (part.width // cell) * (part.height // cell)
                first += "<|image_pad|>" * cells + rest.pop(0)
    assert not rest
    return first


def words_of(item: Item) -> str:
    """The text of a side that has text alone."""
    return "".join(part for part in item if isinstance(part, str))


def gmr(*words: str, order: Sequence[int] = (0, 1, 2)) -> Format:
    """A spelling of GMR's template: the words before each part, and the parts (instruction, query,
    document) in their order."""

    def ids(tokenizer: Any, *sides: Item) -> list[int]:
        content: list[dict[str, str]] = []
        for before, side in zip(words, order, strict=True):
            content += [{"type": "text", "text": before}, *parts_of(sides[side])]
        messages = [{"role": "system", "content": JUDGE}, {"role": "user", "content": content}]
        text = tokenizer.apply_chat_template(
            messages, chat_template=VL_TEMPLATE, tokenize=False, add_generation_prompt=True
        )
        return ids_of(tokenizer, expanded(text, 28, *(sides[side] for side in order)))

    return ids


def qwen3_reranker(tokenizer: Any, instruction: Item, query: Item, document: Item) -> list[int]:
    """Head, body and tail apart; the body without its control tokens' meaning is one text."""
    body = (
        f"<Instruct>: {words_of(instruction)}\n<Query>: {words_of(query)}\n"
        f"<Document>: {words_of(document)}"
    )
    return joined(
        tokenizer,
        f"<|im_start|>system\n{JUDGE}<|im_end|>\n<|im_start|>user\n",
        body,
        "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    )


def zerank(tokenizer: Any, instruction: Item, query: Item, document: Item) -> list[int]:
    """Two turns of Qwen3's own chat template."""
    system = words_of(query)
    if words_of(instruction):
        system = f"<query>{system}</query>\n<instruction>{words_of(instruction)}</instruction>"
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": words_of(document)},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return ids_of(tokenizer, text)


def erank(tokenizer: Any, instruction: Item, query: Item, document: Item) -> list[int]:
    """One turn of Qwen3's own chat template, with the authors' words."""
    content = (
        "Given a query and a document, please give a relevance score of 0~10.\n"
        f"The goal or relevance definition is: {words_of(instruction)}\n\n"
        f"Here is the query:\n{words_of(query)}\n\n"
        f"Here is the document:\n{words_of(document)}\n\n"
        "After thinking, directly choose a relevance score from [0, 1, 2, 3, 4, 5, 6, 7, 8, 9,"
        " 10].\n- 0 represents completely not related\n- 10 means perfectly related.\n\n"
        "Desired output format:\n"
        "<think>put your thinking here</think><answer>Only allows an integer here</answer>\n\n"
        "Your output:"
    )
    messages = [{"role": "user", "content": content}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return ids_of(tokenizer, text)


def images_first(item: Item, empty: str = "") -> Item:
    """A side's images before its texts; `empty` where it has neither."""
    images = [part for part in item if isinstance(part, Image)]
    texts = [part for part in item if isinstance(part, str) and part]
    return (*images, *texts) or (empty,)


def written(item: Item) -> str:
    """One side in Qwen's marks, an image with one placeholder."""
    marks = "<|vision_start|><|image_pad|><|vision_end|>"
    return "".join(part if isinstance(part, str) else marks for part in item)


def qwen3_vl_reranker(tokenizer: Any, instruction: Item, query: Item, document: Item) -> list[int]:
    """QwenLM/Qwen3-VL-Embedding, `format_mm_instruction`, around the same turns as GMR's."""
    query, document = images_first(query, "NULL"), images_first(document, "NULL")
    body = f"<Instruct>: {words_of(instruction)}<Query>:{written(query)}"
    text = (
        f"<|im_start|>system\n{JUDGE}<|im_end|>\n<|im_start|>user\n{body}\n"
        f"<Document>:{written(document)}<|im_end|>\n<|im_start|>assistant\n"
    )
    return ids_of(tokenizer, expanded(text, 32, query, document))


def jina_reranker_m0(tokenizer: Any, instruction: Item, query: Item, document: Item) -> list[int]:
    """The document first, and the id 100 last."""
    query, document = images_first(query), images_first(document)
    text = f"**Document**:\n{written(document)}\n**Query**:\n{written(query)}"
    return [*ids_of(tokenizer, expanded(text, 28, document, query)), 100]


def mono_qwen2_vl(tokenizer: Any, instruction: Item, query: Item, document: Item) -> list[int]:
    """The card's prompt for a page and a text, and table 12 of the paper for all others."""
    query, document = images_first(query), images_first(document)
    is_page = not words_of(document) and isinstance(document[0], Image)
    is_text = all(isinstance(part, str) for part in query)
    before, noun = ("", "image document") if is_page and is_text else ("\n", "document")
    request = (
        f"{before}Assert the relevance of the previous {noun} to the following query, answer True"
        " or False. The query is: "
    )
    content = [*parts_of(document), {"type": "text", "text": request}, *parts_of(query)]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}],
        chat_template=VL_TEMPLATE,
        tokenize=False,
        add_generation_prompt=True,
    )
    return ids_of(tokenizer, expanded(text, 28, document, query))


def cut_pair(
    ids: list[int], more: list[int], most: int, query_most: int, head: int = 0
) -> list[int]:
    """(query, document) as both packages cut them: the query to its share, then the document."""
    return [*ids[: head + query_most], *more][:most]


def mxbai_rerank_v2(
    tokenizer: Any, instruction: Item, query: Item, document: Item, *, most: int = 8192
) -> list[int]:
    """mxbai-rerank 0.1.6: `prepare_inputs`, with its limit of `most` tokens of a pair."""
    asked = f"query: {words_of(query)}"
    if words_of(instruction):
        asked = f"instruction: {words_of(instruction)}\n{asked}"
    pair = cut_pair(
        ids_of(tokenizer, asked),
        joined(tokenizer, "\n", f"document: {words_of(document)}"),
        most,
        most * 3 // 4,
    )
    head = (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
        "<|im_end|>\n<|im_start|>user\n"
    )
    tail = joined(tokenizer, "\n", MXBAI_TASK, "<|im_end|>\n<|im_start|>assistant\n")
    return [*ids_of(tokenizer, head), *pair, *tail]


def bge_reranker_v2_gemma(
    tokenizer: Any, instruction: Item, query: Item, document: Item, *, most: int = 8126
) -> list[int]:
    """FlagEmbedding 1.4.2: `compute_score_single_gpu` with `max_length=most`."""
    tail = joined(tokenizer, "\n", BGE_TASK)
    pair = cut_pair(
        [tokenizer.bos_token_id, *ids_of(tokenizer, f"A: {words_of(query)}")],
        joined(tokenizer, "\n", f"B: {words_of(document)}"),
        most + len(tail),
        most * 3 // 4,
        head=1,
    )
    return [*pair, *tail]


def nemotron_rerank(tokenizer: Any, instruction: Item, query: Item, document: Item) -> list[int]:
    """The two sides as one text, which the tokenizer begins with its first token."""
    text = f"question:{words_of(query)} \n \n passage:{words_of(document)}"
    return [tokenizer.bos_token_id, *ids_of(tokenizer, text)]


FORMATS: Mapping[tuple[str, str], Format] = {
    ("gmr", "code"): gmr("<Instruct>: ", "<Query>:", "\n<Document>:"),
    ("gmr", "spaced"): gmr("<Instruct>: ", "\n<Query>: ", "\n<Document>: "),
    ("gmr", "document-first"): gmr("<Document>:", "\n<Instruct>: ", "<Query>:", order=(2, 0, 1)),
    ("qwen3-reranker", "official"): qwen3_reranker,
    ("qwen3-vl-reranker", "official"): qwen3_vl_reranker,
    ("jina-reranker-m0", "official"): jina_reranker_m0,
    ("mono-qwen2-vl", "official"): mono_qwen2_vl,
    ("erank", "official"): erank,
    ("nemotron-rerank", "official"): nemotron_rerank,
    ("zerank", "official"): zerank,
    ("mxbai-rerank-v2", "official"): mxbai_rerank_v2,
    ("bge-reranker-v2-gemma", "official"): bge_reranker_v2_gemma,
}
"""The format of each family's template, by their names."""
