"""Read PEFT's folders: one LoRA, one prefix or one soft prompt, with the modules that were trained beside it.

Every tensor in the folder is accounted for: it belongs to the method, to a module that the settings say was
trained, or it repeats what the base model holds already.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import regex
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import InputError
from ..methods.architectures import (
    ends_with,
    find_architecture,
    find_transformer,
    join,
    key_value_shape,
    path_of,
)
from ..methods.parts import Host
from ..methods.prefix import Prefix
from ..methods.soft_prompt import SoftPrompt
from .attach import Tuning, attach
from .load import detached_on_failure
from .peft_folder import (
    CONFIG,
    LORA_A,
    LORA_B,
    LORA_BASE,
    PROMPT_BASE,
    read_adapter,
    refuse_pooled_prompt,
    task_type,
)
from .peft_lora import Imported, import_lora

PROMPT_SETTINGS = {"num_virtual_tokens", "num_transformer_submodules"}
#: PEFT keeps these modules of a sequence classifier without being asked.
CLASSIFIERS = ("classifier", "score")
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


def import_peft(model: nn.Module, folder: str | Path) -> Tuning:
    """Attach what PEFT saved in ``folder`` to ``model``: LoRA, prefix-tuning or prompt tuning.

    A prefix is read with ``positions="shift"``, and p-tuning as the soft prompt it saved.  Raises
    :class:`InputError` with the reason for what this package cannot express; the model is then as it was.
    """
    config, tensors = read_adapter(folder)
    kind = config.get("peft_type")
    importers = {
        "LORA": import_lora,
        "PREFIX_TUNING": import_prefix,
        "PROMPT_TUNING": import_prompt,
        "P_TUNING": import_prompt,
    }
    if not isinstance(kind, str) or kind not in importers:
        raise InputError("peft_type", kind, ", ".join(importers))
    transformer = find_transformer(model)
    start = path_of(model, transformer)
    try:
        methods, state, read = importers[kind](model, config, tensors, start)
        trained = trained_modules(config, transformer)
    except (KeyError, TypeError, AttributeError, regex.error) as error:
        raise InputError("folder", str(folder), f"a {CONFIG} as PEFT writes it ({error!r})") from error
    for name, value in config.items():
        if name not in read | HARMLESS and value not in (None, False, "none", {}, []):
            raise InputError(name, value, "PEFT folders without this setting")
    others = {
        name.removeprefix(f"{LORA_BASE if kind == 'LORA' else PROMPT_BASE}."): tensor
        for name, tensor in tensors.items()
        if name != "prompt_embeddings" and not name.endswith((LORA_A, LORA_B))
    }
    heads = {join(start, name): t for name, t in trained_tensors(transformer, others, trained).items()}
    also_train = sorted({name.rsplit(".", 1)[0] for name in heads})
    tuning = attach(model, *methods, also_train=also_train)
    with detached_on_failure(tuning):
        tuning.load_state_dict({**state, **heads})
    return tuning


def trained_modules(config: dict[str, Any], transformer: PreTrainedModel) -> list[str]:
    """Endings of the names of modules that were trained as they are."""
    named = list(config.get("modules_to_save") or ())
    return named + list(CLASSIFIERS if task_type(transformer) == "SEQ_CLS" else ())


def trained_tensors(
    transformer: PreTrainedModel, tensors: dict[str, Tensor], trained: list[str]
) -> dict[str, Tensor]:
    """Those of ``tensors`` that replace parameters of the base; what may not replace one is refused.

    PEFT also writes the weights of layers that it wraps, which must be the base's own, and embeddings of an
    enlarged vocabulary, which may differ in the rows of new tokens: none of them is in the first half.
    """
    own = dict(transformer.named_parameters(remove_duplicate=False))
    first_names = {parameter: name for name, parameter in transformer.named_parameters()}
    layers = (transformer.get_input_embeddings(), transformer.get_output_embeddings())
    embeddings: list[Tensor] = [layer.weight for layer in layers if layer is not None]  # type: ignore[misc]
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        parameter = own.get(name.replace(".base_layer.", "."))
        listed = name in own and any(ends_with(p, module) for p in parents(name) for module in trained)
        if not listed and parameter is not None and equal(parameter, tensor):
            continue
        enlarged = any(e is parameter and enlarges(e, tensor) for e in embeddings)
        if not listed and not (name in own and enlarged):
            accepted = "LoRA on linear layers, modules_to_save, and what repeats the base's own weights"
            raise InputError("folder", f"tensor {name}", accepted)
        if not equal(found.setdefault(first_names[own[name]], tensor), tensor):
            raise InputError("folder", f"tensor {name}", "one value for weights that the base ties")
    return found


def enlarges(embeddings: Tensor, tensor: Tensor) -> bool:
    """Whether ``tensor`` (vocabulary, width) is as large, and the same in the first half of the rows."""
    half = len(embeddings) // 2
    return embeddings.shape == tensor.shape and equal(embeddings[:half], tensor[:half])


def equal(one: Tensor, other: Tensor) -> bool:
    """Whether both have the same shape and the same values, in the precision of the first."""
    return one.shape == other.shape and torch.equal(one.cpu(), other.to(one.dtype))


def parents(path: str) -> list[str]:
    """Dotted names of the modules that hold the parameter ``path``."""
    names = path.split(".")[:-1]
    return [".".join(names[:end]) for end in range(1, len(names) + 1)]


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
    return [Prefix(len(flat), softmax="joint", positions="shift")], state, PROMPT_SETTINGS


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
