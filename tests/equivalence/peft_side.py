"""The same tuning in PEFT and here, with the same random weights."""

from __future__ import annotations

import warnings

import torch
from peft import LoraConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from tiny_models import tiny
from torch import Tensor

from hybridft_utils import Tuning, import_peft

warnings.filterwarnings("ignore", module="peft")


def task(kind: str) -> str | None:
    """PEFT's task type; it has none for masked language models, where FEATURE_EXTRACTION runs."""
    return "SEQ_CLS" if "classifier" in kind else "FEATURE_EXTRACTION" if kind == "bert" else "CAUSAL_LM"


def peft_lora(kind: str, attention: str = "sdpa", **settings) -> PeftModel:
    """LoRA with random A and B."""
    torch.manual_seed(1)
    config = LoraConfig(task_type=None if kind == "bert" else task(kind), init_lora_weights=False, **settings)
    return get_peft_model(tiny(kind, attention), config).eval()


def peft_prefix(kind: str, length: int = 5, attention: str = "sdpa") -> PeftModel:
    torch.manual_seed(1)
    config = PrefixTuningConfig(task_type=task(kind), num_virtual_tokens=length)
    return get_peft_model(tiny(kind, attention), config).eval()


def peft_prompt(kind: str, length: int = 5, attention: str = "sdpa") -> PeftModel:
    torch.manual_seed(1)
    config = PromptTuningConfig(task_type=task(kind), num_virtual_tokens=length)
    return get_peft_model(tiny(kind, attention), config).eval()


def same_here(theirs: PeftModel, kind: str, folder, attention: str = "sdpa") -> Tuning:
    """What ``theirs`` holds, saved by PEFT and read by this package, on a model of its own."""
    theirs.save_pretrained(folder)
    return import_peft(tiny(kind, attention), folder)


def labels(inputs: dict[str, Tensor], kind: str) -> Tensor:
    """Class indices, or the tokens themselves with padding left out of the loss."""
    if "classifier" in kind:
        return torch.arange(len(inputs["input_ids"])) % 2
    mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
    return inputs["input_ids"].masked_fill(mask == 0, -100)


def lora_gradients(theirs: PeftModel) -> dict[str, Tensor]:
    """PEFT's LoRA gradients under this package's names."""
    return {
        name.removeprefix("base_model.model.").removesuffix(".default.weight"): parameter.grad
        for name, parameter in theirs.named_parameters()
        if "lora_" in name
    }


def prefix_gradient(tuning: Tuning) -> Tensor:
    """The gradients of all keys and values in PEFT's layout, (length, everything else)."""
    layers = [torch.stack([p.module.key.grad, p.module.value.grad]) for p in tuning.parts]
    return torch.stack(layers).permute(3, 0, 1, 2, 4).flatten(1)
