r"""Prefix-tuning: trained keys and values in front of every layer's own (Li and Liang 2021).

.. math:: \mathrm{Attn}\bigl(q, [P_K; K], [P_V; V]\bigr)
   = (1 - \lambda)\,\mathrm{Attn}(q, K, V) + \lambda\,\mathrm{Attn}(q, P_K, P_V)

with :math:`\lambda` the softmax mass on the prefix (He et al. 2022, equation 7).  A gate g adds
log g to the prefix's attention logits: g = 0 is exactly the base model, g = 1 the plain prefix.
transformers passes every layer's keys and values to a registered function; ours reads the prefix
from the layer's attention module, so no model code is touched.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from .architectures import join
from .errors import InputError
from .methods import Gate, Host, Method, Part, first_argument


class PrefixKV(nn.Module):
    """One layer's prefix: ``key`` and ``value``, each (key-value heads, prefix length, head width)."""

    def __init__(self, heads: int, length: int, head_dim: int, gated: bool = False):
        super().__init__()
        self.key = nn.Parameter(torch.randn(heads, length, head_dim) * 0.1)
        self.value = nn.Parameter(torch.randn(heads, length, head_dim) * 0.1)
        self.gate_logit = nn.Parameter(torch.zeros(())) if gated else None
        self.input_gate: Gate | None = None
        self.input_logit: Tensor | None = None  # of the current forward pass, (batch, tokens, 1)

    def keys_and_values(self) -> tuple[Tensor, Tensor]:
        return self.key, self.value

    def log_gate(self) -> Tensor | None:
        """log g, broadcastable to (batch, heads, tokens, prefix length); None without a gate."""
        gates = []
        if self.gate_logit is not None:
            gates.append(F.logsigmoid(self.gate_logit))
        if self.input_logit is not None:
            gates.append(F.logsigmoid(self.input_logit).unsqueeze(1))
        return sum(gates[1:], gates[0]) if gates else None

    @property
    def gate(self) -> float:
        """The value of the gate, 1.0 without one."""
        return 1.0 if self.gate_logit is None else torch.sigmoid(self.gate_logit).item()

    @torch.no_grad()
    def set_gate(self, value: float) -> None:
        """Set the gate to ``value``, from 0 (off) to 1 (the plain prefix)."""
        if self.gate_logit is None or not 0 <= value <= 1:
            raise InputError("gate", value, "a number from 0 to 1, on a prefix made with gated=True")
        self.gate_logit.copy_(torch.logit(torch.tensor(float(value))))


class ReparametrisedKV(PrefixKV):
    """A prefix computed from a trunk that all layers share (Li and Liang 2021, section 4.3).

    ``trunk`` maps to (prefix length, hidden); after training only the resulting keys and values
    are kept.
    """

    def __init__(self, trunk: nn.Module, hidden: int, heads: int, length: int, head_dim: int, gated: bool):
        super().__init__(heads, length, head_dim, gated)
        del self.key, self.value
        self.shape = (2, heads, length, head_dim)
        self.trunk = trunk
        self.out = nn.Linear(hidden, 2 * heads * head_dim)

    def keys_and_values(self) -> tuple[Tensor, Tensor]:
        two, heads, length, head_dim = self.shape
        flat = self.out(self.trunk(torch.arange(length, device=self.out.weight.device)))
        key, value = flat.view(length, two, heads, head_dim).permute(1, 2, 0, 3)
        return key, value


def prefix_attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **options):
    """transformers' attention function with the prefix of ``module`` in front.

    ``query`` is (batch, heads, tokens, head width), ``mask`` (batch, 1, tokens, keys): boolean
    under sdpa, additive under eager.  Returns the attended values as transformers expects them.
    """
    prefix = module._modules.get("prefix")
    if isinstance(prefix, PrefixKV):
        batch, tokens = query.shape[0], query.shape[2]
        prefix_key, prefix_value = (t.to(key.dtype) for t in prefix.keys_and_values())
        key = torch.cat([prefix_key.expand(batch, -1, -1, -1), key], dim=2)
        value = torch.cat([prefix_value.expand(batch, -1, -1, -1), value], dim=2)
        log_gate, length = prefix.log_gate(), prefix_key.shape[1]
        if log_gate is not None and mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, torch.finfo(query.dtype).min)
        if log_gate is None:
            front = mask.new_full((batch, 1, tokens, length), mask.dtype == torch.bool)
        else:
            front = log_gate.to(query.dtype).expand(batch, 1, tokens, length)
        mask = torch.cat([front, mask.expand(batch, -1, -1, -1)], dim=-1)
    if module.config._attn_implementation == EAGER:  # type: ignore[union-attr]
        eager = sys.modules[type(module).__module__].eager_attention_forward
        return eager(module, query, key, value, mask, **options)
    return sdpa_attention_forward(module, query, key, value, mask, **{**options, "is_causal": False})


def whole_sdpa_mask(*args: Any, **options: Any) -> Tensor:
    """A mask even where plain SDPA needs none, so that the prefix has something to extend."""
    options.update(allow_is_causal_skip=False, allow_is_bidirectional_skip=False)
    return sdpa_mask(*args, **options)  # type: ignore[return-value]


def whole_eager_mask(*args: Any, **options: Any) -> Tensor:
    return eager_mask(*args, **{**options, "allow_is_bidirectional_skip": False})


SDPA, EAGER = "prefix_sdpa", "prefix_eager"
for _name, _mask in ((SDPA, whole_sdpa_mask), (EAGER, whole_eager_mask)):
    AttentionInterface.register(_name, prefix_attention)
    AttentionMaskInterface.register(_name, _mask)


@dataclass(frozen=True)
class Prefix(Method):
    """``length`` trained keys and values in front of each layer's attention.

    ``init``: "random"; "vocab", the keys and values of random words of the vocabulary; "task",
    those of the task's text (``attach(..., task_text=..., tokenizer=...)``).  ``gated`` adds an
    exact gate a layer.  ``reparam_hidden`` trains through a small network that folds away on
    saving.  ``positions``: "keep" leaves the text's positions alone, "shift" moves them by
    ``length`` as PEFT does.
    """

    length: int = 16
    init: Literal["random", "vocab", "task"] = "random"
    gated: bool = False
    reparam_hidden: int | None = None
    positions: Literal["keep", "shift"] = "keep"
    kind: ClassVar[str] = "prefix"

    def __post_init__(self) -> None:
        if not isinstance(self.length, int) or self.length < 1:
            raise InputError("prefix_length", self.length, "a whole number of at least 1")
        if self.init not in ("random", "vocab", "task"):
            raise InputError("init", self.init, "'random', 'vocab' or 'task'")
        if self.positions not in ("keep", "shift"):
            raise InputError("positions", self.positions, "'keep' or 'shift'")
        if self.reparam_hidden is not None and self.init != "random":
            raise InputError("init", self.init, "'random' together with reparam_hidden")

    def parts(self, host: Host) -> list[Part]:
        config = host.model.config
        context = config.max_position_embeddings
        if self.length >= context:
            raise InputError("prefix_length", self.length, f"less than the model's context of {context} tokens")
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        trunk = None
        if self.reparam_hidden is not None:
            hidden = self.reparam_hidden
            trunk = nn.Sequential(nn.Embedding(self.length, hidden), nn.Linear(hidden, hidden), nn.Tanh())
        start = None if self.init == "random" else self.recorded(host)
        parts = []
        for index, layer in enumerate(host.layer_paths()):
            path = join(layer, host.architecture.attention)
            attention = host.root.get_submodule(path)
            if trunk is None:
                prefix = PrefixKV(heads, self.length, head_dim, self.gated)
            else:
                prefix = ReparametrisedKV(trunk, hidden, heads, self.length, head_dim, self.gated)
            if start is not None:
                prefix.key.data.copy_(start[index][0])
                prefix.value.data.copy_(start[index][1])
            prefix.input_gate = host.gate(config.hidden_size)
            prefix.to(host.model.device, host.model.dtype)
            parts.append(self.part(attention, path, prefix))
        return parts

    def part(self, attention: nn.Module, path: str, prefix: PrefixKV) -> Part:
        hooks: list[Any] = []

        def read_input(_module: nn.Module, args: Any, kwargs: Any) -> None:
            if prefix.input_gate is not None:
                prefix.input_logit = prefix.input_gate.logit(first_argument(args, kwargs))

        def put() -> None:
            attention.add_module("prefix", prefix)
            hooks.append(attention.register_forward_pre_hook(read_input, with_kwargs=True))

        def take() -> None:
            del attention._modules["prefix"]
            hooks.pop().remove()

        return Part(self.kind, f"{path}.prefix", prefix, put, take)

    @torch.no_grad()
    def recorded(self, host: Host) -> list[tuple[Tensor, Tensor]]:
        """Each layer's keys and values for the starting text, (heads, length, head width)."""
        config = host.model.config
        if self.init == "task":
            if host.task_ids is None:
                raise InputError("init", "task", "'task' together with attach(..., task_text=, tokenizer=)")
            ids = host.task_ids.repeat(-(-self.length // len(host.task_ids)))[: self.length]
        else:
            ids = torch.randint(config.vocab_size, (self.length,))
        # The text begins at position 0, so where positions may be negative the prefix ends before it.
        first = -self.length if host.architecture.rotary and self.positions == "keep" else 0
        positions = torch.arange(first, first + self.length)
        kept: list[tuple[Tensor, Tensor]] = []

        def record(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **options):
            kept.append((key[0].clone(), value[0].clone()))
            return sdpa_attention_forward(module, query, key, value, mask, **options)

        AttentionInterface.register("prefix_record", record)
        AttentionMaskInterface.register("prefix_record", sdpa_mask)
        before, training = config._attn_implementation, host.model.training
        config._attn_implementation = "prefix_record"
        host.model.eval()
        try:
            device = host.model.device
            host.inner(input_ids=ids[None].to(device), position_ids=positions[None].to(device))
        finally:
            config._attn_implementation = before
            host.model.train(training)
        return kept
