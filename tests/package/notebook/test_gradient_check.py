"""check_gradient passes what is right, and nothing with a NaN in it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybridft_utils import check_gradient

POINT = torch.tensor([0.5, -1.0, 2.0, 0.25])


def squares(x):
    return (x**2).sum()


def test_passes_a_right_gradient_and_refuses_a_wrong_one():
    errors = check_gradient(squares, POINT, 2 * POINT)
    assert errors["autograd"] <= 1e-10 and errors["differences"] <= 1e-6
    with pytest.raises(AssertionError, match=r"differs from autograd by 1\.0e-03 relative"):
        check_gradient(squares, POINT, 2.002 * POINT)
    with pytest.raises(AssertionError, match=r"shape \(1, 4\), want \(4,\)"):
        check_gradient(squares, POINT, 2 * POINT[None])


@given(entry=st.integers(0, 3), value=st.sampled_from([math.nan, math.inf, -math.inf]))
def test_an_entry_that_is_not_finite_fails(entry, value):
    derived = 2 * POINT
    derived[entry] = value
    with pytest.raises(AssertionError):
        check_gradient(squares, POINT, derived)


@given(
    entry=st.integers(0, 3),
    kind=st.sampled_from(["constant", "everywhere", "slope", "above"]),
    value=st.sampled_from([math.nan, math.inf]),
)
def test_a_function_that_is_not_finite_fails(entry, kind, value):
    def function(x):
        if kind == "constant":
            return squares(x) + value
        if kind == "everywhere":
            return squares(x) * value
        if kind == "slope":
            return squares(x) + torch.sqrt(x[entry] - x[entry]) * (1 if value == math.inf else math.nan)
        return squares(x) + (value if x[entry] > POINT[entry].double() else 0.0)

    with pytest.raises(AssertionError):
        check_gradient(function, POINT, 2 * POINT)


@given(step=st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 1e-300]))
def test_a_step_that_measures_nothing_fails(step):
    with pytest.raises(AssertionError):
        check_gradient(squares, POINT, 2 * POINT, step=step)
