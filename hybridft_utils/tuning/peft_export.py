"""Write PEFT's folders: ``adapter_config.json`` and ``adapter_model.safetensors``.

Such a folder holds one method, so one LoRA, one prefix or one soft prompt is written, with whole
classification heads beside it.  What it has no place for is refused with the reason.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from transformers.pytorch_utils import Conv1D

from ..errors import InputError
from ..methods.architectures import path_of
from ..methods.lora import LoRA, LoRALinear
from ..methods.prefix import Prefix, PrefixKV
from .attached import Attached
from .peft_folder import (
    LORA_A,
    LORA_B,
    LORA_BASE,
    PROMPT_BASE,
    refuse_pooled_prompt,
    task_type,
    write_adapter,
)


def export_peft(tuning: Attached, folder: str | Path) -> None:
    """Write ``tuning`` as a folder that ``PeftModel.from_pretrained`` loads with equal logits.

    A prefix of a rotary model with ``positions="keep"`` is rotated by its length, since PEFT moves the text
    by the length of the prefix.  Raises :class:`InputError` with the reason for what PEFT cannot hold, and for
    a ``folder`` that holds an adapter of other settings.
    """
    tuning.need_attached("export_peft()")
    exporters = {"lora": export_lora, "prefix": export_prefix, "prompt": export_prompt}
    kinds = {p.method for p in tuning.parts}
    if len(kinds) != 1 or not kinds <= exporters.keys():
        given = " + ".join(m.kind for m in tuning.methods)
        accepted = "one LoRA, one prefix or one soft prompt; a folder of PEFT's holds no more"
        raise InputError("export_peft()", given, accepted)
    if tuning.gating is not None:
        raise InputError("export_peft()", f"gating={tuning.gating}", "a tuning without gates; PEFT has none")
    kind = kinds.pop()
    settings, state = exporters[kind](tuning)
    heads = head_tensors(tuning)
    if heads and kind != "lora" and task_type(tuning.model) != "SEQ_CLS":
        raise InputError("export_peft()", f"{kind} with {', '.join(heads)}", "LoRA, or a sequence classifier")
    base = LORA_BASE if kind == "lora" else PROMPT_BASE
    state |= {f"{base}.{name}": t for tensors in heads.values() for name, t in tensors.items()}
    common = {
        "task_type": task_type(tuning.model) or (None if kind == "lora" else "FEATURE_EXTRACTION"),
        "base_model_name_or_path": tuning.model.config._name_or_path or None,
        "inference_mode": True,
        "modules_to_save": list(heads) or None,
    }
    write_adapter(Path(folder), {**settings, **common}, state)


def export_lora(tuning: Attached) -> tuple[dict[str, Any], dict[str, Tensor]]:
    method = next(m for m in tuning.methods if isinstance(m, LoRA))
    parts = {inside(tuning, part.name): part.module for part in tuning.parts}
    layers = {name: module for name, module in parts.items() if isinstance(module, LoRALinear)}
    ranks = {name: len(layer.lora_A) for name, layer in layers.items()}
    alphas = {name: layer.scaling * ranks[name] for name, layer in layers.items()}
    settings = {
        "peft_type": "LORA",
        "r": method.rank,
        "lora_alpha": method.alpha,
        "lora_dropout": method.dropout,
        "target_modules": list(layers),
        "rank_pattern": {name: rank for name, rank in ranks.items() if rank != method.rank},
        "alpha_pattern": {name: alpha for name, alpha in alphas.items() if alpha != method.alpha},
        "fan_in_fan_out": any(isinstance(layer.base, Conv1D) for layer in layers.values()),
    }
    state = {}
    for name, layer in layers.items():
        state[f"{LORA_BASE}.{name}{LORA_A}"] = layer.lora_A.detach()
        state[f"{LORA_BASE}.{name}{LORA_B}"] = layer.lora_B.detach()
    return settings, state


@torch.no_grad()
def export_prefix(tuning: Attached) -> tuple[dict[str, Any], dict[str, Tensor]]:
    method = next(m for m in tuning.methods if isinstance(m, Prefix))
    if method.softmax != "joint":
        accepted = "softmax='joint': PEFT's prefix shares one softmax with the text"
        raise InputError("export_peft()", f"a prefix with softmax={method.softmax!r}", accepted)
    if method.gated:
        raise InputError("export_peft()", "a gated prefix", "a prefix without a gate; PEFT has none")
    layers = []
    for part in tuning.parts:
        prefix: PrefixKV = part.module  # type: ignore[assignment]
        key, value = prefix.keys_and_values()
        if method.positions == "keep":
            key = rotated(tuning, key, method.length)
        layers.append(torch.stack([key, value]))  # (2, heads, length, head width)
    flat = torch.stack(layers).permute(3, 0, 1, 2, 4).reshape(method.length, -1)
    settings = {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": method.length}
    return settings, {"prompt_embeddings": flat}


def rotated(tuning: Attached, key: Tensor, by: int) -> Tensor:
    """Keys (heads, length, head width) as they are ``by`` positions further on."""
    rotary = getattr(tuning.host.inner, "rotary_emb", None)
    if rotary is None:
        accepted = "positions='shift': PEFT moves the text's positions, and this model's cannot be moved back"
        raise InputError("export_peft()", "a prefix with positions='keep'", accepted)
    if getattr(rotary, "rope_type", "default") in ("dynamic", "longrope"):
        raise InputError(
            "export_peft()",
            f"{rotary.rope_type} rotary positions",
            "rotations that do not depend on the length",
        )
    cos, sin = rotary(key[None], torch.tensor([[by]], device=key.device))
    cos, sin = (t / rotary.attention_scaling for t in (cos, sin))
    return apply_rotary_pos_emb(key[None], key[None], cos, sin)[1][0]


def export_prompt(tuning: Attached) -> tuple[dict[str, Any], dict[str, Tensor]]:
    refuse_pooled_prompt("export_peft()", tuning.model)
    (embeddings,) = tuning.state_dict().values()
    settings = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": len(embeddings)}
    return settings, {"prompt_embeddings": embeddings}


def head_tensors(tuning: Attached) -> dict[str, dict[str, Tensor]]:
    """Each head's tensors by its name: heads trained in place, and a classifier's head, trained or not."""
    modules = {inside(tuning, n).split(".")[0] for n, _ in tuning.named_parameters() if n in tuning.in_place}
    if task_type(tuning.model) == "SEQ_CLS":
        modules |= {n for n, m in tuning.model.named_children() if m is not tuning.host.inner}
    frozen, heads = set(tuning.host.inner.parameters()), {}
    for module in sorted(modules):
        held = dict(tuning.model.get_submodule(module).named_parameters(prefix=module))
        if frozen & set(held.values()) or any(".lora_" in name for name in held):
            raise InputError(
                "export_peft()", f"{module} trained in place", "whole heads trained in place, at most"
            )
        if held:
            heads[module] = {name: parameter.detach() for name, parameter in held.items()}
    return heads


def inside(tuning: Attached, name: str) -> str:
    """``name`` as seen from the transformers model."""
    start = path_of(tuning.root, tuning.model)
    if start and not name.startswith(f"{start}."):
        raise InputError("export_peft()", name, f"parameters inside {type(tuning.model).__name__}")
    return name[len(start) :].removeprefix(".")
