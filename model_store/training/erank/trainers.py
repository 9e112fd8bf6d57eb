"""The two trainers of TRL, made from configurations and token ids.

Depends on TRL, transformers and peft, not on rows or files of this project. Invariant: the ids of a
prompt reach the network as they were rendered; nothing is tokenized again, cut or shuffled here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from peft import LoraConfig as PeftSettings
from transformers import PreTrainedTokenizerFast, PrinterCallback
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from model_store.training.erank.answer_head import IGNORED, score_answers_alone
from model_store.training.erank.config import ErankRun, GeneratedRun, GrpoRun
from model_store.training.erank.pairs import QueryPair, TaughtPair

RewardOf = Callable[[Sequence[str], Sequence[int]], list[float]]
"""From the texts of answers, and the numbers of the pairs that they answer, to rewards."""


class RenderedTokenizer(PreTrainedTokenizerFast):  # type: ignore[misc]
    """A checkpoint's tokenizer that takes a number for a prompt, and gives the ids of that prompt.

    TRL tokenizes prompts from text, by which a user's `<|im_end|>` would become a control token.
    """

    rendered: Sequence[Sequence[int]] = ()

    def __call__(self, text: Any = None, *args: Any, **options: Any) -> Any:
        if isinstance(text, list) and text and all(each.isdigit() for each in text):
            return {"input_ids": [list(self.rendered[int(each)]) for each in text]}
        return super().__call__(text, *args, **options)


def open_tokenizer(folder: Path, end: int) -> RenderedTokenizer:
    """The folder's tokenizer, with `end` as the token that ends an answer."""
    tokenizer: RenderedTokenizer = RenderedTokenizer.from_pretrained(folder, local_files_only=True)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def sft_trainer(
    run: GeneratedRun,
    network: Any,
    tokenizer: RenderedTokenizer,
    *,
    pairs: Sequence[TaughtPair],
    maps: PeftSettings,
    states: Path,
    steps: int,
) -> SFTTrainer:
    """The trainer of the first stage; the loss is on the answers alone."""
    disable_progress_bar()
    rows: dict[str, list[Any]] = {"input_ids": [], "labels": []}
    for pair in pairs:
        labels = pair.ids.copy()
        labels[: pair.prompt_tokens] = IGNORED
        rows["input_ids"].append(pair.ids)
        rows["labels"].append(labels)

    settings = SFTConfig(
        **_arguments(run, states, steps),
        per_device_train_batch_size=run.batch.pairs_at_once,
        gradient_accumulation_steps=run.batch.pairs // run.batch.pairs_at_once,
        gradient_checkpointing=run.batch.checkpointing,
        max_length=None,
        packing=False,
        completion_only_loss=None,
    )
    with _quiet():
        return _prepared(
            SFTTrainer(
                model=network,
                args=settings,
                train_dataset=Dataset.from_dict(rows),
                processing_class=tokenizer,
                peft_config=maps,
            )
        )


def grpo_trainer(
    run: GrpoRun,
    network: Any,
    tokenizer: RenderedTokenizer,
    *,
    pairs: Sequence[QueryPair],
    order: Sequence[int],
    reward: RewardOf,
    maps: PeftSettings,
    states: Path,
) -> GRPOTrainer:
    """The trainer of the second stage; `order` are numbers of `pairs`, a query's together, for all
    steps."""
    disable_progress_bar()
    tokenizer.rendered = [pair.prompt for pair in pairs]
    numbers = np.asarray(order, np.int32)
    rows = {"prompt": [str(number) for number in order], "pair": numbers}

    def rewarded(completions: list[str], pair: list[int], **_: Any) -> list[float]:
        return reward(completions, pair)

    rollouts = run.rollouts
    total = run.data.documents * rollouts.answers
    settings = GRPOConfig(
        **_arguments(run, states, len(order) // run.data.documents),
        per_device_train_batch_size=rollouts.answers_at_once,
        gradient_accumulation_steps=total // rollouts.answers_at_once,
        gradient_checkpointing=rollouts.checkpointing,
        num_generations=rollouts.answers,
        max_completion_length=rollouts.max_tokens,
        temperature=rollouts.temperature,
        top_p=1.0,
        top_k=0,
        beta=run.kl,
        loss_type="grpo",
        scale_rewards="group",
        shuffle_dataset=False,
        use_vllm=False,
    )
    with _quiet():
        return _prepared(
            GRPOTrainer(
                model=network,
                reward_funcs=rewarded,
                args=settings,
                train_dataset=Dataset.from_dict(rows),
                processing_class=tokenizer,
                peft_config=maps,
            ),
            run.rollouts.temperature,
        )


def _arguments(run: ErankRun, states: Path, steps: int) -> Mapping[str, Any]:
    """Arguments that both trainers share."""
    settings = run.optimizer
    schedule = {"constant": "constant_with_warmup"}.get(settings.schedule, settings.schedule)
    return {
        "output_dir": str(states),
        "max_steps": steps,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.clip,
        "lr_scheduler_type": schedule,
        "warmup_steps": round(settings.warmup * steps),
        "seed": run.seed,
        "data_seed": run.seed,
        "save_strategy": "steps",
        "save_steps": run.save_every,
        "save_total_limit": run.keep,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "bf16": run.precision == "bf16",
        "use_cpu": run.device == "cpu" or not torch.cuda.is_available(),
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "dataloader_num_workers": 0,
        "optim": "adamw_torch",
    }


def _prepared(trainer: Any, temperature: float = 1.0) -> Any:
    """Take away what prints every log, since the run has its own lines, and the logits of
    prompts."""
    trainer.remove_callback(PrinterCallback)
    score_answers_alone(trainer.model.get_base_model(), temperature)
    return trainer


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings of libraries on arguments that are meant as they are."""
    with warnings.catch_warnings(action="ignore"):
        yield
