"""What is published is whole, scores as the adapter did, and is served; what fails leaves nothing
that resolves."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.adapters.folder import read_adapter
from model_store.checkpoint import Checkpoint, resolve, resolve_adapter
from model_store.folders.covered_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from model_store.golden import read_golden
from model_store.manifest import CheckpointUnusable, read_manifest, verify
from model_store.training.publish.adapters import apply_adapter, load_base
from model_store.training.publish.card import Story
from model_store.training.publish.job import PublishJob
from model_store.training.publish.pairs import PublishRefused, logits_of
from model_store.training.publish.parity import TOLERANCE
from model_store.training.publish.run import publish
from service.worker.engines.torch.engine import TorchEngine
from service.worker.golden_check import check_golden
from tests.model_store.disk import file_size_limit
from tests.model_store.training.publish.conftest import CELLS, MakeJob, write_adapter
from tests.worker.engines.vllm.adapters import dated

pytestmark = pytest.mark.slow
VLLM = Path(__file__).parents[4] / ".venv-vllm" / "bin" / "python"


def refusal(job: PublishJob, *, merged: bool = True) -> str:
    """The sentence with which a job is refused; nothing is left of it."""
    with pytest.raises((PublishRefused, CheckpointUnusable)) as caught:
        publish(job, merged=merged)
    assert not job.output.parent.exists() or list(job.output.parent.iterdir()) == []
    sentence = str(caught.value)
    assert sentence.startswith("vLLM") or re.fullmatch(r"[^\n]+\.", sentence)
    return sentence


def changed(adapter: Path, folder: Path, **config: object) -> Path:
    """A copy of an adapter whose settings differ."""
    shutil.copytree(adapter, folder)
    stated = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8")) | config
    (folder / ADAPTER_CONFIG).write_text(json.dumps(stated), encoding="utf-8")
    return folder


def reweighted(adapter: Path, folder: Path, change: object) -> Path:
    """A copy of an adapter with other tensors."""
    shutil.copytree(adapter, folder)
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    change(tensors)
    save_file(tensors, folder / ADAPTER_WEIGHTS)
    return folder


def headed(adapter: Path, folder: Path, header: dict[str, str]) -> Path:
    """A copy of an adapter whose weights state how they are read."""
    shutil.copytree(adapter, folder)
    save_file(load_file(folder / ADAPTER_WEIGHTS), folder / ADAPTER_WEIGHTS, header)
    return folder


@pytest.fixture(scope="module")
def folder(base: Checkpoint, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A merged adapter, published."""
    output = tmp_path_factory.mktemp("merged") / "mine"
    story = Story(
        data=["four made-up pairs"],
        licence="Apache-2.0",
        config="steps: 5\n",
        metrics={"ndcg@10": 0.5},
    )
    publish(PublishJob(base=base, adapter=adapter, output=output, name="mine", story=story))
    return output


class TestMerged:
    """One folder, looked at from all sides."""

    def test_it_is_alone_and_whole(self, folder: Path) -> None:
        assert [path.name for path in folder.parent.iterdir()] == ["mine"]
        manifest = read_manifest(folder)
        assert manifest
        verify(folder, manifest)
        listed = {
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
        }
        assert listed == {*manifest.files, "manifest.json"}

    def test_it_has_all_that_engines_read(self, folder: Path, base: Checkpoint) -> None:
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            assert (folder / name).read_bytes() == (base.folder / name).read_bytes()
        stated = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        assert {
            "min_pixels": stated["min_pixels"],
            "max_pixels": stated["max_pixels"],
        } == base.manifest.pixels.model_dump()
        assert (folder / "generation_config.json").exists()
        config = (folder / "config.json").read_text(encoding="utf-8")
        assert json.loads(config)["dtype"] == "bfloat16"
        assert "float32" not in config
        assert str(base.folder) not in config

    def test_others_may_read_the_weights(self, folder: Path) -> None:
        assert (folder / "model.safetensors").stat().st_mode == (
            folder / "config.json"
        ).stat().st_mode

    def test_its_weights_are_the_bases_plus_the_adapters(
        self, folder: Path, base: Checkpoint, adapter: Path
    ) -> None:
        """Merged by hand, without peft."""
        before, after = (
            load_file(base.folder / "model.safetensors"),
            load_file(folder / "model.safetensors"),
        )
        deltas = load_file(adapter / ADAPTER_WEIGHTS)
        assert before.keys() == after.keys()
        touched = 0
        for name, weight in before.items():
            module = "base_model.model." + name.removesuffix(".weight").replace(
                "model.", "model.language_model.", 1
            )
            expected = weight.float()
            if f"{module}.lora_A.weight" in deltas:
                touched += 1
                expected = (
                    expected
                    + 2 * deltas[f"{module}.lora_B.weight"] @ deltas[f"{module}.lora_A.weight"]
                )
            torch.testing.assert_close(
                after[name], expected.to(torch.bfloat16), rtol=2**-8, atol=1e-6
            )
        assert touched == len(deltas) // 2 == 12

    def test_its_golden_pairs_are_scored_by_its_own_weights(
        self, folder: Path, base: Checkpoint
    ) -> None:
        pairs, before = read_golden(folder), read_golden(base.folder)
        assert [pair.cell for pair in pairs] == list(CELLS)
        network = Network.from_pretrained(folder, dtype=torch.float32).eval()
        assert logits_of(network, resolve(str(folder)), pairs) == pytest.approx(
            [pair.logit for pair in pairs], abs=1e-5
        )
        assert all(
            abs(pair.logit - other.logit) > 1e-3 for pair, other in zip(pairs, before, strict=True)
        )

    async def test_a_worker_takes_it(self, folder: Path) -> None:
        engine = TorchEngine(device="cpu", threads=1)
        (info,) = await engine.start(resolve(str(folder)))
        assert await check_golden(engine, info, read_golden(folder), None) < TOLERANCE
        await engine.close()

    def test_the_parity_file_has_every_way(self, folder: Path) -> None:
        told = json.loads((folder / "parity.json").read_text(encoding="utf-8"))
        assert set(told["ways"]) == {
            "base",
            "adapter",
            "merged",
            "rounded",
            "reloaded",
            "model card",
            "sentence-transformers",
        }
        assert [set(pair["logits"]) for pair in told["pairs"]] == [set(told["ways"])] * len(CELLS)
        assert all(
            0 <= each["largest"] <= each["tolerance"] for each in told["deviations"].values()
        )
        assert told["deviations"]["rounded"]["largest"] > 0
        assert {
            told["deviations"][way]["tolerance"] for way in ("merged", "reloaded", "model card")
        } == {TOLERANCE}
        assert told["deviations"]["sentence-transformers"]["tolerance"] == 1e-4
        assert told["versions"]["sentence-transformers"] == version("sentence-transformers")

    def test_other_programs_read_it(self, folder: Path) -> None:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        assert [module["path"] for module in modules] == ["", "1_LogitScore"]
        card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
        assert "CrossEncoder(" in card
        assert "vllm serve . " in card
        assert "It was not run when this was published." in card

    def test_card_and_lineage_tell_where_it_comes_from(
        self, folder: Path, base: Checkpoint
    ) -> None:
        card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
        for said in (
            "# mine",
            base.digest,
            "rank 4",
            "four made-up pairs",
            "Apache-2.0",
            "steps: 5",
            "| ndcg@10 | 0.5 |",
            "| Han (Chinese) |",
        ):
            assert said in card
        manifest = read_manifest(folder)
        assert manifest
        assert manifest.lineage["base"] == {
            "name": "base",
            "digest": base.digest,
            "lineage": base.manifest.lineage,
        }
        assert manifest.lineage["metrics"] == {"ndcg@10": 0.5}


def test_float32_loses_nothing(job: MakeJob) -> None:
    made = job(dtype="float32")
    publish(made)
    told = json.loads((made.output / "parity.json").read_text(encoding="utf-8"))
    assert told["deviations"]["rounded"]["largest"] == 0


def test_an_adapter_alone_is_served_by_vllm(job: MakeJob, base: Checkpoint) -> None:
    """vLLM's own engine with its own LoRA, against peft: the parity file is only written where they
    agree."""
    assert VLLM.exists(), "There is no .venv-vllm, the environment with vLLM: `make test` makes it."
    made = job(python_vllm=VLLM, base=base)
    publish(made, merged=False)
    told = json.loads((made.output / "parity.json").read_text(encoding="utf-8"))
    assert told["deviations"]["vllm"]["largest"] < TOLERANCE
    assert told["deviations"]["reloaded"]["largest"] < 1e-5
    manifest = read_manifest(made.output)
    assert manifest
    assert manifest.base == base.digest
    assert str(base.folder) not in (made.output / ADAPTER_CONFIG).read_text(encoding="utf-8")
    assert not {"modules.json", "chat_template.jinja"} & manifest.files.keys()
    assert "vllm serve" not in (made.output / "MODEL_CARD.md").read_text(encoding="utf-8")
    found = resolve_adapter("x", made.output, model=base)
    assert found.rank == 4
    assert [pair.logit for pair in read_golden(made.output)] == pytest.approx(
        [pair["logits"]["adapter"] for pair in told["pairs"]], abs=1e-5
    )


def test_names_of_2025_become_todays(
    job: MakeJob, base: Checkpoint, adapter: Path, tmp_path: Path
) -> None:
    """With a pattern of 2025, which names nothing in today's network."""
    old = changed(
        dated(adapter, tmp_path / "dated"),
        tmp_path / "old",
        target_modules=r"model\.layers\.\d+\..*(q|v|down)_proj",
    )
    made = job(adapter=old)
    publish(made, merged=False)
    assert (
        load_file(made.output / ADAPTER_WEIGHTS).keys()
        == load_file(adapter / ADAPTER_WEIGHTS).keys()
    )
    resolve_adapter("x", made.output, model=base)
    today = Path(shutil.copytree(adapter, tmp_path / "today"))
    pairs = read_golden(base.folder)
    adapted = apply_adapter(
        load_base(base, "cpu"), read_adapter(today), base.decoder
    ).merge_and_unload()
    wanted = logits_of(adapted, base, pairs)
    assert [pair.logit for pair in read_golden(made.output)] == pytest.approx(wanted, abs=1e-4)
    merged = apply_adapter(
        load_base(base, "cpu"), read_adapter(old), base.decoder
    ).merge_and_unload()
    assert logits_of(merged, base, pairs) == pytest.approx(wanted, abs=1e-5)


def test_maps_of_the_vision_tower_are_applied_where_they_are_merged(
    job: MakeJob, base: Checkpoint, tmp_path: Path
) -> None:
    """Beside a base they are refused, see `refuse_unless_fits`."""
    made = job(
        adapter=write_adapter(
            tmp_path / "seeing", targets=r".*visual\..*\.(gate_proj|up_proj)", scale=0.2
        )
    )
    publish(made)
    before, after = (
        load_file(folder / "model.safetensors") for folder in (base.folder, made.output)
    )
    moved = {
        name for name in before if not torch.equal(before[name].to(torch.bfloat16), after[name])
    }
    assert len(moved) == 8
    assert all("visual.blocks." in name for name in moved)


class TestRefused:
    """Before anything is loaded where it can be known, and never with anything left behind."""

    def test_a_folder_that_is_there(self, job: MakeJob) -> None:
        made = job()
        made.output.mkdir(parents=True)
        with pytest.raises(PublishRefused, match="is there already"):
            publish(made)
        assert list(made.output.iterdir()) == []

    @pytest.mark.parametrize("lost", [ADAPTER_CONFIG, ADAPTER_WEIGHTS])
    def test_no_adapter(self, job: MakeJob, adapter: Path, tmp_path: Path, lost: str) -> None:
        folder = changed(adapter, tmp_path / "broken")
        (folder / lost).unlink()
        (folder / "adapter_model.bin").write_bytes(b"a pickle is not read")
        assert "is no LoRA adapter" in refusal(job(adapter=folder))

    @pytest.mark.parametrize(
        "config", [{"peft_type": "IA3"}, {"r": 0}, {"r": "8"}, {"r": 10_000}, {"peft_type": None}]
    )
    def test_an_adapter_of_another_kind(
        self, job: MakeJob, adapter: Path, tmp_path: Path, config: dict[str, object]
    ) -> None:
        assert "broken" in refusal(job(adapter=changed(adapter, tmp_path / "broken", **config)))

    def test_an_adapter_of_another_shape(self, job: MakeJob, adapter: Path, tmp_path: Path) -> None:
        assert "does not fit the base" in refusal(
            job(adapter=changed(adapter, tmp_path / "broken", r=16))
        )

    def test_weights_that_find_no_place(self, job: MakeJob, adapter: Path, tmp_path: Path) -> None:
        def add(tensors: dict[str, torch.Tensor]) -> None:
            tensors["base_model.model.lm_head.lora_A.weight"] = torch.zeros(4, 256)

        assert "has no place for" in refusal(
            job(adapter=reweighted(adapter, tmp_path / "broken", add))
        )

    def test_names_of_no_layout_are_named(
        self, job: MakeJob, adapter: Path, tmp_path: Path
    ) -> None:
        def move(tensors: dict[str, torch.Tensor]) -> None:
            for name in list(tensors):
                tensors[name.replace("base_model.model.", "")] = tensors.pop(name)

        said = refusal(job(adapter=reweighted(adapter, tmp_path / "broken", move)))
        assert "has no place for model.language_model.layers.0." in said

    def test_a_module_that_the_base_lacks_is_named(
        self, job: MakeJob, adapter: Path, tmp_path: Path
    ) -> None:
        def move(tensors: dict[str, torch.Tensor]) -> None:
            for name in list(tensors):
                tensors[name.replace("self_attn.q_proj", "attention.wq")] = tensors.pop(name)

        said = refusal(job(adapter=reweighted(adapter, tmp_path / "broken", move)))
        assert (
            "the base has no place for"
            " base_model.model.model.language_model.layers.0.attention.wq.lora_A.weight." in said
        )

    def test_an_adapter_of_a_larger_base_is_told_by_its_tensor(
        self, job: MakeJob, adapter: Path, tmp_path: Path
    ) -> None:
        def widen(tensors: dict[str, torch.Tensor]) -> None:
            for name, tensor in tensors.items():
                tensors[name] = torch.cat([tensor, tensor], dim=int("lora_A" in name))

        said = refusal(job(adapter=reweighted(adapter, tmp_path / "broken", widen)))
        assert (
            "layers.0.mlp.down_proj.lora_A.weight has the shape [4, 1024], and the base's map has"
            " 512 inputs." in said
        )

    def test_a_head_of_its_own(self, job: MakeJob, adapter: Path, tmp_path: Path) -> None:
        assert "trained with a head of its own" in refusal(
            job(adapter=headed(adapter, tmp_path / "broken", {"gmr.head": "trainable"}))
        )

    def test_another_score_than_the_bases_beside_it(
        self, job: MakeJob, adapter: Path, tmp_path: Path
    ) -> None:
        said = refusal(
            job(adapter=headed(adapter, tmp_path / "broken", {"gmr.read_out": "yes"})), merged=False
        )
        assert "broken was trained for the score yes, and the score of base is yes - no" in said
        assert "read-out 'maybe'" in refusal(job(read_out="maybe"))

    @pytest.mark.filterwarnings("ignore:Found missing adapter keys:UserWarning")
    def test_weights_that_are_missing(self, job: MakeJob, adapter: Path, tmp_path: Path) -> None:
        def lose(tensors: dict[str, torch.Tensor]) -> None:
            tensors.popitem()

        assert "the adapter lacks" in refusal(
            job(adapter=reweighted(adapter, tmp_path / "broken", lose))
        )

    def test_weights_that_are_not_finite(self, job: MakeJob, adapter: Path, tmp_path: Path) -> None:
        def spoil(tensors: dict[str, torch.Tensor]) -> None:
            next(iter(tensors.values()))[0] = torch.nan

        assert "is nan" in refusal(job(adapter=reweighted(adapter, tmp_path / "broken", spoil)))

    def test_an_adapter_that_was_not_trained(self, job: MakeJob, tmp_path: Path) -> None:
        assert "changes no golden pair" in refusal(
            job(adapter=write_adapter(tmp_path / "untrained", scale=0.0))
        )

    @pytest.mark.parametrize(
        ("lost", "said"),
        [
            ("tokenizer_config.json", "no tokenizer_config"),
            ("chat_template.jinja", "no chat template"),
        ],
    )
    def test_a_base_without_what_serving_needs(
        self, job: MakeJob, base: Checkpoint, tmp_path: Path, lost: str, said: str
    ) -> None:
        folder = Path(shutil.copytree(base.folder, tmp_path / "base"))
        (folder / lost).unlink()
        assert said in refusal(job(base=Checkpoint("base", folder, base.manifest)))

    def test_a_base_whose_labels_are_no_tokens(
        self, job: MakeJob, base: Checkpoint, tmp_path: Path
    ) -> None:
        folder = Path(shutil.copytree(base.folder, tmp_path / "base"))
        told = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        told["model"]["merges"] = [
            merge for merge in told["model"]["merges"] if "".join(merge) != "yes"
        ]
        (folder / "tokenizer.json").write_text(json.dumps(told), encoding="utf-8")
        assert "'yes' is" in refusal(job(base=Checkpoint("base", folder, base.manifest)))

    def test_golden_pairs_that_are_nowhere(
        self, job: MakeJob, base: Checkpoint, tmp_path: Path
    ) -> None:
        folder = Path(shutil.copytree(base.folder, tmp_path / "base"))
        (folder / "golden.json").unlink()
        assert "has no golden pairs" in refusal(job(base=Checkpoint("base", folder, base.manifest)))

    def test_an_adapter_that_vllm_has_no_place_for(
        self, job: MakeJob, tmp_path: Path, adapter: Path
    ) -> None:
        folder = write_adapter(tmp_path / "visual", targets=r".*visual.*\.(qkv|proj)")
        assert "adapts the vision tower" in refusal(job(adapter=folder), merged=False)
        dora = changed(adapter, tmp_path / "dora", use_dora=True)
        assert "the option use_dora" in refusal(job(adapter=dora), merged=False)

    def test_a_disk_that_takes_no_more(self, job: MakeJob) -> None:
        with file_size_limit(2**20):
            assert "cannot be written" in refusal(job())

    @pytest.mark.parametrize(
        ("script", "said"),
        [
            ("echo '[0, 0, 0]' > $3", "is allowed"),
            ("echo '[0, 0]' > $3", "gave 2 logits for 3 pairs"),
            ("echo it broke; exit 1", "it broke"),
            ("kill -9 $$", "vLLM gave no logits"),
        ],
    )
    def test_another_engine_that_disagrees_or_fails(
        self, job: MakeJob, tmp_path: Path, script: str, said: str
    ) -> None:
        python = tmp_path / "python"
        python.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        python.chmod(0o755)
        assert said in refusal(job(python_vllm=python), merged=False)

    def test_an_engine_that_cannot_be_run(self, job: MakeJob, tmp_path: Path) -> None:
        assert "cannot be run" in refusal(job(python_vllm=tmp_path / "nowhere"), merged=False)


async def test_an_adapter_of_contrastive_learning_is_served_by_its_yes_alone(
    job: MakeJob, base: Checkpoint, adapter: Path, tmp_path: Path
) -> None:
    """Merged, as a checkpoint whose manifest names the read-out (paper, eq. 2)."""
    made = job(adapter=headed(adapter, tmp_path / "contrastive", {"gmr.read_out": "yes"}))
    publish(made)
    published = resolve(str(made.output))
    assert published.manifest.read_out == "yes"
    record = json.loads((made.output / "parity.json").read_text(encoding="utf-8"))
    assert record["unit"] == "logit(yes)"
    assert "model card" not in record["ways"]
    assert record["deviations"]["sentence-transformers"]["largest"] < 1e-4
    score = json.loads((made.output / "1_LogitScore/config.json").read_text(encoding="utf-8"))
    assert score["false_token_id"] is None
    assert "the score\nis logit(yes)." in (made.output / "MODEL_CARD.md").read_text()

    network = Network.from_pretrained(made.output, dtype=torch.float32).eval()
    both = logits_of(network, base, read_golden(made.output))
    golden = read_golden(made.output)
    assert all(abs(pair.logit - pairs) > 0.1 for pair, pairs in zip(golden, both, strict=True))
    engine = TorchEngine(device="cpu", threads=1)
    (info,) = await engine.start(published)
    assert await check_golden(engine, info, golden, None) < TOLERANCE
    await engine.close()


def test_an_adapter_of_another_template_is_published_merged_with_that_template(
    job: MakeJob, base: Checkpoint, adapter: Path, tmp_path: Path
) -> None:
    header = {"gmr.template": "document-first"}
    made = job(adapter=headed(adapter, tmp_path / "document-first", header))
    assert "by which it would be read beside it: publish it merged." in refusal(made, merged=False)

    publish(made)
    published = resolve(str(made.output))
    assert published.manifest.template == "document-first"
    assert published.family.cacheable_side == "document"
    record = json.loads((made.output / "parity.json").read_text(encoding="utf-8"))
    assert record["deviations"]["sentence-transformers"]["largest"] < 1e-4
    template = (made.output / "chat_template.jinja").read_text(encoding="utf-8")
    assert template.index("<Document>:") < template.index("<Query>:")
    assert "template document-first" in (made.output / "MODEL_CARD.md").read_text()

    network = Network.from_pretrained(made.output, dtype=torch.float32).eval()
    golden = read_golden(made.output)
    found = logits_of(network, published, golden)
    assert found == pytest.approx([pair.logit for pair in golden], abs=TOLERANCE)
    assert found != pytest.approx(logits_of(network, base, golden), abs=0.1)


def die_at(stage: str, job: PublishJob) -> None:
    """Publish, and end without any clean-up when `stage` begins."""
    torch.set_num_threads(1)
    publish(job, report=lambda line: os._exit(9) if line.startswith(stage) else None)


@pytest.mark.parametrize("stage", ["reading", "writing the card"])
def test_a_killed_job_leaves_nothing_that_resolves(job: MakeJob, stage: str) -> None:
    made = job()
    process = multiprocessing.get_context("spawn").Process(target=die_at, args=(stage, made))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert not made.output.exists()
    (left,) = made.output.parent.iterdir()
    assert (left / "model.safetensors").exists()
    with pytest.raises(CheckpointUnusable, match=r"not published to the end"):
        resolve(str(left))
