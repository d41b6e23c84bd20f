"""Settings of a run: what cannot be a setting is refused in one sentence."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridft_utils import InputError, RunConfig

NUMBERS = {
    "alpha": st.floats(max_value=0),
    "lora_dropout": st.floats(max_value=-1e-9) | st.floats(min_value=1),
    "learning_rate": st.floats(max_value=0),
    "warmup": st.floats(max_value=-1e-9) | st.floats(min_value=1.001),
    "weight_decay": st.floats(max_value=-1e-9),
    "clip": st.floats(max_value=0),
}
COUNTS = (
    "rank",
    "prefix_length",
    "prompt_length",
    "bottleneck",
    "epochs",
    "batch_size",
    "train_size",
    "max_length",
)
WIDTHS = ("rank", "prefix_length", "prompt_length", "bottleneck")
NO_NUMBER = st.sampled_from([math.inf, -math.inf, math.nan, True, False, "many", [], {}])
BAD = st.one_of(
    *(st.tuples(st.just(n), values | NO_NUMBER) for n, values in NUMBERS.items()),
    *(st.tuples(st.just(n), st.integers(max_value=0) | NO_NUMBER) for n in COUNTS),
    *(st.tuples(st.just(n), st.integers(min_value=2**16 + 1)) for n in WIDTHS),
    st.tuples(
        st.just("seeds"),
        st.lists(
            st.integers(min_value=2**32) | st.integers(max_value=-1) | NO_NUMBER, min_size=1, max_size=3
        ),
    ),
)


@given(BAD)
@settings(deadline=None, max_examples=400)
def test_numbers_that_cannot_be_meant_are_refused_by_name(pair):
    name, value = pair
    if (name, value) == ("learning_rate", {}):  # no rate of one's own
        return
    with pytest.raises(InputError, match=rf"^{name}(\.[\w]+)?: got ") as caught:
        RunConfig(**{name: value})
    assert "\n" not in str(caught.value)


def test_a_rate_for_each_method_is_checked_as_well():
    with pytest.raises(InputError, match=r"^learning_rate.lora: got inf; accepted: a finite number"):
        RunConfig(learning_rate={"lora": math.inf})
    assert RunConfig(seeds=[2**32 - 1], learning_rate={"lora": 1e-3}).rates()["lora"] == 1e-3
