"""What PEFT's settings and tensors of a LoRA say, as a :class:`hybridft_utils.LoRA` and its tensors."""

from __future__ import annotations

import math
from typing import Any

import regex
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..errors import InputError
from ..methods.architectures import ends_with, join
from ..methods.lora import LoRA
from ..methods.parts import Method
from .peft_folder import LORA_A, LORA_B, LORA_BASE

#: Methods, their tensors, and the names of the settings that were read.
Imported = tuple[list[Method], dict[str, Tensor], set[str]]
#: LoRA starts that leave the base's own weights alone.
PLAIN_STARTS = (True, False, "gaussian", "eva", "orthogonal")
#: Settings that leave out some of the modules that ``target_modules`` names.
NARROWING = ("exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save")
#: Seconds for matching one name with one pattern, since a regular expression may never end.
MATCHING = 1.0
READ = {"r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "use_rslora", "init_lora_weights"}


def import_lora(model: nn.Module, config: dict[str, Any], tensors: dict[str, Tensor], start: str) -> Imported:
    """LoRA on exactly the modules that have tensors, with the rank and the alpha of each."""
    if config.get("init_lora_weights", True) not in PLAIN_STARTS:
        given, accepted = config["init_lora_weights"], "starts that leave the base's weights as they were"
        raise InputError("init_lora_weights", given, accepted)
    state: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for name, tensor in tensors.items():
        ending = next((e for e in (LORA_A, LORA_B) if name.endswith(e)), None)
        if ending is not None:
            path = name.removeprefix(f"{LORA_BASE}.").removesuffix(ending)
            state[join(start, path) + ending.removesuffix(".weight")] = tensor
            if ending == LORA_A:
                ranks[path] = len(tensor)
    check_targets(config, list(ranks), linear_layers(model.get_submodule(start)))
    planned = by_pattern(config, "rank_pattern", ranks, config["r"])
    alphas = by_pattern(config, "alpha_pattern", ranks, config["lora_alpha"])
    for path, rank in ranks.items():
        if planned[path] != rank:
            raise InputError("r", planned[path], f"{rank}, the rank of the tensors of {path}")
        if config.get("use_rslora"):  # divides by the root of the rank (Kalajdzievski 2023)
            alphas[path] *= math.sqrt(rank)
    method = LoRA(
        rank=config["r"],
        alpha=config["lora_alpha"],
        dropout=config.get("lora_dropout", 0.0),
        target_modules=tuple(join(start, path) for path in ranks),
        rank_pattern=tuple((join(start, n), r) for n, r in ranks.items() if r != config["r"]),
        alpha_pattern=tuple((join(start, n), a) for n, a in alphas.items() if a != config["lora_alpha"]),
    )
    return [method], state, READ


def by_pattern(config: dict[str, Any], name: str, paths: dict[str, int], default: Any) -> dict[str, Any]:
    """The value of each path, from the first pattern that fits it; a pattern that fits no path is refused."""
    patterns = config.get(name) or {}
    if not isinstance(patterns, dict):
        raise InputError(name, patterns, "a value for each of some patterns")
    values = dict.fromkeys(paths, default)
    fitting = set()
    for path in paths:
        for pattern in patterns:
            if matches(name, rf"(.*\.)?({pattern})", path):
                values[path] = patterns[pattern]
                fitting.add(pattern)
                break
    for pattern in patterns:
        if pattern not in fitting and not any(matches(name, rf"(.*\.)?({pattern})", path) for path in paths):
            raise InputError(name, pattern, "patterns that fit an adapted module each")
    return values


def check_targets(config: dict[str, Any], paths: list[str], layers: list[str]) -> None:
    """Refuse targets that name no adapted module, tensors of other modules, and targets without tensors."""
    targets = config.get("target_modules")
    if targets is None or targets == "all-linear":
        return
    wanted = [targets] if isinstance(targets, str) else list(targets)

    def fits(target: str, path: str) -> bool:
        return (
            matches("target_modules", target, path) if isinstance(targets, str) else ends_with(path, target)
        )

    for target in wanted:
        if not any(fits(target, path) for path in paths):
            raise InputError("target_modules", target, "names that fit an adapted module each")
    for path in paths:
        if not any(fits(target, path) for target in wanted):
            raise InputError("folder", f"LoRA on {path}", "tensors of the modules in target_modules alone")
    if not any(config.get(name) for name in NARROWING):
        for path in layers:
            if path not in paths and any(fits(target, path) for target in wanted):
                raise InputError("folder", f"no LoRA on {path}", "tensors of every module in target_modules")


def linear_layers(model: nn.Module) -> list[str]:
    """Dotted names of what PEFT would adapt."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]


def matches(parameter: str, pattern: str, path: str) -> bool:
    """Whether ``pattern`` fits all of ``path``; a pattern that takes too long is refused."""
    try:
        return regex.fullmatch(pattern, path, timeout=MATCHING) is not None
    except TimeoutError as error:
        raise InputError(parameter, pattern, "patterns that can be matched in a second") from error
