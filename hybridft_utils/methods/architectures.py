"""Where each supported architecture keeps its layers; the only place that knows."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..errors import InputError


@dataclass(frozen=True)
class Architecture:
    """Module paths, seen from the inner model (``model.base_model``) or from one layer."""

    layers: str  # ModuleList of layers, from the inner model
    attention: str  # module that transformers passes to its attention function, from a layer
    attention_linears: tuple[str, ...]  # the projections, from a layer
    query_value: tuple[str, ...]  # those of them that hold the query and the value projection
    attention_output: str  # linear that ends the attention sublayer, from a layer
    mlp_input: str  # module that receives the feed-forward sublayer's input, from a layer
    mlp_linears: tuple[str, ...]
    mlp_output: str  # linear that ends the feed-forward sublayer, from a layer
    after_layers: tuple[str, ...]  # what follows the last layer, from the inner model
    head: str | None  # hidden states to vocabulary logits, from the whole model
    causal: bool
    rotary: bool


LLAMA = Architecture(
    layers="layers",
    attention="self_attn",
    attention_linears=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    query_value=("self_attn.q_proj", "self_attn.v_proj"),
    attention_output="self_attn.o_proj",
    mlp_input="mlp",
    mlp_linears=("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    mlp_output="mlp.down_proj",
    after_layers=("norm",),
    head="lm_head",
    causal=True,
    rotary=True,
)
GPT2 = Architecture(
    layers="h",
    attention="attn",
    attention_linears=("attn.c_attn", "attn.c_proj"),
    query_value=("attn.c_attn",),  # one matrix holds query, key and value
    attention_output="attn.c_proj",
    mlp_input="mlp",
    mlp_linears=("mlp.c_fc", "mlp.c_proj"),
    mlp_output="mlp.c_proj",
    after_layers=("ln_f",),
    head="lm_head",
    causal=True,
    rotary=False,
)
BERT = Architecture(
    layers="encoder.layer",
    attention="attention.self",
    attention_linears=(
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
    ),
    query_value=("attention.self.query", "attention.self.value"),
    attention_output="attention.output.dense",
    mlp_input="intermediate",
    mlp_linears=("intermediate.dense", "output.dense"),
    mlp_output="output.dense",
    after_layers=("pooler",),
    head="cls",
    causal=False,
    rotary=False,
)

#: transformers' ``config.model_type`` to the description of its layers.
ARCHITECTURES = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "gpt2": GPT2,
    "bert": BERT,
}


def find_transformer(model: nn.Module) -> PreTrainedModel:
    """The transformers model that ``model`` is or holds (such as a classifier of this package)."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            return module
    raise InputError("model", type(model).__name__, "a transformers model, or a module that holds one")


def find_architecture(model: PreTrainedModel) -> Architecture:
    """The description of ``model``'s layers; other architectures are refused."""
    kind = model.config.model_type
    if kind not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise InputError("model", f"{type(model).__name__} ({kind})", f"one of the architectures {known}")
    return ARCHITECTURES[kind]


def path_of(root: nn.Module, wanted: nn.Module) -> str:
    """Dotted name of ``wanted`` inside ``root``; "" for ``root`` itself."""
    return next(name for name, module in root.named_modules() if module is wanted)


def join(*parts: str) -> str:
    """Join module paths, leaving out empty ones."""
    return ".".join(part for part in parts if part)


def ends_with(path: str, ending: str) -> bool:
    """Whether the dotted name ``path`` ends with the whole names of ``ending``."""
    return f".{path}".endswith(f".{ending}")


def key_value_shape(config: PreTrainedConfig) -> tuple[int, int]:
    """Number of key and value heads, and their width."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return heads, getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
