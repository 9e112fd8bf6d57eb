"""A checkpoint's files in the form of a sentence-transformers `CrossEncoder`, and the command of
vLLM's server for the same folder.

Depends on manifests, templates and read-outs, and loads no network. Invariant: the files decide
nothing that the manifest does not, so the same checkpoint always gets the same files.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model_store.checkpoint import Checkpoint
from model_store.families.readout import LabelPair, SingleLabel, Transform
from model_store.folders.chat_template import (
    CHAT_TEMPLATE,
    expressible_family,
    pair_template,
    without_pairs,
)
from model_store.folders.vllm_overrides import vllm_overrides

LOGIT_SCORE = "1_LogitScore"
OLDEST = "5.4"
"""The first version of sentence-transformers that reads this form."""
_LOGITS = "causal_logits"
_PROMPT = "default"
_SIGMOID = "torch.nn.modules.activation.Sigmoid"
_IDENTITY = "torch.nn.modules.linear.Identity"
_SIDES = '\nA side is a text, a PIL image, or `{"image": image, "text": text}`.'
HEADING = "## Other programs"
_OTHER_PROGRAMS = """\
Other programs read this folder as it is; both commands are for a shell in it. Unlike the service,
they take control tokens in a text for control tokens.

sentence-transformers {oldest} or newer{torchvision}:

```python
from sentence_transformers import CrossEncoder

model = CrossEncoder(".", model_kwargs={{"dtype": "float32"}})
scores = model.predict([("a query", "a document")])
```

The scores are {kind}. `predict` takes an instruction as `prompt`.{sides}

vLLM's server, whose `/score` and `/rerank` take an `instruction`:

```sh
{command}
```

{run} Without `--dtype` and `dtype` both compute in the precision in which the weights are stored.
"""
_BOTH_SIDES = """
With pictures on both sides of a pair these programs would swap them, since the prompt begins with
the document: the template refuses such a pair. `predict` takes it as two messages of the roles
`document` and `query`, in this order."""
_TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
_LOGIT_SCORE = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"


def is_portable(checkpoint: Checkpoint) -> bool:
    """True where the form can express the checkpoint's prompt and read-out."""
    expressible = expressible_family(checkpoint.manifest) is not None
    return expressible and isinstance(checkpoint.readout, LabelPair | SingleLabel)


def write_portable(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the form's files into a folder, beside the network's and the tokenizer's.

    A chat template that is there already stays in use for messages that are no pair. Raises
    `OSError`.
    """
    for name, content in portable_files(checkpoint).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    path = folder / CHAT_TEMPLATE
    others = without_pairs(path.read_text(encoding="utf-8")) if path.exists() else ""
    path.write_text(pair_template(checkpoint.manifest, others), encoding="utf-8")


def portable_files(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """The form's JSON files by name."""
    manifest, family = checkpoint.manifest, checkpoint.family
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": _TRANSFORMER},
        {"idx": 1, "name": "1", "path": LOGIT_SCORE, "type": _LOGIT_SCORE},
    ]
    prompts = {_PROMPT: manifest.default_instruction} if family.takes_instruction else {}
    settings = {
        "model_type": "CrossEncoder",
        "activation_fn": _SIGMOID if _is_sigmoid(checkpoint) else _IDENTITY,
        "prompts": prompts,
        "default_prompt_name": _PROMPT if prompts else None,
    }
    true_id, false_id = (*family.label_ids, None)[:2]
    score = {"true_token_id": true_id, "false_token_id": false_id, "module_input_name": _LOGITS}
    return {
        "modules.json": modules,
        "config_sentence_transformers.json": settings,
        "sentence_bert_config.json": _transformer(checkpoint),
        f"{LOGIT_SCORE}/config.json": score,
    }


def _is_sigmoid(checkpoint: Checkpoint) -> bool:
    return checkpoint.transform == Transform()


def _transformer(checkpoint: Checkpoint) -> dict[str, Any]:
    """The settings of the form's first module."""
    reads_images = checkpoint.family.images is not None
    forward = {"method": "forward", "method_output_name": "logits"}
    modalities: dict[str, Any] = {"text": forward}
    if reads_images:
        modalities["image"] = forward
    modalities["message"] = forward | {"format": "structured"}
    return {
        "transformer_task": "any-to-any" if reads_images else "text-generation",
        "modality_config": modalities,
        "module_output_name": _LOGITS,
        "max_seq_length": checkpoint.manifest.max_tokens,
    }


def _sides(checkpoint: Checkpoint) -> str:
    document_first = checkpoint.family.cacheable_side == "document"
    return _SIDES + _BOTH_SIDES if document_first else _SIDES


def vllm_command(checkpoint: Checkpoint) -> list[str]:
    """The command of vLLM's server, to be run in the checkpoint's folder."""
    overrides = vllm_overrides(checkpoint.name, checkpoint.folder, checkpoint.readout)
    return [
        *("vllm", "serve", "."),
        *("--served-model-name", checkpoint.name),
        *("--runner", "pooling", "--convert", "classify"),
        *("--hf-overrides", json.dumps(overrides)),
        *("--chat-template", CHAT_TEMPLATE),
        *("--max-model-len", str(checkpoint.manifest.max_tokens)),
        *("--dtype", "float32"),
    ]


def other_programs(checkpoint: Checkpoint, vllm_version: str | None) -> list[str]:
    """The model card's lines on other programs; none where the form cannot express the checkpoint.

    `vllm_version` is that of the server that computed the golden pairs' logits; None: none did.
    """
    if not is_portable(checkpoint):
        return []

    reads_images = checkpoint.family.images is not None
    run = "It was not run when this was published."
    if vllm_version:
        run = f"It was run with vLLM {vllm_version}, see Parity."
    text = _OTHER_PROGRAMS.format(
        oldest=OLDEST,
        torchvision=" and torchvision" if reads_images else "",
        sides=_sides(checkpoint) if reads_images else "",
        kind="between 0 and 1" if _is_sigmoid(checkpoint) else "raw scores",
        command=_shell(vllm_command(checkpoint)),
        run=run,
    )
    return [HEADING, "", *text.splitlines()]


def _shell(command: Sequence[str]) -> str:
    """A command for a shell, one option a line."""
    lines = [""]
    for word in command:
        separator = " \\\n  " if word.startswith("--") else " "
        lines.append(separator + shlex.quote(word))
    return "".join(lines).strip()
