"""Muon: orthogonalised steps, equal to torch's own up to its precision."""

import torch

from hybridft_utils.models.muon import Muon, orthogonalise


def test_orthogonalised_matrices_have_singular_values_near_one():
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(3, 8, 20)))
    assert values.min() > 0.6 and values.max() < 1.3


def test_muon_is_torchs_muon_up_to_its_precision():
    torch.manual_seed(0)
    start, gradient = torch.randn(12, 8), torch.randn(12, 8)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    steps = [
        Muon([ours], lr=0.02, weight_decay=0.1),
        torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, nesterov=True),
    ]
    for parameter, optimizer in zip((ours, theirs), steps, strict=True):
        for scale in (1.0, 0.5, -2.0):
            parameter.grad = gradient * scale
            optimizer.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() / moved < 0.05
