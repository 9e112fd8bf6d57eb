"""Overrides of a checkpoint's `config.json`, the same wherever this project starts vLLM.

Depends on the form of vLLM's `hf_overrides`, not on vLLM. Invariant: with them, all layouts of
`config.json` that hubs have give the same network and read-out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model_store.families.readout import ReadOut, SingleLabel
from model_store.folders.plain import read_config
from model_store.networks.catalogue import of_config


def vllm_overrides(name: str, folder: Path, readout: ReadOut) -> dict[str, Any]:
    """`hf_overrides` of a folder whose scores are read by `readout`.

    Of a list of architectures vLLM takes the first that it has, so the one that is served is named.
    Raises `CheckpointUnusable` where `config.json` cannot be read.
    """
    config = read_config(name, folder)
    architecture = of_config(name, config)
    classifier, network = readout.vllm_classifier(), architecture.vllm_overrides(config)

    text = network.get("text_config")
    if text is not None and isinstance(readout, SingleLabel):
        # for this method vLLM reads the token from the text's configuration alone
        text["classifier_from_token"] = classifier["classifier_from_token"]
    return {"architectures": [architecture.name], **classifier, **network}
