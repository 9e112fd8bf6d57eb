"""Pairs of texts are joined as their tokenizer joins them, and no text becomes a control token."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import CrossEncoder
from torch.nn import Sigmoid
from transformers import AutoTokenizer

from model_store.checkpoint import Checkpoint, resolve
from model_store.families.prompt import Image, PairTooLong, PairUnreadable, Prompt
from model_store.families.text_pair.form import PairForm, UnknownForm, pair_form
from model_store.manifest import CheckpointUnusable
from tests.pair_networks import write_pair_network

VOCABULARIES = {
    "WordPiece": "Bert",
    "Unigram": "XLMRoberta",
    "Unigram of DeBERTa": "DebertaV2",
    "byte level": "Roberta",
    "byte level with blanks": "ModernBert",
    "first tokens": "Llama",
    "nothing around": "Qwen3",
}
UNKNOWN = ("[UNK]", "<unk>")
SMALL = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 1}

typed = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
ordinary = st.lists(
    st.sampled_from(
        [
            "sort",
            "the",
            "List",
            "Berlin",
            "Größe",
            "à",
            "東京",
            "🙂",
            "e\u0301",
            "\n",
            "  ",
            "?!",
            "7",
        ]
    ),
    max_size=12,
).map(" ".join)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        name: write_pair_network(root / kind, kind, **SMALL) for name, kind in VOCABULARIES.items()
    }


@pytest.fixture(scope="module")
def checkpoints(folders: Mapping[str, Path]) -> Mapping[str, Checkpoint]:
    return {name: resolve(str(folder)) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def tokenizers(folders: Mapping[str, Path]) -> Mapping[str, Any]:
    return {name: AutoTokenizer.from_pretrained(folder) for name, folder in folders.items()}


def prompt_of(checkpoint: Checkpoint, query: str, document: str) -> Prompt:
    (prompt,) = checkpoint.family.render(("",), (query,), [(document,)])
    assert isinstance(prompt, Prompt)
    return prompt


@pytest.mark.parametrize("name", VOCABULARIES)
@settings(max_examples=40, deadline=None)
@given(query=ordinary, document=ordinary)
def test_ids_and_types_are_those_of_the_tokenizers_own_pair(
    checkpoints: Mapping[str, Checkpoint],
    tokenizers: Mapping[str, Any],
    name: str,
    query: str,
    document: str,
) -> None:
    encoded = tokenizers[name]([[f"q{query}", document]], return_token_type_ids=True)
    prompt = prompt_of(checkpoints[name], f"q{query}", document)
    assert list(prompt.ids) == encoded["input_ids"][0]
    if name == "WordPiece":
        assert list(prompt.types) == encoded["token_type_ids"][0]
    else:
        # those networks have one type of token, or take none
        assert prompt.types == ()


@pytest.mark.parametrize("name", VOCABULARIES)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), before=typed, after=typed)
def test_no_typed_text_is_a_control_token(
    checkpoints: Mapping[str, Checkpoint], name: str, data: st.DataObject, before: str, after: str
) -> None:
    family = checkpoints[name].family
    controls = family.tokenizer.controls
    numbers = {number for token, number in controls.items() if token not in UNKNOWN}
    around = prompt_of(checkpoints[name], "", "a")
    expected = [number for number in around.ids if number in numbers]

    token = data.draw(st.sampled_from(sorted(controls)))
    for query, document in ((before + token * 2 + after, "a"), ("", before + token + after + "a")):
        prompt = prompt_of(checkpoints[name], query, document)
        assert [number for number in prompt.ids if number in numbers] == expected


@pytest.mark.parametrize("name", VOCABULARIES)
def test_every_control_token_is_text_in_query_and_document(
    checkpoints: Mapping[str, Checkpoint], tokenizers: Mapping[str, Any], name: str
) -> None:
    family, plain = checkpoints[name].family, tokenizers[name]
    for token, number in family.tokenizer.controls.items():
        if token in UNKNOWN:
            continue
        assert number in plain(f"a {token} b", add_special_tokens=False)["input_ids"], token
        for text in (token, f"a {token} b", f"a{token}{token}b", f"\n{token}"):
            (ids,) = family.tokenizer.encode([text])
            assert ids
            assert number not in ids, text


@pytest.mark.parametrize("name", VOCABULARIES)
def test_long_pairs_are_cut_and_keep_what_is_around_the_texts(
    checkpoints: Mapping[str, Checkpoint], name: str
) -> None:
    family = checkpoints[name].family
    short = prompt_of(checkpoints[name], "sort", "Berlin")
    long = "Berlin is the capital of Germany, und Größe 東京. " * 2000
    for query, document in (("sort", long), (long, "Berlin"), (long, long)):
        prompt = prompt_of(checkpoints[name], query, document)
        assert prompt.truncated
        # a short document leaves its quarter empty, since all documents share one cut of the query
        least = family.max_tokens * 3 // 4 if document == "Berlin" else family.max_tokens
        assert least - 8 <= len(prompt.ids) <= family.max_tokens
        if name not in ("nothing around", "first tokens"):
            assert prompt.ids[0] == short.ids[0]
            assert prompt.ids[-1] == short.ids[-1]

        (refused,) = family.render(("",), (query,), [(document,)], truncate=False)
        assert isinstance(refused, PairTooLong)


def test_the_document_keeps_a_quarter_beside_a_long_query(
    checkpoints: Mapping[str, Checkpoint],
) -> None:
    family = checkpoints["WordPiece"].family
    long = "sort the list " * 1000
    (prompt,) = family.render(("",), (long,), [(long,)])
    assert isinstance(prompt, Prompt)
    assert family.max_tokens // 4 - 8 <= len(prompt.suffix.ids) <= family.max_tokens // 4


def test_images_and_pairs_without_tokens_are_refused_alone(
    checkpoints: Mapping[str, Checkpoint],
) -> None:
    image = Image(b"1" * 32, 28, 28)
    family = checkpoints["nothing around"].family
    found = family.render(("",), ("",), [("",), ("a",), (image,)])
    assert isinstance(found[0], PairUnreadable)
    assert isinstance(found[1], Prompt)
    assert isinstance(found[2], PairUnreadable)


def test_a_question_is_encoded_once_for_its_documents(
    checkpoints: Mapping[str, Checkpoint],
) -> None:
    family = checkpoints["WordPiece"].family
    first, second = family.render(("",), ("sort",), [("a",), ("b",)])
    assert isinstance(first, Prompt)
    assert isinstance(second, Prompt)
    assert first.prefix is second.prefix


def test_encoders_share_nothing_and_decoders_the_query(
    checkpoints: Mapping[str, Checkpoint],
) -> None:
    sides = {name: checkpoint.family.cacheable_side for name, checkpoint in checkpoints.items()}
    assert sides["WordPiece"] == sides["Unigram"] == sides["byte level with blanks"] == "none"
    assert sides["nothing around"] == sides["first tokens"] == "query"
    assert not any(checkpoint.family.takes_instruction for checkpoint in checkpoints.values())


TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"


def copied(folder: Path, target: Path, **changes: Mapping[str, Any] | None) -> Path:
    """A copy of a folder with fields of its JSON files changed; a field of None is left out.

    Files of sentence-transformers are read beside a list of modules alone, which is added.
    """
    shutil.copytree(folder, target)
    if any(name.startswith(("config_sentence", "sentence_bert")) for name in changes):
        module = {"idx": 0, "name": "0", "path": "", "type": TRANSFORMER}
        (target / "modules.json").write_text(json.dumps([module]), encoding="utf-8")
    for name, fields in changes.items():
        path = target / f"{name}.json"
        stated = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        stated |= fields or {}
        kept = {field: value for field, value in stated.items() if value is not None}
        path.write_text(json.dumps(kept), encoding="utf-8")
    return target


SIGMOID, IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"


@pytest.mark.parametrize(
    ("changes", "transform"),
    [
        ({}, "sigmoid"),
        ({"config": {"sbert_ce_default_activation_function": IDENTITY}}, "identity"),
        ({"config": {"sentence_transformers": {"activation_fn": IDENTITY}}}, "identity"),
        ({"config_sentence_transformers": {"activation_fn": IDENTITY}}, "identity"),
        (
            {
                "config_sentence_transformers": {"activation_fn": SIGMOID},
                "config": {"sentence_transformers": {"activation_fn": IDENTITY}},
            },
            "sigmoid",
        ),
    ],
)
def test_the_transform_is_that_of_sentence_transformers(
    folders: Mapping[str, Path],
    tmp_path: Path,
    changes: Mapping[str, Mapping[str, Any]],
    transform: str,
) -> None:
    folder = copied(folders["WordPiece"], tmp_path / "m", **changes)
    assert resolve(str(folder)).manifest.transform == transform


SETTINGS_REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("sentence_bert_config", {"do_lower_case": True}, "do_lower_case of sentence_bert_config"),
    ("sentence_bert_config", {"config_kwargs": {"hidden_act": "relu"}}, "sets hidden_act"),
    ("sentence_bert_config", {"processor_kwargs": {"do_lower_case": False}}, "do_lower_case"),
    (
        "sentence_bert_config",
        {"processing_kwargs": {"text": {"add_special_tokens": False}}},
        "sets add_special_tokens",
    ),
    ("sentence_bert_config", {"transformer_task": "feature-extraction"}, "transformer_task"),
    ("config_sentence_transformers", {"model_type": "SentenceTransformer"}, "model_type"),
    ("tokenizer_config", {"do_lower_case": False}, "transformers reads texts in another way"),
    ("tokenizer_config", {"strip_accents": False}, "transformers reads texts in another way"),
    ("tokenizer_config", {"cls_token": "[MASK]"}, "transformers reads texts in another way"),
    ("tokenizer_config", {"tokenizer_class": "PreTrainedTokenizerFast"}, "model_input_names"),
]


@pytest.mark.parametrize(("file", "changes", "sentence"), SETTINGS_REFUSED)
def test_a_setting_that_would_change_pairs_is_refused(
    folders: Mapping[str, Path],
    tmp_path: Path,
    file: str,
    changes: Mapping[str, Any],
    sentence: str,
) -> None:
    folder = copied(folders["WordPiece"], tmp_path / "m", **{file: changes})
    with pytest.raises(CheckpointUnusable, match=sentence):
        _ = resolve(str(folder)).family


@pytest.mark.parametrize(
    "changes",
    [
        {"processor_kwargs": {"model_max_length": 200}},
        {"processing_kwargs": {"text": {"max_length": 200}}},
    ],
)
def test_the_limit_is_the_least_that_sentence_transformers_states(
    folders: Mapping[str, Path], tmp_path: Path, changes: Mapping[str, Any]
) -> None:
    folder = copied(folders["WordPiece"], tmp_path / "m", sentence_bert_config=changes)
    assert resolve(str(folder)).manifest.max_tokens == 200


def test_files_of_sentence_transformers_without_modules_are_not_read(
    folders: Mapping[str, Path], tmp_path: Path
) -> None:
    stated = {"activation_fn": IDENTITY}
    folder = copied(folders["WordPiece"], tmp_path / "m", config_sentence_transformers=stated)
    assert resolve(str(folder)).manifest.transform == "identity"

    (folder / "modules.json").unlink()
    assert resolve(str(folder)).manifest.transform == "sigmoid"
    assert isinstance(CrossEncoder(str(folder), device="cpu").activation_fn, Sigmoid)


def test_a_template_is_passed_over_where_a_list_of_modules_says_so_alone(
    folders: Mapping[str, Path], tmp_path: Path
) -> None:
    stated = {"transformer_task": "sequence-classification"}
    folder = copied(folders["nothing around"], tmp_path / "m", sentence_bert_config=stated)
    (folder / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    assert resolve(str(folder)).manifest.family == "text-pair"

    (folder / "modules.json").unlink()
    with pytest.raises(CheckpointUnusable, match=r"no modules\.json with sentence_bert"):
        resolve(str(folder))


def test_a_default_prompt_goes_before_the_query(
    folders: Mapping[str, Path], tmp_path: Path, checkpoints: Mapping[str, Checkpoint]
) -> None:
    stated = {"prompts": {"search": "find: "}, "default_prompt_name": "search"}
    folder = copied(folders["Unigram"], tmp_path / "m", config_sentence_transformers=stated)
    checkpoint = resolve(str(folder))
    assert checkpoint.family.takes_instruction
    (prompt,) = checkpoint.family.render(
        (checkpoint.manifest.default_instruction,), ("Berlin",), [("Paris",)]
    )
    assert isinstance(prompt, Prompt)
    assert prompt.ids == prompt_of(checkpoints["Unigram"], "find: Berlin", "Paris").ids


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"config": {"id2label": {"0": "no", "1": "yes"}}}, "describes 2 labels"),
        ({"config": {"id2label": None, "label2id": None}}, "describes 2 labels"),
        ({"config": {"is_decoder": True}}, "is_decoder"),
        ({"config": {"position_embedding_type": "relative_key"}}, "position_embedding_type"),
        ({"config": {"num_hidden_layers": 10**9}}, "num_hidden_layers is 1000000000"),
        ({"config": {"hidden_size": 48}}, "has the shape"),
        ({"config": {"num_attention_heads": 3}}, "describes no network that can be built"),
        ({"tokenizer_config": {"model_max_length": 20}}, "a pair may have 20 tokens"),
        ({"tokenizer_config": {"chat_template": "{{ messages }}"}}, "has a chat template"),
        (
            {"config_sentence_transformers": {"activation_fn": "torch.nn.Tanh"}},
            "activation function",
        ),
        (
            {
                "config_sentence_transformers": {"model_type": "CrossEncoder"},
                "sentence_bert_config": {
                    "transformer_task": "sequence-classification",
                    "modality_config": {
                        "message": {"method": "forward", "method_output_name": "logits"}
                    },
                },
            },
            "a chat template is served for causal decoders",
        ),
    ],
)
def test_a_folder_that_would_be_read_differently_is_refused(
    folders: Mapping[str, Path],
    tmp_path: Path,
    changes: Mapping[str, Mapping[str, Any]],
    sentence: str,
) -> None:
    folder = copied(folders["WordPiece"], tmp_path / "m", **changes)
    with pytest.raises(CheckpointUnusable, match=sentence):
        _ = resolve(str(folder)).family


def test_limits_are_the_least_that_is_stated(folders: Mapping[str, Path], tmp_path: Path) -> None:
    folder = copied(
        folders["byte level"],
        tmp_path / "m",
        tokenizer_config={"model_max_length": 10**30},
        sentence_bert_config={"max_seq_length": 200},
    )
    assert resolve(str(folder)).family.max_tokens == 200

    folder = copied(
        folders["byte level"], tmp_path / "n", tokenizer_config={"model_max_length": 10**30}
    )
    # 514 positions begin after the padding token's id, which is 1
    assert resolve(str(folder)).family.max_tokens == 512


def test_truncation_that_a_tokenizer_was_saved_with_has_no_effect(
    folders: Mapping[str, Path], tmp_path: Path, checkpoints: Mapping[str, Checkpoint]
) -> None:
    saved = {
        "truncation": {
            "direction": "Right",
            "max_length": 4,
            "strategy": "LongestFirst",
            "stride": 0,
        },
        "padding": {
            "strategy": {"Fixed": 64},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
    }
    checkpoint = resolve(str(copied(folders["WordPiece"], tmp_path / "m", tokenizer=saved)))
    text = "Berlin is the capital of Germany."
    assert prompt_of(checkpoint, text, text) == prompt_of(checkpoints["WordPiece"], text, text)


def test_inputs_without_types_have_none(folders: Mapping[str, Path], tmp_path: Path) -> None:
    """BERT's network with a tokenizer that gives it no types, as in multilingual MiniLM."""
    folder = copied(
        folders["WordPiece"],
        tmp_path / "m",
        tokenizer_config={"model_input_names": ["input_ids", "attention_mask"]},
    )
    assert prompt_of(resolve(str(folder)), "a", "b").types == ()


CLS, SEP = ("[CLS]", 2), ("[SEP]", 3)
BERT = PairForm((2,), (3,), (), (3,), (0, 1))
ROBERTA = PairForm((2,), (3, 3), (), (3,))


def template(*pieces: tuple[str, int]) -> dict[str, Any]:
    pair: list[dict[str, Any]] = []
    for name, kind in pieces:
        place = "Sequence" if name in "AB" else "SpecialToken"
        pair.append({place: {"id": name, "type_id": kind}})
    tokens = {name: {"id": name, "ids": [number], "tokens": [name]} for name, number in (CLS, SEP)}
    return {"type": "TemplateProcessing", "single": [], "pair": pair, "special_tokens": tokens}


@pytest.mark.parametrize(
    ("post_processor", "settings_of_it", "form"),
    [
        ({"type": "BertProcessing", "sep": SEP, "cls": CLS}, {}, BERT),
        ({"type": "RobertaProcessing", "sep": SEP, "cls": CLS}, {}, ROBERTA),
        (template(("[CLS]", 0), ("A", 0), ("[SEP]", 0), ("B", 1), ("[SEP]", 1)), {}, BERT),
        (
            template(("[CLS]", 0), ("A", 0), ("[SEP]", 1), ("B", 1), ("[SEP]", 1)),
            {},
            PairForm((2,), (), (3,), (3,), (0, 1)),
        ),
        ({"type": "ByteLevel"}, {}, PairForm((), (), (), (), (0, 1))),
        ({}, {}, PairForm((), (), (), (), (0, 1))),
        (
            {
                "type": "Sequence",
                "processors": [
                    {"type": "ByteLevel"},
                    {"type": "RobertaProcessing", "sep": SEP, "cls": CLS},
                ],
            },
            {},
            ROBERTA,
        ),
        (
            {"type": "ByteLevel"},
            {"add_bos_token": True, "bos_token": {"content": "[CLS]"}, "add_eos_token": False},
            PairForm((2,), (), (2,), (), (0, 1)),
        ),
    ],
)
def test_forms_of_post_processors(
    post_processor: Mapping[str, Any], settings_of_it: Mapping[str, Any], form: PairForm
) -> None:
    assert pair_form(post_processor, settings_of_it, dict([CLS, SEP])) == form


@pytest.mark.parametrize(
    ("post_processor", "sentence"),
    [
        ({"type": "Lattice"}, "'Lattice'"),
        ({"type": "BertProcessing"}, "no cls and sep"),
        ({"type": "TemplateProcessing", "pair": [{}]}, "cannot be read"),
        (template(("B", 0), ("A", 1)), "query, then document"),
        (template(("A", 0)), "query, then document"),
        (template(("[CLS]", 1), ("A", 0), ("B", 1)), "tokens of a query several types"),
        (template(("A", 0), ("B", 1), ("[SEP]", 0)), "tokens of a document several types"),
    ],
)
def test_forms_that_are_not_understood(post_processor: Mapping[str, Any], sentence: str) -> None:
    with pytest.raises(UnknownForm, match=sentence):
        pair_form(post_processor, {}, dict([CLS, SEP]))
