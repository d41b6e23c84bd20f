"""PEFT's folders, out and in: ``adapter_config.json`` and ``adapter_model.safetensors``.

PEFT holds one method at a time, so one LoRA, one prefix or one soft prompt is written, with whole
classification heads beside it.  What it has no place for is refused with the reason.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from transformers.pytorch_utils import Conv1D

from ..errors import InputError
from ..methods.architectures import find_architecture, find_transformer, join, key_value_shape, path_of
from ..methods.lora import LoRA, LoRALinear
from ..methods.parts import Host, Method
from ..methods.prefix import Prefix, PrefixKV
from ..methods.soft_prompt import SoftPrompt
from .attach import Tuning
from .saved_folder import attach_state, read_settings, read_tensors, write_folder

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LORA_A, LORA_B = ".lora_A.weight", ".lora_B.weight"
PROMPT_SETTINGS = {"num_virtual_tokens", "num_transformer_submodules"}
#: Where PEFT's wrapper keeps the base model, which starts the names of saved tensors.
LORA_BASE, PROMPT_BASE = "base_model.model", "base_model"
#: Settings that say how PEFT trained or where it came from, and change nothing in a finished tuning.
HARMLESS = {
    *("auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "peft_version", "task_type"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out"),
    *("init_weights", "encoder_hidden_size", "prefix_projection", "encoder_reparameterization_type"),
    *("encoder_num_layers", "encoder_dropout", "prompt_tuning_init", "prompt_tuning_init_text"),
    *("tokenizer_name_or_path", "tokenizer_kwargs", "megatron_core", "qalora_group_size", "eva_config"),
    *("token_dim", "num_layers", "num_attention_heads", "ensure_weight_tying"),
    *("peft_type", "modules_to_save"),
}
#: LoRA starts that leave the base's own weights alone.
PLAIN_STARTS = (True, False, "gaussian", "eva", "orthogonal")


def export_peft(tuning: Tuning, folder: str | Path) -> None:
    """Write ``tuning`` as a folder that ``PeftModel.from_pretrained`` loads with equal logits.

    A prefix of a rotary model with ``positions="keep"`` is rotated by its length, since PEFT moves
    the text behind the prefix.  Raises :class:`InputError` with the reason for what PEFT cannot hold.
    """
    tuning.need_attached("export_peft()")
    exporters = {"lora": export_lora, "prefix": export_prefix, "prompt": export_prompt}
    kinds = {p.method for p in tuning.parts}
    if len(kinds) != 1 or not kinds <= exporters.keys():
        given = " + ".join(m.kind for m in tuning.methods)
        raise InputError(
            "export_peft()", given, "one LoRA, one prefix or one soft prompt; PEFT holds no more"
        )
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
    write_folder(folder, {**settings, **common}, CONFIG, state, WEIGHTS)


def export_lora(tuning: Tuning) -> tuple[dict[str, Any], dict[str, Tensor]]:
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
def export_prefix(tuning: Tuning) -> tuple[dict[str, Any], dict[str, Tensor]]:
    method = next(m for m in tuning.methods if isinstance(m, Prefix))
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


def rotated(tuning: Tuning, key: Tensor, by: int) -> Tensor:
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


def export_prompt(tuning: Tuning) -> tuple[dict[str, Any], dict[str, Tensor]]:
    refuse_pooled_prompt("export_peft()", tuning.model)
    (embeddings,) = tuning.state_dict().values()
    settings = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": len(embeddings)}
    return settings, {"prompt_embeddings": embeddings}


def refuse_pooled_prompt(parameter: str, model: PreTrainedModel) -> None:
    """PEFT's classifiers with a soft prompt pool a prompt vector or padding instead of the text."""
    if task_type(model) == "SEQ_CLS":
        raise InputError(
            parameter,
            f"a soft prompt on {type(model).__name__}",
            "a language model: PEFT pools the wrong token",
        )


def head_tensors(tuning: Tuning) -> dict[str, dict[str, Tensor]]:
    """Heads trained in place, and a classifier's whether trained or not: a head's tensors by its name."""
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


def inside(tuning: Tuning, name: str) -> str:
    """``name`` as seen from the transformers model."""
    start = path_of(tuning.root, tuning.model)
    if start and not name.startswith(f"{start}."):
        raise InputError("export_peft()", name, f"parameters inside {type(tuning.model).__name__}")
    return name[len(start) :].removeprefix(".")


def task_type(model: PreTrainedModel) -> str | None:
    """PEFT's name of the model's task; None where it has none."""
    names = {"ForSequenceClassification": "SEQ_CLS", "ForCausalLM": "CAUSAL_LM", "LMHeadModel": "CAUSAL_LM"}
    return next((task for ending, task in names.items() if type(model).__name__.endswith(ending)), None)


def import_peft(model: nn.Module, folder: str | Path) -> Tuning:
    """Attach what PEFT saved in ``folder`` to ``model``: LoRA, prefix-tuning or prompt tuning.

    A prefix is read with ``positions="shift"``, and p-tuning as the soft prompt it saved.  Raises
    :class:`InputError` with the reason for what this package cannot express.
    """
    config, tensors = read_settings(folder, CONFIG), read_tensors(folder, WEIGHTS)
    kind = config.get("peft_type")
    importers = {
        "LORA": import_lora,
        "PREFIX_TUNING": import_prefix,
        "PROMPT_TUNING": import_prompt,
        "P_TUNING": import_prompt,
    }
    if kind not in importers:
        raise InputError("peft_type", kind, ", ".join(importers))
    transformer = find_transformer(model)
    start = path_of(model, transformer)
    try:
        methods, state, read = importers[kind](model, config, tensors, start)
    except (KeyError, TypeError, AttributeError, re.error) as error:
        raise InputError("folder", str(folder), f"a {CONFIG} as PEFT writes it ({error!r})") from error
    for name, value in config.items():
        if name not in read | HARMLESS and value not in (None, False, "none", {}, []):
            raise InputError(name, value, "PEFT folders without this setting")
    base = LORA_BASE if kind == "LORA" else PROMPT_BASE
    known = dict(model.named_parameters())
    heads = {}
    for name in tensors.keys() - {"prompt_embeddings"}:
        own = join(start, name.removeprefix(f"{base}."))
        if own in known:
            heads[own] = tensors[name]
        elif not name.endswith((LORA_A, LORA_B)):
            raise InputError("folder", f"tensor {name}", "LoRA on linear layers, and parameters of the model")
    also_train = sorted({name.rsplit(".", 1)[0] for name in heads})
    return attach_state(model, methods, also_train, None, {**state, **heads})


Imported = tuple[list[Method], dict[str, Tensor], set[str]]  # methods, their tensors, settings that were read


def import_lora(model: nn.Module, config: dict[str, Any], tensors: dict[str, Tensor], start: str) -> Imported:
    if config.get("init_lora_weights", True) not in PLAIN_STARTS:
        given, accepted = config["init_lora_weights"], "starts that leave the base's weights as they were"
        raise InputError("init_lora_weights", given, accepted)
    state, ranks, alphas = {}, {}, {}
    for name, tensor in tensors.items():
        ending = next((e for e in (LORA_A, LORA_B) if name.endswith(e)), None)
        if ending is not None:
            path = name.removeprefix(f"{LORA_BASE}.").removesuffix(ending)
            state[join(start, path) + ending.removesuffix(".weight")] = tensor
            if ending == LORA_A:
                patterns = config.get("alpha_pattern") or {}
                alpha = next(
                    (a for p, a in patterns.items() if re.match(rf"(.*\.)?({p})$", path)),
                    config["lora_alpha"],
                )
                rank = ranks[join(start, path)] = len(tensor)
                # rsLoRA divides by the root of the rank (Kalajdzievski 2023).
                alphas[join(start, path)] = alpha * (math.sqrt(rank) if config.get("use_rslora") else 1)
    method = LoRA(
        rank=config["r"],
        alpha=config["lora_alpha"],
        dropout=config.get("lora_dropout", 0.0),
        target_modules=tuple(ranks),
        rank_pattern=tuple((n, r) for n, r in ranks.items() if r != config["r"]),
        alpha_pattern=tuple((n, a) for n, a in alphas.items() if a != config["lora_alpha"]),
    )
    read = {
        "r",
        "lora_alpha",
        "lora_dropout",
        "rank_pattern",
        "alpha_pattern",
        "use_rslora",
        "init_lora_weights",
    }
    return [method], state, read


def import_prefix(
    model: nn.Module, config: dict[str, Any], tensors: dict[str, Tensor], start: str
) -> Imported:
    transformer = find_transformer(model)
    host = Host(model, transformer, find_architecture(transformer))
    heads, head_dim = key_value_shape(transformer.config)
    layers = list(host.layer_paths())
    flat = prompt_tensor(config, tensors)
    if flat.shape[1] != len(layers) * 2 * heads * head_dim:
        accepted = f"{len(layers)} layers x 2 x {heads} heads x {head_dim} columns"
        raise InputError("prompt_embeddings", f"shape {tuple(flat.shape)}", accepted)
    blocks = flat.view(len(flat), len(layers), 2, heads, head_dim).permute(1, 2, 3, 0, 4)
    state = {}
    for layer, (key, value) in zip(layers, blocks, strict=True):
        path = join(layer, host.architecture.attention)
        state[f"{path}.prefix.key"], state[f"{path}.prefix.value"] = key, value
    return [Prefix(len(flat), positions="shift")], state, PROMPT_SETTINGS


def import_prompt(
    model: nn.Module, config: dict[str, Any], tensors: dict[str, Tensor], start: str
) -> Imported:
    transformer = find_transformer(model)
    refuse_pooled_prompt("folder", transformer)
    embeddings = prompt_tensor(config, tensors)
    name = join(path_of(model, transformer.base_model), "soft_prompt.embeddings")
    return [SoftPrompt(len(embeddings), init="random")], {name: embeddings}, PROMPT_SETTINGS


def prompt_tensor(config: dict[str, Any], tensors: dict[str, Tensor]) -> Tensor:
    """The saved (length, columns) of a decoder's or an encoder's prompt."""
    if config.get("num_transformer_submodules") not in (None, 1):
        raise InputError("num_transformer_submodules", config["num_transformer_submodules"], "1")
    if "prompt_embeddings" not in tensors or tensors["prompt_embeddings"].ndim != 2:
        raise InputError("folder", ", ".join(tensors), "one tensor prompt_embeddings of two dimensions")
    return tensors["prompt_embeddings"]
