"""A Llama to read: every line of the model of Touvron et al. (2023) that the shipped weights need.

The names of the parts are those of transformers, so a saved state dict fits as it is.  There is no
dropout, no padding and no bias; a batch holds texts of one length.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import silu

from ..errors import InputError
from .account import check_finite, check_folder, check_names, check_size, weight_files
from .loading import BUILTIN


@dataclass(frozen=True)
class LlamaShape:
    """The sizes that decide a Llama, named as in transformers' ``config.json``."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6

    def count(self) -> int:
        """Number of parameters, the tied embedding counted once."""
        heads = 2 * self.num_attention_heads + 2 * self.num_key_value_heads
        attention = heads * self.head_dim * self.hidden_size
        feed_forward = 3 * self.hidden_size * self.intermediate_size
        layer = attention + feed_forward + 2 * self.hidden_size
        return self.vocab_size * self.hidden_size + self.num_hidden_layers * layer + self.hidden_size


def attention_weights(query: Tensor, key: Tensor, causal: bool = True) -> Tensor:
    """softmax(Q Kᵀ / sqrt(d_k)) of shape (..., T, S) for queries (..., T, d_k) and keys (..., S, d_k).

    With ``causal`` the queries stand at the last T of S positions, and none of them sees a later key
    (Vaswani et al. 2017, section 3.2.1).
    """
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if causal:
        queries, keys = scores.shape[-2:]
        future = torch.ones(queries, keys, dtype=torch.bool, device=scores.device).triu(keys - queries + 1)
        scores = scores.masked_fill(future, -math.inf)
    return scores.softmax(-1)


def attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = True) -> Tensor:
    """The weighted mean of the values (..., S, d_v) for each query, (..., T, d_v)."""
    return attention_weights(query, key, causal) @ value


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(batch, T, heads * d_k) to (batch, heads, T, d_k)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(batch, heads, T, d_k) to (batch, T, heads * d_k), the inverse of :func:`split_heads`."""
    return x.transpose(1, 2).flatten(2)


def rotary_angles(positions: Tensor, head_dim: int, theta: float = 10_000.0) -> Tensor:
    """Angles in radians, (T, d_k / 2): position * theta^(-2i / d_k) for pair i (Su et al. 2021, 3.2.2)."""
    pairs = torch.arange(0, head_dim, 2, device=positions.device).float()
    return positions[:, None] * (1.0 / theta ** (pairs / head_dim))


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn each pair of coordinates (i, i + d_k / 2) of ``x`` (..., T, d_k) by its angle."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class RMSNorm(nn.Module):
    """h / rms(h), times one learned weight per coordinate (Zhang and Sennrich 2019, eq. 4)."""

    def __init__(self, size: int, eps: float = 1e-6):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, h: Tensor) -> Tensor:
        mean_square = h.pow(2).mean(-1, keepdim=True)
        return self.weight * (h * torch.rsqrt(mean_square + self.eps))


class FeedForward(nn.Module):
    """SwiGLU: W_down (silu(W_gate h) ⊙ W_up h) (Shazeer 2020, eq. 6)."""

    def __init__(self, shape: LlamaShape):
        super().__init__()
        width, inner = shape.hidden_size, shape.intermediate_size
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        return self.down_proj(silu(self.gate_proj(h)) * self.up_proj(h))


class Attention(nn.Module):
    """Causal attention of several heads; several query heads may share a key and value head."""

    def __init__(self, shape: LlamaShape):
        super().__init__()
        self.heads, self.kv_heads = shape.num_attention_heads, shape.num_key_value_heads
        width, head_dim = shape.hidden_size, shape.head_dim
        self.q_proj = nn.Linear(width, self.heads * head_dim, bias=False)
        self.k_proj = nn.Linear(width, self.kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(width, self.kv_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * head_dim, width, bias=False)
        self.attend: Callable[[Tensor, Tensor, Tensor], Tensor] = attention

    def forward(self, h: Tensor, angles: Tensor, cache: list[Tensor] | None = None) -> Tensor:
        query = rotate(split_heads(self.q_proj(h), self.heads), angles)
        key = rotate(split_heads(self.k_proj(h), self.kv_heads), angles)
        value = split_heads(self.v_proj(h), self.kv_heads)
        if cache is not None:
            if cache:
                key = torch.cat([cache[0], key], dim=2)
                value = torch.cat([cache[1], value], dim=2)
            cache[:] = key, value
        shared = self.heads // self.kv_heads
        key, value = (x.repeat_interleave(shared, dim=1) for x in (key, value))
        return self.o_proj(merge_heads(self.attend(query, key, value)))


class Layer(nn.Module):
    """Adds attention and then the feed-forward network to the residual stream."""

    def __init__(self, shape: LlamaShape):
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.mlp = FeedForward(shape)

    def forward(self, h: Tensor, angles: Tensor, cache: list[Tensor] | None = None) -> Tensor:
        h = h + self.self_attn(self.input_layernorm(h), angles, cache)
        return h + self.mlp(self.post_attention_layernorm(h))


class Llama(nn.Module):
    """Token ids (batch, T) to logits (batch, T, V); the embedding is also the output matrix.

    ``caches`` is a list with an empty list for each layer.  It is filled with the keys and values of the
    tokens, and a later call continues after them.
    """

    def __init__(self, shape: LlamaShape):
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        for matrix in (p for p in self.parameters() if p.ndim == 2):
            nn.init.normal_(matrix, std=0.02)

    def angles(self, positions: Tensor) -> Tensor:
        return rotary_angles(positions, self.shape.head_dim, self.shape.rope_theta)

    def hidden_states(self, ids: Tensor, caches: list[list[Tensor]] | None = None) -> list[Tensor]:
        start = caches[0][0].shape[2] if caches and caches[0] else 0
        angles = self.angles(torch.arange(start, start + ids.shape[1], device=ids.device))
        states = [self.embed_tokens(ids)]
        for index, layer in enumerate(self.layers):
            states.append(layer(states[-1], angles, caches[index] if caches else None))
        return states

    def read_out(self, h: Tensor) -> Tensor:
        return self.norm(h) @ self.embed_tokens.weight.T

    def forward(self, ids: Tensor, caches: list[list[Tensor]] | None = None) -> Tensor:
        return self.read_out(self.hidden_states(ids, caches)[-1])


def load_llama(model: str | Path) -> Llama:
    """Load "builtin:movies" or a folder with a Llama in fp32, without transformers.

    Every tensor is accounted for.  A copy of the tied embedding as ``lm_head.weight`` and saved rotary
    frequencies are allowed.  Raises :class:`InputError` for a folder without a Llama, with a part that
    this file does not have, or with tensors that do not fit its config.json.
    """
    folder = Path(BUILTIN.get(str(model), model))
    headers = check_folder(folder)
    shape = read_shape(folder)
    check_size(str(folder), shape.count(), headers)
    llama, weights = Llama(shape), dict[str, Tensor]()
    for file in weight_files(folder):
        weights |= {name.removeprefix("model."): tensor.float() for name, tensor in load_file(file).items()}
    own = llama.state_dict()
    different = [(n, weights[n].shape, own[n].shape) for n in own.keys() & weights.keys()]
    unexpected = weights.keys() - own.keys() - {"lm_head.weight"}
    check_names(str(folder), own.keys() - weights.keys(), unexpected, [d for d in different if d[1] != d[2]])
    check_finite(str(folder), weights)
    head = weights.get("lm_head.weight", weights["embed_tokens.weight"])
    if not torch.equal(head, weights["embed_tokens.weight"]):
        given = f"{folder} with an lm_head.weight that is not the embedding"
        raise InputError("model", given, "a Llama with tied embeddings")
    llama.load_state_dict({name: weights[name] for name in own})
    return llama.eval()


def read_shape(folder: Path) -> LlamaShape:
    """The sizes in a folder's config.json; parts that this file does not have are refused."""
    try:
        config = {"tie_word_embeddings": False, **json.loads((folder / "config.json").read_text("utf-8"))}
        config |= config.get("rope_parameters") or {}
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError("model", str(folder / "config.json"), "a JSON object") from error
    parts = {
        "model_type": "llama",
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rope_type": "default",
        "rope_scaling": None,
    }
    for name, wanted in parts.items():
        if config.get(name, wanted) != wanted:
            given = f"{folder} with {name} {config[name]!r}"
            raise InputError("model", given, f"a Llama with {name} {wanted!r}")
    sizes = {n: config[n] for n in LlamaShape.__dataclass_fields__ if config.get(n) is not None}
    for name in (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
    ):
        sizes.setdefault(name, 0)  # refused below
    for name, size in sizes.items():
        real = isinstance(size, float) and name in ("rope_theta", "rms_norm_eps")
        if not (real or type(size) is int) or not 0 < size < math.inf:
            raise InputError("model", f"{folder} with {name} {size!r}", "a config.json with positive sizes")
    sizes.setdefault("num_key_value_heads", sizes["num_attention_heads"])
    sizes.setdefault("head_dim", sizes["hidden_size"] // sizes["num_attention_heads"])
    shape = LlamaShape(**sizes)
    if shape.head_dim % 2 or shape.num_attention_heads % shape.num_key_value_heads:
        given = f"{folder} with heads of width {shape.head_dim}, {shape.num_attention_heads} for queries and {shape.num_key_value_heads} for keys"
        raise InputError("model", given, "an even width, and as many query heads for each key head")
    return shape
