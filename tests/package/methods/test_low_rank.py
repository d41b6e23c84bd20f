"""The fused operation gives what the plain layer of chapter 06 gives: outputs and every gradient."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hybridft_utils.methods.lora import FusedLoRALinear, LoRALinear
from hybridft_utils.methods.low_rank import LowRankUpdate


def pair(base: nn.Module, rank: int, alpha: float) -> tuple[LoRALinear, FusedLoRALinear]:
    """The plain and the fused layer with the same weights, B not zero."""
    base.requires_grad_(False)
    plain = LoRALinear(base, rank, alpha)
    nn.init.normal_(plain.lora_B)
    fused = FusedLoRALinear(base, rank, alpha)
    fused.load_state_dict(plain.state_dict())
    return plain, fused


def gradients(layer: nn.Module, x: Tensor, weights: Tensor) -> list[Tensor]:
    """The output, and the gradients of the input, A and B."""
    x = x.clone().requires_grad_()
    y = layer(x)
    return [y.detach(), *torch.autograd.grad((y.float() * weights).sum(), [x, layer.lora_A, layer.lora_B])]


def close(a: Tensor, b: Tensor, bound: float) -> bool:
    return ((a - b).abs().max() <= bound * b.abs().max().clamp_min(1e-6)).item()


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 40),
    width=st.integers(1, 24),
    out=st.integers(1, 24),
    rank=st.integers(1, 4),
    conv=st.booleans(),
    bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_equals_the_plain_layer(rows, width, out, rank, conv, bias, seed) -> None:
    torch.manual_seed(seed)
    base = Conv1D(out, width) if conv else nn.Linear(width, out, bias=bias)
    plain, fused = pair(base, rank, 2.0 * rank)
    x, weights = torch.randn(2, rows, width), torch.randn(2, rows, out)
    assert fused.fusible(x)
    for ours, theirs in zip(gradients(fused, x, weights), gradients(plain, x, weights), strict=True):
        assert close(ours, theirs, 1e-5)


@pytest.mark.parametrize("rows", [1, 64], ids=["two products", "one product"])
def test_gradients_against_differences(rows: int) -> None:
    torch.manual_seed(0)
    x, W, b, A, B = (torch.randn(s, dtype=torch.float64) for s in ((rows, 4), (3, 4), (3,), (2, 4), (3, 2)))
    given = [t.requires_grad_() for t in (x, A, B)]
    assert torch.autograd.gradcheck(lambda x, A, B: LowRankUpdate.apply(x, W, b, A, B, 0.5), given)


def test_autocast_computes_in_half_precision() -> None:
    torch.manual_seed(0)
    plain, fused = pair(nn.Linear(64, 64), 4, 4.0)
    x = torch.randn(200, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert fused(x).dtype == torch.bfloat16
        ours, theirs = gradients(fused, x, torch.ones(200, 64)), gradients(plain, x, torch.ones(200, 64))
    for a, b in zip(ours, theirs, strict=True):
        assert close(a.float(), b.float(), 0.02)


def test_autocast_keeps_updates_that_the_sum_with_the_base_would_round_away() -> None:
    torch.manual_seed(0)
    _, fused = pair(nn.Linear(64, 64, bias=False), 4, 4.0)
    nn.init.ones_(fused.base.weight)
    with torch.no_grad():
        fused.lora_B.mul_(1e-3)
    x = torch.ones(200, 64)
    x[:, ::2] = -1  # so that the base's output is zero
    with torch.autocast("cpu", torch.bfloat16):
        ours = fused(x)
    assert close(ours.float(), x @ fused.delta().T, 0.02)


def test_falls_back_where_one_product_would_be_wrong() -> None:
    x = torch.randn(3, 8)
    base = nn.Linear(8, 8)
    assert not FusedLoRALinear(base, 2, 4.0).fusible(x), "a base that is trained itself"
    base.requires_grad_(False)
    assert not FusedLoRALinear(base, 2, 4.0, dropout=0.1).fusible(x)
    assert FusedLoRALinear(base, 2, 4.0, dropout=0.1).eval().fusible(x)
    hooked = copy.deepcopy(base)
    hooked.register_forward_hook(lambda module, args, y: y + 1)
    layer = FusedLoRALinear(hooked, 2, 4.0)
    assert torch.equal(layer(x), hooked(x))
    half = copy.deepcopy(base).half()
    assert not FusedLoRALinear(half, 2, 4.0).fusible(x.half()), "a half-precision base keeps single updates"


def test_no_gradient_of_the_base_is_formed_and_none_of_an_input_that_needs_none() -> None:
    _, fused = pair(nn.Linear(6, 5), 2, 4.0)
    fused(torch.randn(4, 6)).sum().backward()
    assert fused.base.weight.grad is None
    assert fused.lora_A.grad is not None and fused.lora_B.grad is not None
