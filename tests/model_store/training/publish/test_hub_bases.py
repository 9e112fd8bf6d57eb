"""A base as hubs have it is published as gmr-tiny is: the same folder comes out, whatever layout
went in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from model_store.checkpoint import Checkpoint, resolve
from model_store.families.tokens import LiteralTokenizer
from model_store.golden import read_golden
from model_store.manifest import CheckpointUnusable
from model_store.training.publish.folder import refuse_unless_servable
from model_store.training.publish.pairs import PublishRefused
from model_store.training.publish.run import publish
from tests.layouts import Layout, put, stated, template, write_layout
from tests.model_store.training.publish.conftest import MakeJob

TEXTS = ["how do I sort a list?", "naïve 中文 42"]


def servable(folder: Path) -> None:
    refuse_unless_servable(resolve(str(folder)))


def test_a_base_in_a_hubs_layout_gives_what_gmr_tiny_gives(
    job: MakeJob, base: Checkpoint, tmp_path: Path
) -> None:
    layout = Layout(
        "flat", "top", "mrope", sharded=True, tokenizer="parts", template="json", processor="both"
    )
    hub = resolve(str(write_layout(tmp_path / "base", layout)))
    questions = read_golden(base.folder)
    made = [
        publish(job(base=source, output=tmp_path / name, questions=questions, name=name))
        for name, source in (("from-a-hub", hub), ("from-gmr-tiny", base))
    ]
    checkpoint = resolve(str(tmp_path / "from-a-hub"))
    assert checkpoint.manifest == made[0]
    assert made[0].pixels == made[1].pixels
    assert made[0].files["model.safetensors"] == made[1].files["model.safetensors"]
    assert made[0].files["chat_template.jinja"] == made[1].files["chat_template.jinja"]
    assert LiteralTokenizer.load(checkpoint.folder).encode(TEXTS) == LiteralTokenizer.load(
        base.folder
    ).encode(TEXTS)
    assert {"tokenizer.json", "vocab.json", "merges.txt"} & set(made[0].files) == {"tokenizer.json"}
    theirs, others = (read_golden(tmp_path / name) for name in ("from-a-hub", "from-gmr-tiny"))
    assert [pair.logit for pair in theirs] == pytest.approx(
        [pair.logit for pair in others], abs=1e-5
    )
    assert AutoTokenizer.from_pretrained(checkpoint.folder).chat_template == template()
    assert "reloaded" in made[0].lineage["parity"]
    assert "model card" in made[0].lineage["parity"]


@pytest.mark.parametrize("kind", ["jinja", "json", "in the tokenizer"])
def test_a_template_is_found_wherever_it_is(tmp_path: Path, kind: str) -> None:
    servable(write_layout(tmp_path / "base", replace(Layout(), template=kind)))  # type: ignore[arg-type]


def test_a_base_without_a_template_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "base", Layout(template="none"))
    with pytest.raises(
        PublishRefused,
        match=(
            r"^base has no chat template: .*Add the chat_template\.jinja of"
            r" Qwen2_5_VLForConditionalGeneration to it\.$"
        ),
    ):
        servable(folder)


def test_a_base_with_several_templates_is_refused(tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "base", Layout(template="none"))
    several = [{"name": "rag", "template": template()}]
    put(
        folder,
        "tokenizer_config.json",
        stated("tokenizer_config.json") | {"chat_template": several},
    )
    with pytest.raises(
        PublishRefused, match=r"^base: chat_template of tokenizer_config\.json is not one text\.$"
    ):
        servable(folder)


def test_a_template_that_is_none_is_one_sentence(
    job: MakeJob, base: Checkpoint, tmp_path: Path
) -> None:
    folder = write_layout(tmp_path / "base", Layout())
    (folder / "chat_template.jinja").write_text("{% for %}", encoding="utf-8")
    with pytest.raises(
        PublishRefused,
        match=r"^base: transformers cannot read its tokenizer, chat template or processor \(",
    ):
        publish(job(base=resolve(str(folder)), questions=read_golden(base.folder)))
    assert not (tmp_path / "out" / "mine").exists()


def test_a_quantised_base_is_refused(tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "base", Layout())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    put(folder, "config.json", config | {"quantization_config": {"quant_method": "fp8"}})
    with pytest.raises(CheckpointUnusable, match=r"^base: its weights are quantised \(fp8, by "):
        servable(folder)
