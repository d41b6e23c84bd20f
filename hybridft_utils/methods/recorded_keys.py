"""Record the keys and values that a model's attention layers compute for a text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "record_keys_and_values"


@torch.no_grad()
def record_keys_and_values(
    model: PreTrainedModel, ids: Tensor, positions: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Each layer's keys and values for the tokens ``ids`` (length,) at ``positions`` (length,).

    Both are (key-value heads, length, head width); rotary models' keys are already rotated.
    """
    kept: list[tuple[Tensor, Tensor]] = []

    def record(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **options: Any):
        kept.append((key[0].clone(), value[0].clone()))
        return sdpa_attention_forward(module, query, key, value, mask, **options)

    AttentionInterface.register(NAME, record)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    before, training = model.config._attn_implementation, [m for m in model.modules() if m.training]
    try:
        model.config._attn_implementation = NAME
        model.eval()
        model.base_model(input_ids=ids[None].to(model.device), position_ids=positions[None].to(model.device))
    finally:
        model.config._attn_implementation = before
        for module in training:
            module.training = True
    return kept
