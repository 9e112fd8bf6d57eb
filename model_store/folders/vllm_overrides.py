"""Overrides of a checkpoint's `config.json`, the same wherever this project starts vLLM.

Depends on the form of vLLM's `hf_overrides`, not on vLLM. Invariant: with them, all layouts of
`config.json` that hubs have give the same network and read-out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model_store.families.readout import ReadOut, SingleLabel
from model_store.folders.plain import read_config
from model_store.folders.tensors import tensors_of_file
from model_store.folders.weights import weight_files
from model_store.manifest import CheckpointUnusable
from model_store.networks.catalogue import of_config
from model_store.networks.jina_vl import JINA_VL


def vllm_overrides(name: str, folder: Path, readout: ReadOut) -> dict[str, Any]:
    """`hf_overrides` of a folder whose scores are read by `readout`.

    Of a list of architectures vLLM takes the first that it has, so the one that is served is named.
    Raises `CheckpointUnusable` where `config.json` cannot be read, and for weights that vLLM does
    not find by their names.
    """
    config = read_config(name, folder)
    architecture = of_config(name, config)
    if architecture.name == JINA_VL.name:
        _refuse_new_names(name, folder)
    classifier, network = readout.vllm_classifier(), architecture.vllm_overrides(config)

    text = network.get("text_config")
    if text is not None and isinstance(readout, SingleLabel):
        # for this method vLLM reads the token from the text's configuration alone
        text["classifier_from_token"] = classifier["classifier_from_token"]
    return {"architectures": [architecture.name], **classifier, **network}


def _refuse_new_names(name: str, folder: Path) -> None:
    """Raise `CheckpointUnusable` for names of the vision tower that vLLM's class of
    jina-reranker-m0 does not know: those that transformers has since 4.52."""
    if not any(folder.glob("*.safetensors")):
        return  # weights that vLLM makes up have no names in a file

    new, old = JINA_VL.vision.prefix, JINA_VL.oldest_name(JINA_VL.vision.prefix)
    for file in weight_files(name, folder):
        for tensor in tensors_of_file(name, folder, file):
            if tensor.name.startswith(new):
                raise CheckpointUnusable(
                    f"{name}: vLLM does not find {tensor.name} in {file}: rename {new}* to {old}*,"
                    " or set RERANK_ENGINE=torch."
                )
