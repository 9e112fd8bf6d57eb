"""bf16 is chosen where the machine has its instructions, and what is chosen is said."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
import torch

from model_store.training.config import load_config
from model_store.training.precision import choose_precision
from model_store.training.train import train
from tests.model_store.training.test_train import config

OLD = "processor : 0\nflags\t\t: fpu avx2 avx512f avx512bw\n"
NEW = OLD.replace("avx512bw", "avx512bw avx512_bf16")
ARM = "processor : 0\nFeatures\t: fp asimd i8mm bf16\n"


def listed(folder: Path, text: str) -> Path:
    path = folder / "cpuinfo"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "wanted"), [(OLD, "fp32"), (NEW, "bf16"), (ARM, "bf16"), ("", "fp32")]
)
def test_a_cpu_without_the_instructions_computes_in_fp32(
    tmp_path: Path, text: str, wanted: str
) -> None:
    chosen, said = choose_precision("auto", "cpu", listed(tmp_path, text))
    assert chosen == wanted
    assert (
        said == f"precision auto: {wanted}, since this CPU has {'no ' * (wanted == 'fp32')}bf16"
        " instructions."
    )


def test_what_was_asked_for_is_kept_and_said_to_be_slow(tmp_path: Path) -> None:
    assert choose_precision("fp32", "cpu", listed(tmp_path, NEW)) == ("fp32", None)
    assert choose_precision("bf16", "cpu", listed(tmp_path, NEW)) == ("bf16", None)
    chosen, said = choose_precision("bf16", "cpu", listed(tmp_path, OLD))
    assert chosen == "bf16"
    assert said
    assert "several times faster" in said


def test_no_list_of_processors_means_fp32(tmp_path: Path) -> None:
    assert choose_precision("auto", "cpu", tmp_path / "nowhere")[0] == "fp32"


@pytest.mark.parametrize("has", [True, False])
def test_a_gpu_is_asked_by_torch(monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: has and not including_emulation
    )
    assert choose_precision("auto", "cuda")[0] == ("bf16" if has else "fp32")


def test_gmr_tinys_configuration_leaves_it_to_the_machine() -> None:
    assert load_config("gmr-tiny").precision == "auto"
    assert load_config("gmr-3b").precision == "bf16"


@pytest.mark.slow
def test_a_run_says_and_keeps_what_was_chosen(tmp_path: Path) -> None:
    """A machine of the other kind does not go on with it: it would leave other weights."""
    shown = StringIO()
    old = listed(tmp_path, OLD)
    run = train(config(tmp_path, steps=1, precision="auto"), stream=shown, cpuinfo=old)
    assert "precision auto: fp32, since this CPU has no bf16 instructions." in shown.getvalue()
    assert '"precision": "fp32"' in (run / "manifest.json").read_text(encoding="utf-8")
    assert train(config(tmp_path, steps=1, precision="fp32"), stream=StringIO()) == run
