r"""Prefix-tuning: trained keys and values beside every layer's own (Li and Liang 2021).

Under one joint softmax, as published,

.. math:: \mathrm{Attn}\bigl(q, [P_K; K], [P_V; V]\bigr)
   = (1 - \lambda)\,\mathrm{Attn}(q, K, V) + \lambda\,\mathrm{Attn}(q, P_K, P_V)

with :math:`\lambda` the softmax mass on the prefix (He et al. 2022, equation 7).  Where a pretrained head has a
sharp pattern, the text's scores are many nats above those of fresh keys: :math:`\lambda` is nearly 0, and
so is every gradient on the prefix.  With a softmax of its own (Zhang et al. 2023, LLaMA-Adapter) the
prefix adds what it finds,

.. math:: \mathrm{Attn}(q, K, V) + \mathrm{Attn}(q, P_K, P_V),

and with values that start at zero the tuned model starts as exactly the base model.  A gate g multiplies
what a separate prefix adds, or the mass on a joint one: g = 0 is the base model, g = 1 no gate.
transformers passes every layer's keys and values to a registered function; ours reads the prefix
from the layer's attention module, so no model code is touched.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations import sdpa_attention
from transformers.masking_utils import eager_mask, sdpa_mask

from ..errors import InputError
from .architectures import join, key_value_shape
from .parts import Gate, Host, Method, Part, check_choice, check_number, check_whole, first_argument, place
from .recorded_keys import record_keys_and_values

HALF = (torch.bfloat16, torch.float16)
#: Keys and values of pretrained models have a size near 1.  A tenth of that tells the prefix's rows
#: apart, so that they learn different things, and a joint prefix adds little noise with it.
RANDOM_STD = 0.1


class PrefixKV(nn.Module):
    """One layer's prefix: ``key`` and ``value``, each (key-value heads, prefix length, head width)."""

    def __init__(self, heads: int, length: int, head_dim: int, separate: bool = True, gated: bool = False):
        super().__init__()
        self.separate = separate
        self.key = nn.Parameter(torch.randn(heads, length, head_dim) * RANDOM_STD)
        self.value = nn.Parameter(torch.randn(heads, length, head_dim) * (0 if separate else RANDOM_STD))
        self.gate_logit = nn.Parameter(torch.zeros(())) if gated else None
        self.input_gate: Gate | None = None

    def keys_and_values(self) -> tuple[Tensor, Tensor]:
        return self.key, self.value

    @property
    def gate(self) -> float:
        """The value of the gate, 1.0 without one."""
        return 1.0 if self.gate_logit is None else torch.sigmoid(self.gate_logit).item()

    @torch.no_grad()
    def set_gate(self, value: float) -> None:
        """Set the gate to ``value``, from 0 (off) to 1 (the plain prefix)."""
        accepted = "a number from 0 to 1, on a prefix made with gated=True"
        check_number("gate", value, lambda g: self.gate_logit is not None and 0 <= g <= 1, accepted)
        self.gate_logit.copy_(torch.logit(torch.tensor(float(value))))  # type: ignore[union-attr]


class ReparametrisedKV(PrefixKV):
    """A prefix computed from a trunk that all layers share (Li and Liang 2021, section 4.3).

    ``trunk`` maps positions to (prefix length, hidden); only the resulting keys and values are saved.
    """

    def __init__(
        self, trunk: nn.Module, hidden: int, heads: int, length: int, head_dim: int, *switches: bool
    ):
        super().__init__(heads, length, head_dim, *switches)
        del self.key, self.value
        self.shape = (length, 2, heads, head_dim)
        self.trunk = trunk
        self.out = nn.Linear(hidden, 2 * heads * head_dim)
        if self.separate:
            for parameter in self.out.parameters():
                nn.init.zeros_(parameter[heads * head_dim :])

    def keys_and_values(self) -> tuple[Tensor, Tensor]:
        flat = self.out(self.trunk(torch.arange(self.shape[0], device=self.out.weight.device)))
        key, value = flat.view(self.shape).permute(1, 2, 0, 3)
        return key, value


def in_single_precision(tensor: Any) -> Any:
    return tensor.float() if tensor is not None and tensor.dtype in HALF else tensor


def sdpa_attention_forward(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
):
    """The function of this name in transformers, in single precision under autocast on a processor."""
    if not torch.is_autocast_enabled("cpu") or query.device.type != "cpu":
        return sdpa_attention.sdpa_attention_forward(module, query, key, value, mask, **options)
    given = query.dtype
    # On a processor the backward pass of attention takes five times as long in half as in single precision.
    query, key, value, mask = map(in_single_precision, (query, key, value, mask))
    with torch.autocast("cpu", enabled=False):
        output, weights = sdpa_attention.sdpa_attention_forward(module, query, key, value, mask, **options)
    return output.to(given), weights


def model_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
):
    """The attention function that the model was loaded with: sdpa or eager."""
    if str(module.config._attn_implementation).startswith(EAGER):  # type: ignore[union-attr]
        eager = sys.modules[type(module).__module__].eager_attention_forward
        return eager(module, query, key, value, mask, **options)
    return sdpa_attention_forward(module, query, key, value, mask, **options)


def separate_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    front: tuple[Tensor, Tensor],
    gate_logits: list[Tensor],
    options: dict[str, Any],
):
    """The model's own attention, and added to it the gates times attention to the prefix ``front`` alone."""
    output, weights = model_attention(module, query, key, value, mask, **options)
    whole = {**options, "is_causal": False}  # every token sees the whole prefix
    added, _ = sdpa_attention_forward(module, query, *front, None, **whole)
    batch, _, tokens, _ = query.shape
    for z in gate_logits:
        added = added * torch.sigmoid(z).expand(batch, 1, tokens, 1).transpose(1, 2).to(added.dtype)
    return output + added, weights


def joint_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    front: tuple[Tensor, Tensor],
    gate_logits: list[Tensor],
    options: dict[str, Any],
):
    """One softmax over the prefix ``front`` and the text; a gate's logarithm is added to the prefix's scores."""
    batch, _, tokens, _ = query.shape
    key, value = torch.cat([front[0], key], dim=2), torch.cat([front[1], value], dim=2)
    if gate_logits and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, torch.finfo(query.dtype).min)
    # Without a gate the prefix is always visible: True in a boolean mask, 0 in an additive one.
    seen = mask.new_full((batch, mask.shape[1], tokens, front[0].shape[2]), mask.dtype == torch.bool)
    seen = sum(map(F.logsigmoid, gate_logits), seen).to(mask.dtype)
    mask = torch.cat([seen, mask.expand(batch, -1, -1, -1)], dim=-1)
    return model_attention(module, query, key, value, mask, **options)


def prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    gate_logit: Tensor | None = None,
    **options: Any,
):
    """The attention function of transformers, with the prefix of ``module`` beside its keys and values.

    ``query`` is (batch, heads, tokens, head width), ``mask`` (batch, 1, tokens, keys): boolean
    under sdpa, additive under eager, None where a separate prefix's model needs none.  ``gate_logit`` is an
    input gate's, (batch, 1, tokens, 1).
    """
    prefix = module._modules.get("prefix")
    if not isinstance(prefix, PrefixKV):
        return model_attention(module, query, key, value, mask, **options)
    own_key, own_value = (t.to(key.dtype).expand(len(query), -1, -1, -1) for t in prefix.keys_and_values())
    gate_logits = [z for z in (prefix.gate_logit, gate_logit) if z is not None]
    attend = separate_attention if prefix.separate else joint_attention
    return attend(module, query, key, value, mask, (own_key, own_value), gate_logits, options)


def whole_mask(make: Any, *args: Any, **options: Any) -> Tensor:
    """A mask even where plain attention needs none, so that a joint prefix has something to extend."""
    return make(*args, **{**options, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})


SDPA, EAGER, JOINT = "prefix_sdpa", "prefix_eager", "_joint"
for _name, _make in ((SDPA, sdpa_mask), (EAGER, eager_mask)):
    for _ending, _mask in (("", _make), (JOINT, partial(whole_mask, _make))):
        AttentionInterface.register(_name + _ending, prefix_attention)
        AttentionMaskInterface.register(_name + _ending, _mask)


@dataclass(frozen=True)
class Prefix(Method):
    """``length`` trained keys and values beside each layer's own.

    ``softmax``: "separate" gives the prefix one of its own and starts as exactly the base model, with values
    of zero; "joint" is the published prefix, as in PEFT, which shares one with the text and does not.
    ``init``: "random"; "vocab", keys and values of random words; "task", those of a text
    (``attach(..., task_text=..., tokenizer=...)``); of a separate prefix, the keys alone.
    ``gated`` adds an exact gate per layer.  ``reparam_hidden`` trains through a small network that folds
    away on saving.  ``positions``: "keep" leaves the text's positions alone, "shift" moves them by
    ``length`` as PEFT does.
    """

    length: int = 16
    init: Literal["random", "vocab", "task"] = "random"
    softmax: Literal["separate", "joint"] = "separate"
    gated: bool = False
    reparam_hidden: int | None = None
    positions: Literal["keep", "shift"] = "keep"
    kind: ClassVar[str] = "prefix"

    def __post_init__(self) -> None:
        check_whole("prefix_length", self.length)
        check_choice("init", self.init, "random", "vocab", "task")
        check_choice("softmax", self.softmax, "separate", "joint")
        check_choice("gated", self.gated, True, False)
        check_choice("positions", self.positions, "keep", "shift")
        if self.reparam_hidden is not None:
            check_whole("reparam_hidden", self.reparam_hidden)
            if self.init != "random":
                raise InputError("init", self.init, "'random' together with reparam_hidden")

    def parts(self, host: Host) -> list[Part]:
        host.check_length("prefix_length", self.length)
        host.check_width("reparam_hidden", self.reparam_hidden or 0)
        host.check_unshared([join(n, host.architecture.attention) for n in host.layer_paths()])
        hidden = self.reparam_hidden
        heads, head_dim = key_value_shape(host.model.config)
        switches = (self.softmax == "separate", self.gated)
        if hidden is not None:
            trunk = nn.Sequential(nn.Embedding(self.length, hidden), nn.Linear(hidden, hidden), nn.Tanh())
        start = None if self.init == "random" else self.start(host)
        parts = []
        for index, layer in enumerate(host.layer_paths()):
            path = join(layer, host.architecture.attention)
            if hidden is None:
                prefix = PrefixKV(heads, self.length, head_dim, *switches)
            else:
                prefix = ReparametrisedKV(trunk, hidden, heads, self.length, head_dim, *switches)
            if start is not None:
                prefix.key.data, value = start[index]
                prefix.value.data = torch.zeros_like(value) if prefix.separate else value
            prefix.input_gate = host.gate(host.model.config.hidden_size)
            attention = host.root.get_submodule(path)
            place(prefix, next(attention.parameters()))
            parts.append(self.part(attention, path, prefix))
        return parts

    def start(self, host: Host) -> list[tuple[Tensor, Tensor]]:
        """Each layer's keys and values for the starting text."""
        ids = host.start_ids(self.init, self.length)
        # The text begins at position 0, so where positions may be negative the prefix ends before it.
        first = -self.length if host.architecture.rotary and self.positions == "keep" else 0
        return record_keys_and_values(host.model, ids, torch.arange(first, first + self.length))

    def part(self, attention: nn.Module, path: str, prefix: PrefixKV) -> Part:
        hooks: list[Any] = []

        def read_input(module: nn.Module, args: Any, kwargs: Any) -> Any:
            # transformers hands a keyword it does not know on to the attention function.
            gate: Gate | None = module.prefix.input_gate  # type: ignore[union-attr, assignment]
            if gate is not None:
                kwargs["gate_logit"] = gate.logit(first_argument(args, kwargs)).unsqueeze(1)
            return args, kwargs

        def put() -> None:
            attention.add_module("prefix", prefix)
            hooks.append(attention.register_forward_pre_hook(read_input, with_kwargs=True))

        def take() -> None:
            del attention._modules["prefix"]
            hooks.pop().remove()

        return Part(self.kind, f"{path}.prefix", prefix, put, take)
