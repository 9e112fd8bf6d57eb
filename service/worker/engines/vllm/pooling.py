"""vLLM's parameters of one pair: the raw output of the classifier, and the types of its tokens.

Depends on prompts and vLLM's `PoolingParams`, not on an engine. Invariant: no activation is
applied, so that scores are the read-out's.
"""

from __future__ import annotations

from vllm.pooling_params import PoolingParams

from model_store.families.prompt import Prompt


def pooling_params(prompt: Prompt) -> PoolingParams:
    """The parameters of a pair; vLLM takes types as the index of the first token of type 1."""
    params = PoolingParams(task="classify", use_activation=False)
    if any(prompt.types):
        params.extra_kwargs = {"compressed_token_type_ids": prompt.types.index(1)}
    return params
