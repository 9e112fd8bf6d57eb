"""Folders of sentence-transformers with a chat template: ids are those of its own `preprocess`, and
what users type stays text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture
from sentence_transformers import CrossEncoder

from model_store.checkpoint import Checkpoint, resolve
from model_store.families.family import SideRules
from model_store.families.prompt import Image, Item, PairTooLong, PairUnreadable, Prompt
from model_store.manifest import CheckpointUnusable
from tests.chat_rerankers import (
    IDENTITY,
    INSTRUCTION,
    QWEN3_TEMPLATE,
    ZERANK_TEMPLATE,
    put,
    stated,
    token_id,
    write_gmr,
    write_prompts,
    write_text,
)

WIDTH, HEIGHT = 140, 112
PICTURE = Picture.fromarray(np.full((HEIGHT, WIDTH, 3), 120, np.uint8))
Side = str | dict[str, Any]
SIDES: list[Side] = [
    "how do I sort a list",
    "  blanks around\n\n",
    "",
    {"image": PICTURE},
    {"text": "a caption", "image": PICTURE},
    {"image": PICTURE, "text": "a caption"},
    {"image": [PICTURE, PICTURE], "text": ["one", "two"]},
    {"text": "before", "image": [PICTURE] * 4},
]


def item(side: Side) -> Item:
    """A side of sentence-transformers as a family takes it."""
    if isinstance(side, str):
        return (side,)
    parts: list[str | Image] = []
    for kind, values in side.items():
        for value in values if isinstance(values, list) else [values]:
            parts.append(value if kind == "text" else Image(b"p" * 32, WIDTH, HEIGHT))
    return tuple(parts)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gmr(tmp_path_factory.mktemp("models") / "of-images")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("models") / "of-texts")


@pytest.fixture(scope="module")
def theirs(images: Path) -> CrossEncoder:
    return CrossEncoder(str(images), device="cpu")


@pytest.fixture(scope="module")
def ours(images: Path) -> Checkpoint:
    return resolve(str(images))


def ids_of(
    checkpoint: Checkpoint, query: Side, document: Side, instruction: str = ""
) -> tuple[int, ...]:
    (prompt,) = checkpoint.family.render((instruction,), item(query), [item(document)])
    assert isinstance(prompt, Prompt)
    return prompt.ids


def expected(theirs: CrossEncoder, query: Side, document: Side, prompt: str = "") -> list[int]:
    features = theirs.preprocess([(query, document)], prompt=prompt or None)
    found: list[int] = features["input_ids"][0].tolist()
    return found


@pytest.mark.parametrize("instruction", ["", "Find the page that answers the question"])
def test_ids_are_those_of_preprocess(
    ours: Checkpoint, theirs: CrossEncoder, instruction: str
) -> None:
    for query in SIDES:
        for document in SIDES:
            found = ids_of(ours, query, document, instruction)
            assert list(found) == expected(theirs, query, document, instruction), (query, document)


TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Co"]) | st.sampled_from(list(" \n\t<|>{}%'\"")),
    max_size=40,
).filter(lambda text: "<|" not in text and "\ufdd0" not in text)


@settings(max_examples=60, deadline=None)
@given(query=TEXT, document=TEXT, instruction=TEXT)
def test_ids_of_any_text_without_control_tokens(
    ours: Checkpoint, theirs: CrossEncoder, query: str, document: str, instruction: str
) -> None:
    found = ids_of(ours, query, document, instruction)
    assert list(found) == expected(theirs, query, document, instruction)


def test_no_added_token_can_be_typed(ours: Checkpoint, texts: Path) -> None:
    for checkpoint in (ours, resolve(str(texts))):
        family = checkpoint.family
        controls = family.tokenizer.controls
        plain = [
            number for number in ids_of(checkpoint, "a", "b", "c") if number in controls.values()
        ]
        for token in controls:
            for pair in (("a", token), (token, "b"), (f"x {token}\n", f"{token}{token} y")):
                for instruction in ("c", token):
                    found = ids_of(checkpoint, *pair, instruction)
                    assert [number for number in found if number in controls.values()] == plain, (
                        token
                    )


def test_documents_of_a_question_share_its_half(ours: Checkpoint) -> None:
    documents = [item(side) for side in SIDES]
    prompts = ours.family.render(("c",), ("a query",), documents)
    prefixes = {id(prompt.prefix) for prompt in prompts if isinstance(prompt, Prompt)}
    assert len(prefixes) == 1
    assert len(prompts) == len(documents)

    (prompt,) = ours.family.render((INSTRUCTION,), ("a query",), [("a document",)])
    (gmr,) = resolve("gmr-tiny").family.render((INSTRUCTION,), ("a query",), [("a document",)])
    assert isinstance(prompt, Prompt)
    assert isinstance(gmr, Prompt)
    assert prompt.ids == gmr.ids
    assert prompt.prefix == gmr.prefix


def test_long_texts_are_cut_and_the_ends_of_the_template_are_not(tmp_path: Path) -> None:
    folder = write_prompts(
        tmp_path / "short", QWEN3_TEMPLATE, processing={"text": {"max_length": 256}}
    )
    family = resolve(str(folder), weights=False).family
    assert family.max_tokens == 256
    words = "".join(f"word{number} " for number in range(400))

    (whole,) = family.render(("i",), ("q",), [("d",)])
    assert isinstance(whole, Prompt)
    tail = whole.ids[-12:]
    for query, document in (("q", words), (words, "d"), (words, words)):
        (prompt,) = family.render(("i",), (query,), [(document,)])
        assert isinstance(prompt, Prompt)
        assert prompt.truncated
        # a document keeps up to a quarter of the tokens beside a long query
        assert (180 if document == "d" else 250) < len(prompt.ids) <= 256
        assert prompt.ids[-12:] == tail
        assert prompt.ids[:20] == whole.ids[:20]
        refusals = family.render(("i",), (query,), [(document,)], truncate=False)
        assert all(isinstance(refusal, PairTooLong) for refusal in refusals)

    assert family.render((words,), ("q",), [("d",)]) == [PairTooLong(256, "instruction")]


def test_a_pair_that_shares_nothing_is_cut_too(tmp_path: Path) -> None:
    template = (
        "{{ messages[-2].content }} {{ messages[-1].content }}<|im_end|>\n<|im_start|>assistant\n\n"
    )
    folder = write_prompts(tmp_path / "short", template, processing={"text": {"max_length": 64}})
    family = resolve(str(folder), weights=False).family
    assert family.cacheable_side == "none"
    words = "word " * 400

    prompts = family.render(("",), ("q",), [(words,), ("d",)])
    assert all(isinstance(prompt, Prompt) for prompt in prompts)
    assert [prompt.truncated for prompt in prompts if isinstance(prompt, Prompt)] == [True, False]
    long, short = prompts
    assert isinstance(long, Prompt)
    assert isinstance(short, Prompt)
    assert 60 <= len(long.ids) <= 64
    assert long.ids[-5:] == short.ids[-5:]
    assert family.render(("",), (words,), [("d",)]) == [PairTooLong(64, "pair")]


def test_the_folder_states_instruction_limit_and_transform(tmp_path: Path) -> None:
    folder = write_text(tmp_path / "stated", prompt="Find what helps", activation=IDENTITY)
    checkpoint = resolve(str(folder))
    manifest, family = checkpoint.manifest, checkpoint.family
    assert manifest.family == "sentence-transformers"
    assert manifest.transform == "identity"
    assert manifest.default_instruction == family.default_instruction == "Find what helps"
    assert manifest.max_tokens == 4096  # model_max_length of its tokenizer
    assert manifest.pixels is None
    assert family.takes_instruction
    assert family.readout.name == "yes - no"
    assert family.label_ids == (token_id(folder, "yes"), token_id(folder, "no"))

    zerank = write_prompts(tmp_path / "zerank", ZERANK_TEMPLATE, labels=("yes",))
    family = resolve(str(zerank), weights=False).family
    assert not family.takes_instruction
    assert family.readout.name == "yes"
    (one, other) = (family.render((text,), ("q",), [("d",)]) for text in ("", "not shown"))
    assert one == other


def test_what_a_template_shows_of_each_side_is_told(ours: Checkpoint, tmp_path: Path) -> None:
    anything = SideRules(texts=True, max_images=None, mixed=True)
    assert (ours.family.query_side, ours.family.document_side) == (anything, anything)

    # pictures of documents alone: no more than one, and never beside a text
    one_picture = (
        "{% set d = messages[-1].content %}{% if d | length > 1 %}{{ raise_exception('one part') }}"
        "{% endif %}{{ messages[-2].content[0].text }}<|im_end|>{% if d[0].type == 'image' %}"
        "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ d[0].text }}{% endif %}<|im_end|>"
    )
    family = resolve(str(write_gmr(tmp_path / "one-picture", one_picture))).family
    assert family.query_side == SideRules(texts=True, max_images=0, mixed=False)
    assert family.document_side == SideRules(texts=True, max_images=1, mixed=False)
    picture = Image(b"p" * 32, WIDTH, HEIGHT)
    found = family.render(
        ("",), ("q",), [(picture,), ("text",), ("text", picture), (picture, picture), ("a", "b")]
    )
    assert [isinstance(prompt, Prompt) for prompt in found] == [True, True, False, False, False]
    assert found[2:] == [PairUnreadable()] * 3
    assert family.render(("",), (picture,), [("d",)]) == [PairUnreadable()]

    # a folder that says nothing of images has a family of text
    family = resolve(str(write_gmr(tmp_path / "text-alone", modalities=("text",)))).family
    assert family.images is None


def change(folder: Path, name: str, field: str, value: object) -> None:
    put(folder, name, stated(folder, name) | {field: value})


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, field: str, value: object) -> Callable[[Path], None]:
    return lambda folder: change(folder, name, field, value)


SETTINGS, TRANSFORMER = "config_sentence_transformers.json", "sentence_bert_config.json"
SCORE, MODULES = "1_LogitScore/config.json", "modules.json"


def modules(*kinds: str) -> Callable[[Path], None]:
    entries = [{"idx": 0, "name": "0", "path": "1_LogitScore", "type": kind} for kind in kinds]
    return lambda folder: put(folder, MODULES, entries)


ST = "sentence_transformers.base.modules"
REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a label beyond the vocabulary": (
        write(SCORE, "true_token_id", 999_999),
        "true_token_id of 1_LogitScore/config.json is 999999, and the network has",
    ),
    "a label of another kind": (
        write(SCORE, "true_token_id", "yes"),
        "true_token_id of 1_LogitScore/config.json is 'yes', not a token's id",
    ),
    "no label": (
        lambda folder: put(folder, SCORE, {}),
        "true_token_id of 1_LogitScore/config.json is None, not a token's id",
    ),
    "one label twice": (
        lambda folder: change(
            folder, SCORE, "false_token_id", stated(folder, SCORE)["true_token_id"]
        ),
        "true_token_id and false_token_id of 1_LogitScore/config.json are both",
    ),
    "other logits": (
        write(SCORE, "module_input_name", "scores"),
        "module_input_name of 1_LogitScore/config.json is 'scores', and the network gives",
    ),
    "no score": (drop(SCORE), "there is no 1_LogitScore/config.json, which modules.json calls for"),
    "no settings of the network": (drop(TRANSFORMER), f"there is no {TRANSFORMER}"),
    "no settings": (drop(SETTINGS), f"model_type of {SETTINGS} is None, not CrossEncoder"),
    "no template": (drop("chat_template.jinja"), "there is no chat_template.jinja"),
    "another activation": (
        write(SETTINGS, "activation_fn", "torch.nn.modules.activation.Tanh"),
        f"the activation function of {SETTINGS} is 'torch.nn.modules.activation.Tanh'",
    ),
    "an activation of its own": (
        write(SETTINGS, "activation_fn", "modeling.Own"),
        f"the activation function of {SETTINGS} is 'modeling.Own'",
    ),
    "a prompt that is missing": (
        write(SETTINGS, "default_prompt_name", "web"),
        f"default_prompt_name of {SETTINGS} is 'web', which is no text in prompts",
    ),
    "an unknown module": (
        modules(f"{ST}.transformer.Transformer", f"{ST}.router.Router"),
        "modules.json lists Transformer, Router, and rerankers are read that list",
    ),
    "a module of its own": (
        modules(f"{ST}.transformer.Transformer", "modeling_own.Head"),
        "modules.json names the module 'modeling_own.Head', which is none of",
    ),
    "an embedding model": (
        modules(f"{ST}.transformer.Transformer", "sentence_transformers.models.Normalize"),
        "modules.json lists Transformer, Normalize",
    ),
    "a path that leads out": (
        lambda folder: put(
            folder, MODULES, [{"type": f"{ST}.transformer.Transformer", "path": "../other"}]
        ),
        "a path of modules.json leads out of the folder",
    ),
    "modules that are no list": (
        lambda folder: put(folder, MODULES, {}),
        "modules.json is no JSON list",
    ),
    "no messages": (
        write(TRANSFORMER, "modality_config", {"text": {"method": "forward"}}),
        f"modality_config of {TRANSFORMER} has no message",
    ),
    "another task": (
        write(TRANSFORMER, "transformer_task", "fill-mask"),
        f"transformer_task of {TRANSFORMER} is 'fill-mask', not text-generation or any-to-any",
    ),
    "images of another size": (
        write(TRANSFORMER, "processing_kwargs", {"image": {"max_pixels": 5}}),
        "processing_kwargs.image of sentence_bert_config.json sets max_pixels",
    ),
    "tools": (
        write(TRANSFORMER, "processing_kwargs", {"chat_template": {"tools": []}}),
        "processing_kwargs.chat_template of sentence_bert_config.json sets tools",
    ),
    "small letters": (write(TRANSFORMER, "do_lower_case", True), "do_lower_case of"),
    "no room": (
        write(TRANSFORMER, "max_seq_length", 16),
        "its files limit a pair to 16 tokens, fewer than 64",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_folders_are_refused_by_file_and_field(tmp_path: Path, name: str) -> None:
    folder = write_prompts(tmp_path / "folder", QWEN3_TEMPLATE)
    spoil, sentence = REFUSED[name]
    spoil(folder)
    with pytest.raises(CheckpointUnusable) as refusal:
        _ = resolve(str(folder), weights=False).family
    assert sentence in str(refusal.value)
    assert str(refusal.value).startswith("folder: ")
    assert "\n" not in str(refusal.value)


def with_head(folder: Path) -> None:
    config = {"architectures": ["Qwen3ForSequenceClassification"], "num_labels": 1}
    put(folder, "config.json", stated(folder, "config.json") | config)


def test_a_score_head_needs_modules_without_logits(tmp_path: Path) -> None:
    folder = write_prompts(tmp_path / "folder", QWEN3_TEMPLATE)
    with_head(folder)
    sentence = "lists Transformer, LogitScore, and the network is Qwen3ForSequenceClassification"
    with pytest.raises(CheckpointUnusable, match=sentence):
        resolve(str(folder), weights=False)

    modules(f"{ST}.transformer.Transformer")(folder)
    change(folder, TRANSFORMER, "transformer_task", "sequence-classification")
    checkpoint = resolve(str(folder), weights=False)
    assert checkpoint.manifest.family == "sentence-transformers"
    assert checkpoint.readout.name == "score head"

    # transformers reads a head at the last token that is no padding
    change(folder, "config.json", "pad_token_id", token_id(folder, "<|im_end|>"))
    (folder / "chat_template.jinja").write_text(
        "{{ messages[-2].content }}<|im_end|>{{ messages[-1].content }}<|im_end|>", "utf-8"
    )
    with pytest.raises(CheckpointUnusable, match="ends in the padding token"):
        _ = resolve(str(folder), weights=False).family


def test_a_label_without_a_name_is_refused(tmp_path: Path) -> None:
    """Networks have more rows than their tokenizers have tokens."""
    folder = write_prompts(tmp_path / "folder", QWEN3_TEMPLATE)
    rows = stated(folder, "config.json")["vocab_size"]
    change(folder, "config.json", "vocab_size", rows + 64)
    change(folder, SCORE, "false_token_id", rows + 3)
    with pytest.raises(CheckpointUnusable, match=f"the label {rows + 3} of LogitScore has no name"):
        _ = resolve(str(folder), weights=False).family


def test_variables_of_the_folder_reach_its_template(tmp_path: Path) -> None:
    template = ZERANK_TEMPLATE.rstrip() + "{% if mood == 'good' %}<think>{% endif %}"
    settings = {"chat_template": {"mood": "good", "restore_suffix": False, "padding": True}}
    with_mood = write_prompts(tmp_path / "good", template, processing=settings)
    without = write_prompts(tmp_path / "none", template)
    found = [resolve(str(folder), weights=False) for folder in (with_mood, without)]
    good, none = (ids_of(checkpoint, "q", "d") for checkpoint in found)
    assert good == (*none, token_id(with_mood, "<think>"))
    assert found[0].digest != found[1].digest


CHANGES: Sequence[Callable[[Path], object]] = (
    lambda folder: (folder / "chat_template.jinja").write_text(ZERANK_TEMPLATE, "utf-8"),
    write(SETTINGS, "prompts", {"web": "Find it"}),
    write(SETTINGS, "activation_fn", IDENTITY),
    write(SCORE, "false_token_id", None),
    write(TRANSFORMER, "max_seq_length", 128),
)


def test_the_digest_changes_with_all_that_decides_a_score(tmp_path: Path) -> None:
    folder = write_prompts(tmp_path / "folder", QWEN3_TEMPLATE)
    digests = {resolve(str(folder), weights=False).digest}
    for change_folder in CHANGES:
        copy = Path(shutil.copytree(folder, tmp_path / f"copy-{len(digests)}"))
        change_folder(copy)
        digests.add(resolve(str(copy), weights=False).digest)
    assert len(digests) == 1 + len(CHANGES)


def test_code_of_a_folder_is_not_run(tmp_path: Path) -> None:
    folder = write_prompts(tmp_path / "folder", QWEN3_TEMPLATE)
    marker = tmp_path / "was-run"
    (folder / "modeling_own.py").write_text(f"open({json.dumps(str(marker))}, 'w')", "utf-8")
    change(folder, "config.json", "auto_map", {"AutoModelForCausalLM": "modeling_own.Own"})
    assert ids_of(resolve(str(folder), weights=False), "q", "d")
    assert not marker.exists()


def test_escapes_that_the_tokenizer_takes_out_again_are_none(tmp_path: Path) -> None:
    """Nemotron's template puts a mark behind brackets, which its tokenizer removes."""
    escaped = "replace('[', '[\u200c') | replace('<', '<\u200c')"
    template = (
        f"query: {{{{ messages[-2].content | {escaped} }}}}\n\n"
        f"passage: {{{{ messages[-1].content | {escaped} }}}}<|im_end|>"
    )
    folder = write_prompts(tmp_path / "folder", template)
    with pytest.raises(CheckpointUnusable, match=r"it replaces '\['"):
        _ = resolve(str(folder), weights=False).family

    tokenizer = stated(folder, "tokenizer.json")
    removal = {"type": "Replace", "pattern": {"String": "\u200c"}, "content": ""}
    own = [tokenizer["normalizer"]] if tokenizer["normalizer"] else []
    change(
        folder, "tokenizer.json", "normalizer", {"type": "Sequence", "normalizers": [removal, *own]}
    )
    checkpoint = resolve(str(folder), weights=False)
    plain = write_prompts(tmp_path / "plain", template.replace(f" | {escaped}", ""))
    query, document = "[IMG] <|im_end|>", "a [b] <c>"
    assert ids_of(checkpoint, query, document) == ids_of(
        resolve(str(plain), weights=False), query, document
    )


def test_a_template_that_does_not_end_for_some_pairs_refuses_those(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}{% if m.content | length > 3 %}{% for i in range(99999) %}"
        "{% for j in range(99999) %}{% endfor %}{% endfor %}{% endif %}"
        "{% for part in m.content %}{{ part.text }}\n{% endfor %}<|im_end|>{% endfor %}"
    )
    folder = write_prompts(tmp_path / "folder", template, message_format="structured")
    family = resolve(str(folder), weights=False).family
    several = ("one", "two", "three")
    for _ in range(2):
        found = family.render(("",), ("q",), [("a",), (*several, "four"), several, ("a",) * 40])
        assert [isinstance(prompt, Prompt) for prompt in found] == [True, False, False, False]
        assert found[1:] == [PairUnreadable()] * 3
    assert isinstance(family.render(("",), ("q",), [several])[0], Prompt)


@pytest.mark.parametrize(
    "changes",
    [
        {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True},
        {"tokenizer_class": "LlamaTokenizer"},
        {"tokenizer_class": "GemmaTokenizer"},
        {"add_prefix_space": True},
    ],
)
def test_a_tokenizer_that_transformers_reads_in_another_way_is_refused(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    folder = write_prompts(tmp_path / "m", QWEN3_TEMPLATE)
    put(folder, "tokenizer_config.json", stated(folder, "tokenizer_config.json") | changes)
    with pytest.raises(CheckpointUnusable, match=r"transformers (cannot read|reads) texts"):
        _ = resolve(str(folder), weights=False).family
