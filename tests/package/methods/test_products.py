"""oneDNN's linear layer gives what PyTorch's own gives: output, every gradient, and the count of its operations."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers.pytorch_utils import Conv1D

from hybridft_utils import (
    FullFineTuning,
    LoRA,
    PromptClassifier,
    PromptTemplate,
    Verbalizer,
    attach,
    load_base,
)
from hybridft_utils.methods import products
from hybridft_utils.methods.products import FEWEST_ROWS, FastLinear

ROWS = FEWEST_ROWS


@pytest.fixture(autouse=True)
def wide(monkeypatch) -> None:
    """As on a processor with AVX-512: oneDNN itself runs on any."""
    monkeypatch.setattr(products, "WIDE", True)


def gradients(layer: nn.Module, x: Tensor, weights: Tensor) -> list[Tensor]:
    y = layer(x)
    wanted = [t for t in (x, *layer.parameters()) if t.requires_grad]
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), wanted)]


@settings(deadline=None, max_examples=40)
@given(
    texts=st.integers(1, 5),
    width=st.integers(1, 24),
    out=st.integers(1, 24),
    bias=st.booleans(),
    frozen=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_output_and_gradients(texts, width, out, bias, frozen, seed) -> None:
    torch.manual_seed(seed)
    layer = nn.Linear(width, out, bias=bias).requires_grad_(not frozen)
    x, weights = torch.randn(texts, ROWS, width).requires_grad_(), torch.randn(texts, ROWS, out)
    plain = gradients(layer, x, weights)
    with FastLinear():
        made = layer(x).grad_fn
        assert type(made).__name__ == "LinearBackward"
        assert (made.saved_tensors[0] is None) == frozen, "an input is kept for a weight's gradient alone"
        fast = gradients(layer, x, weights)
    for a, b in zip(fast, plain, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max().clamp_min(1e-6)


@pytest.mark.parametrize("frozen", [False, True])
def test_conv1d(frozen) -> None:
    torch.manual_seed(0)
    layer = Conv1D(8, 8).requires_grad_(not frozen)
    x, weights = torch.randn(2, ROWS, 8).requires_grad_(), torch.randn(2, ROWS, 8)
    plain = gradients(layer, x, weights)
    with FastLinear():
        assert type(layer(x).grad_fn.next_functions[0][0]).__name__ == "LinearBackward"
        fast = gradients(layer, x, weights)
    for a, b in zip(fast, plain, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


def test_what_onednn_does_not_take_goes_to_pytorch() -> None:
    layer = nn.Linear(4, 4)
    with FastLinear():
        for x in (torch.randn(ROWS - 1, 4), torch.randn(ROWS, 4, dtype=torch.float64)):
            y = layer.to(x.dtype)(x)
            assert type(y.grad_fn).__name__ == "AddmmBackward0" and torch.equal(
                y, F.linear(x, *layer.parameters())
            )
        with torch.autocast("cpu", torch.bfloat16):
            assert layer.float()(torch.randn(ROWS, 4)).dtype == torch.bfloat16


def test_operations_are_counted() -> None:
    layer, x = nn.Linear(6, 5), torch.randn(ROWS, 6, requires_grad=True)
    with FlopCounterMode(display=False) as counter, FastLinear():
        layer(x).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * ROWS * 6 * 5


@pytest.mark.parametrize("method", [FullFineTuning(), LoRA()], ids=lambda m: m.kind)
def test_a_classifiers_loss_and_gradients(method, monkeypatch) -> None:
    torch.manual_seed(0)
    base, tokenizer = load_base("builtin:movies")
    words = Verbalizer({"negative": ["terrible"], "positive": ["great"]})
    classifier = PromptClassifier(base, tokenizer, PromptTemplate(), words)
    tuning = attach(classifier, method)
    with torch.no_grad():
        for parameter in tuning.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    texts, labels = (
        ["A fine film.", "Dull, dull, dull!", "Not a good film at all.", "Fun"] * 4,
        [1, 0, 0, 1] * 4,
    )
    found = []
    for wide in (True, False):
        monkeypatch.setattr(products, "WIDE", wide)
        with FlopCounterMode(display=False) as counter:
            loss = classifier.loss(texts, labels)
            grads = torch.autograd.grad(loss, tuning.parameters(), materialize_grads=True)
        found.append((counter.get_total_flops(), loss, grads))
    (fast_count, fast_loss, fast), (count, plain_loss, plain) = found
    assert fast_count == count
    assert torch.allclose(fast_loss, plain_loss, rtol=1e-5)
    largest = max(g.abs().max() for g in plain)
    assert all((a - b).abs().max() <= 1e-5 * largest for a, b in zip(fast, plain, strict=True))
