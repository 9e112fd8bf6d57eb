"""A published folder is read by sentence-transformers, mteb and vLLM's server as it is, and scores
are the golden pairs'."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import mteb
import pytest
import torch
from datasets import Dataset, Features, Image, Value
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import CrossEncoderWrapper
from PIL import Image as Pil
from sentence_transformers import CrossEncoder

from model_store.checkpoint import Checkpoint, resolve
from model_store.families.readout import SingleLabel
from model_store.golden import GoldenPair, Side, read_golden
from model_store.manifest import read_manifest
from model_store.recipes.tiny.republish import republish
from model_store.training.publish.folder import CARD
from model_store.training.publish.other_engines.cross_encoder import pair_of, predicted_logits
from model_store.training.publish.other_engines.vllm_server import served_logits
from model_store.training.publish.pairs import (
    PublishRefused,
    has_pictures_on_both_sides,
    logits_of,
    prompt_of,
)
from model_store.training.publish.parity import PARITY, PREDICT_TOLERANCE, TOLERANCE
from model_store.training.publish.portable import portable_files, vllm_command, write_portable
from model_store.training.reranker import load_network
from tests.conftest import TINY
from tests.model_store.training.publish.test_run import VLLM

FORM = (
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "1_LogitScore/config.json",
    "chat_template.jinja",
)
PAIRS = read_golden(TINY)


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


@pytest.fixture(scope="module")
def model() -> CrossEncoder:
    return CrossEncoder(str(TINY), device="cpu", model_kwargs={"dtype": "float32"})


class TestSentenceTransformers:
    """gmr-tiny as it ships, by sentence-transformers alone."""

    def test_all_golden_pairs_come_out(self, model: CrossEncoder) -> None:
        assert len(PAIRS) == 18
        for pair in PAIRS:
            (score,) = model.predict([pair_of(pair)], prompt=pair.instruction)
            assert score == pytest.approx(sigmoid(pair.logit), abs=PREDICT_TOLERANCE)
            (logit,) = model.predict(
                [pair_of(pair)], prompt=pair.instruction, activation_fn=torch.nn.Identity()
            )
            assert logit == pytest.approx(pair.logit, abs=PREDICT_TOLERANCE), pair.cell

    def test_a_batch_of_texts_and_pictures_has_the_scores_of_its_pairs(
        self, model: CrossEncoder
    ) -> None:
        pairs = [pair_of(pair) for pair in PAIRS]
        alone = [float(model.predict([pair])[0]) for pair in pairs]
        assert model.predict(pairs).tolist() == pytest.approx(alone, abs=PREDICT_TOLERANCE)

    def test_without_a_prompt_the_instruction_is_the_manifests(self, model: CrossEncoder) -> None:
        asked = [replace(pair, instruction=default_instruction()) for pair in PAIRS[:2]]
        due = [sigmoid(logit) for logit in own_logits(asked)]
        found = model.predict([pair_of(pair) for pair in asked])
        assert found.tolist() == pytest.approx(due, abs=PREDICT_TOLERANCE)

    def test_a_long_document_is_cut_as_by_the_service(self, model: CrossEncoder) -> None:
        """The end of the prompt stays, so that the answer is read where it was trained."""
        (pair,) = model.preprocess([("sort a list", "alpha beta gamma " * 3000)])["input_ids"]
        family = resolve("gmr-tiny").family
        (prompt,) = family.render(
            (default_instruction(),), ("sort a list",), [("alpha beta gamma " * 3000,)]
        )
        assert pair.tolist() == list(prompt.ids)

    def test_a_folder_that_it_cannot_read_is_one_sentence(self, tmp_path: Path) -> None:
        broken = Path(shutil.copytree(TINY, tmp_path / "broken"))
        (broken / "1_LogitScore/config.json").write_text("{}", encoding="utf-8")
        with pytest.raises(
            PublishRefused, match=r"^sentence-transformers cannot read the folder \(.*\)\.$"
        ):
            predicted_logits(broken, PAIRS[:1], device="cpu")


def default_instruction() -> str:
    return resolve("gmr-tiny").manifest.default_instruction


def own_logits(pairs: list[GoldenPair]) -> list[float]:
    """By this project's prompts, and transformers."""
    checkpoint = resolve("gmr-tiny")
    network = load_network(checkpoint, torch.float32).eval()
    return logits_of(network, checkpoint, pairs)


def rows(sides: list[Side], modalities: list[str], prefix: str) -> Dataset:
    """Queries or documents as mteb has them: a column for each modality."""
    entries = []
    for number, side in enumerate(sides):
        entry: dict[str, Any] = {"id": f"{prefix}{number}"}
        for part in side:
            if isinstance(part, str):
                entry["text"] = part
            else:
                entry["image"] = Pil.fromarray(part)
        entries.append(entry)
    columns = {name: Image() if name == "image" else Value("string") for name in modalities}
    return Dataset.from_list(entries, features=Features({"id": Value("string")} | columns))


class GoldenTask(AbsTaskRetrieval):
    """Golden pairs of some cells as a reranking task of mteb: the first pair of each cell is
    relevant, and every query is asked for all documents."""

    metadata = TaskMetadata(
        name="GoldenPairs",
        description="golden pairs of a checkpoint",
        type="Reranking",
        category="t2it",
        modalities=["text", "image"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        dataset={"path": "none", "revision": "0"},
    )

    def __init__(self, cells: list[str], modalities: list[str]) -> None:
        super().__init__()
        self.pairs = [pair for pair in PAIRS if pair.cell in cells]
        self.columns = modalities
        kind = "".join(sorted(name[0] for name in modalities))
        self.metadata = self.metadata.model_copy(
            update={"category": f"t2{kind}", "modalities": sorted({"text", *modalities})}
        )

    def load_data(self, *args: Any, **kwargs: Any) -> None:
        queries = [pair.query for pair in self.pairs[::2]]
        documents = [f"d{number}" for number in range(len(self.pairs))]
        self.dataset = {
            "default": {
                "test": {
                    "queries": rows(queries, ["text"], "q"),
                    "corpus": rows([pair.document for pair in self.pairs], self.columns, "d"),
                    "relevant_docs": {f"q{n}": {f"d{2 * n}": 1} for n in range(len(queries))},
                    "top_ranked": {f"q{n}": documents for n in range(len(queries))},
                }
            }
        }
        self.data_loaded = True

    def due(self) -> dict[str, dict[str, float]]:
        """Scores by this project, with the default instruction."""
        asked: dict[tuple[str, str], GoldenPair] = {}
        for number, pair in enumerate(self.pairs[::2]):
            for place, other in enumerate(self.pairs):
                asked[f"q{number}", f"d{place}"] = replace(
                    pair, document=other.document, instruction=default_instruction()
                )

        due: dict[str, dict[str, float]] = {}
        logits = own_logits(list(asked.values()))
        for (query, document), logit in zip(asked, logits, strict=True):
            due.setdefault(query, {})[document] = sigmoid(logit)
        return due


@pytest.mark.parametrize(
    ("cells", "modalities"),
    [(["T-T"], ["text"]), (["T-I", "T-VD"], ["image"]), (["T-IT"], ["image", "text"])],
)
def test_mtebs_cross_encoder_reranks_by_it(
    model: CrossEncoder, cells: list[str], modalities: list[str], tmp_path: Path
) -> None:
    """By mteb's own evaluation; no data set is downloaded."""
    wrapper = CrossEncoderWrapper(model)
    # of a hub's model mteb reads them in its files, of a folder it takes texts alone
    wrapper.mteb_model_meta = wrapper.mteb_model_meta.model_copy(
        update={"modalities": ["text", "image"]}
    )
    task = GoldenTask(cells, modalities)
    result = mteb.evaluate(
        wrapper,
        task,
        cache=None,
        prediction_folder=tmp_path,
        show_progress_bar=False,
        co2_tracker=False,
    )

    (file,) = tmp_path.glob("*.json")
    found = json.loads(file.read_text(encoding="utf-8"))["default"]["test"]
    due = task.due()
    assert found.keys() == due.keys()
    for query, scores in found.items():
        assert scores == pytest.approx(due[query], abs=PREDICT_TOLERANCE)
    assert result.task_results[0].get_score() == 1.0


def command_of_the_card() -> list[str]:
    """As a shell reads it."""
    card = (TINY / CARD).read_text(encoding="utf-8")
    (shown,) = re.findall(r"```sh\n(vllm serve .*?)\n```", card, re.DOTALL)
    return shlex.split(shown.replace("\\\n", ""))


@pytest.mark.slow
def test_vllms_server_computes_the_golden_pairs_by_the_cards_command() -> None:
    assert VLLM.exists(), "There is no .venv-vllm, the environment with vLLM: `make test` makes it."
    # compilation, which takes minutes, is no part of what is tested
    command = [*command_of_the_card(), "--enforce-eager"]
    logits, version = served_logits(VLLM, TINY, command, PAIRS)
    assert logits == pytest.approx([pair.logit for pair in PAIRS], abs=TOLERANCE)
    assert re.match(r"0\.\d+", version)


class TestTheShippedFolder:
    """gmr-tiny, and the code of the recipe that makes it."""

    def test_it_is_what_the_recipe_writes(self, tmp_path: Path) -> None:
        republish(TINY, tmp_path / "again")
        again, shipped = contents(tmp_path / "again"), contents(TINY)
        assert again.keys() == shipped.keys()
        measured = {PARITY, CARD, "manifest.json"}
        for name in shipped.keys() - measured:
            assert again[name] == shipped[name], name

        figure = re.compile(rb"\d\.\d\de-\d\d")
        assert figure.sub(b"", again[CARD]) == figure.sub(b"", shipped[CARD])
        records = [json.loads(files[PARITY]) for files in (again, shipped)]
        for record in records:
            assert record["deviations"]["sentence-transformers"].pop("largest") < PREDICT_TOLERANCE
            for pair in record["pairs"]:
                pair["logits"]["sentence-transformers"] = pytest.approx(
                    pair["logits"]["sentence-transformers"], abs=PREDICT_TOLERANCE
                )
        assert records[0] == records[1]

    def test_every_file_of_the_form_is_in_the_manifest(self) -> None:
        manifest = read_manifest(TINY)
        assert manifest
        assert set(FORM) <= manifest.files.keys()

    def test_a_folder_without_the_form_gets_it(self, tmp_path: Path) -> None:
        bare = Path(shutil.copytree(TINY, tmp_path / "bare"))
        shutil.rmtree(bare / "1_LogitScore")
        for name in FORM:
            (bare / name).unlink(missing_ok=True)
        checkpoint = Checkpoint("gmr-tiny", bare, resolve("gmr-tiny").manifest)
        write_portable(checkpoint, bare)
        for name in FORM[:-1]:
            assert (bare / name).read_bytes() == (TINY / name).read_bytes()
        written = (bare / FORM[-1]).read_text(encoding="utf-8")
        assert written in (TINY / FORM[-1]).read_text(encoding="utf-8")

    def test_the_card_shows_the_command(self) -> None:
        assert command_of_the_card() == vllm_command(resolve("gmr-tiny"))
        assert "It was run with vLLM" in (TINY / CARD).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("model", "name", "family"),
    [
        ("gmr-tiny", "mine", "sentence-transformers"),
        ("gmr-tiny", "gmr-tiny", "gmr"),
        ("gmr-tiny-d", "gmr-tiny-d", "sentence-transformers"),
    ],
)
def test_without_its_manifest_it_has_the_same_prompts(
    model: str, name: str, family: str, tmp_path: Path
) -> None:
    """As a folder that others made, by its name or by its chat template."""
    kept = shutil.ignore_patterns("manifest.json", "golden*", PARITY, CARD)
    shipped = resolve(model)
    plain = resolve(str(shutil.copytree(shipped.folder, tmp_path / name, ignore=kept)))
    assert (plain.manifest.family, shipped.manifest.family) == (family, "gmr")
    assert plain.manifest.max_tokens == shipped.manifest.max_tokens
    assert plain.family.label_ids == shipped.family.label_ids
    assert plain.family.cacheable_side == shipped.family.cacheable_side
    for pair in PAIRS:
        if shipped.family.cacheable_side == "document" and has_pictures_on_both_sides(pair):
            with pytest.raises(PublishRefused, match="no place for a golden pair"):
                prompt_of(plain.family, pair)
        else:
            assert prompt_of(plain.family, pair).ids == prompt_of(shipped.family, pair).ids


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_read_out_of_one_label_has_no_second_token() -> None:
    shipped = resolve("gmr-tiny")
    manifest = shipped.manifest.model_copy(update={"read_out": SingleLabel("yes").name})
    checkpoint = Checkpoint("gmr-tiny", TINY, manifest)
    score = portable_files(checkpoint)["1_LogitScore/config.json"]
    assert score["false_token_id"] is None
    assert score["true_token_id"] == shipped.family.label_ids[0]


@pytest.mark.parametrize(
    ("transform", "activation"),
    [
        ("sigmoid", "torch.nn.modules.activation.Sigmoid"),
        ("identity", "torch.nn.modules.linear.Identity"),
        ("sigmoid(x / 5)", "torch.nn.modules.linear.Identity"),
    ],
)
def test_a_transform_that_the_form_lacks_is_left_to_the_reader(
    transform: str, activation: str
) -> None:
    manifest = resolve("gmr-tiny").manifest.model_copy(update={"transform": transform})
    settings = portable_files(Checkpoint("gmr-tiny", TINY, manifest))
    assert settings["config_sentence_transformers.json"]["activation_fn"] == activation
