"""Notebook parameters: unknown names and bad values end in one sentence."""

import pytest
from pydantic import NonNegativeInt, PositiveFloat

from hybridft_utils import InputError, RunConfig, check_parameters
from hybridft_utils.notebook.parameters import injected_names

INJECTED = '# Parameters\nseed = 3\nrnak = 4\nwords = {"a": ["b"]}\n'


def test_injected_names_are_read_from_the_newest_injected_cell():
    assert injected_names(["x = 1", "# Parameters\nold = 1", INJECTED, "y = 2"]) == ["seed", "rnak", "words"]
    assert injected_names(["x = 1"]) == []


def test_good_values_are_checked_and_written_back():
    namespace = {"seed": 3, "rate": 1, "In": ["# Parameters\nseed = 3"]}
    check_parameters(namespace, seed=NonNegativeInt, rate=PositiveFloat)
    assert namespace["rate"] == 1.0 and isinstance(namespace["rate"], float)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"seed": -1}, "seed: got -1; accepted: greater than or equal to 0."),
        ({"seed": "x"}, "seed: got 'x'; accepted: a valid integer, unable to parse string as an integer."),
        ({"seed": 1, "rnak": 2}, "rnak: got 2; accepted: no such parameter; known are seed."),
    ],
)
def test_bad_values_are_one_sentence(values, sentence):
    namespace = {
        **values,
        "In": ["", "# Parameters\n" + "\n".join(f"{n} = {v!r}" for n, v in values.items())],
    }
    with pytest.raises(InputError) as caught:
        check_parameters(namespace, seed=NonNegativeInt)
    assert str(caught.value) == sentence
    assert caught.value._render_traceback_() == [f"InputError: {sentence}"]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"rank": 0}, r"^rank: got 0; accepted: greater than 0"),
        ({"rnak": 1}, r"^rnak: got 1; accepted: no such parameter; known are model, dataset"),
        ({"epochs": "many"}, r"^epochs: got 'many'"),
        ({"methods": ["magic"]}, r"^methods: got 'magic'; accepted: zero-shot, full"),
        ({"methods": ["lora+lora"]}, r"^methods: got 'lora\+lora'"),
        ({"methods": []}, r"^methods: got \[\]"),
        ({"template": "{text}"}, r"^template: got '{text}'"),
        ({"label_words": {"a": ["x"], "b": ["x"]}}, r"^label_words: got 'x for both a and b'"),
        ({"seeds": [1, 1]}, r"^seeds: got \[1, 1\]"),
        ({"seeds": []}, r"^seeds: got \[\]"),
        ({"precision": "fp8"}, r"^precision: got 'fp8'"),
        ({"learning_rate": -1.0}, r"^learning_rate"),
    ],
)
def test_run_config_refuses_in_one_sentence(settings, match):
    with pytest.raises(InputError, match=match) as caught:
        RunConfig(**settings)
    assert "\n" not in str(caught.value)


def test_learning_rates_by_kind():
    rates = RunConfig(learning_rate={"lora": 0.5}).rates()
    assert rates["lora"] == 0.5 and rates["prefix"] == RunConfig().rates()["prefix"]
    assert set(RunConfig(learning_rate=0.1).rates().values()) == {0.1}
    with pytest.raises(InputError, match=r"^learning_rate: got 'laro'"):
        RunConfig(learning_rate={"laro": 0.5}).rates()


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_number_that_is_not_finite_is_refused(value):
    with pytest.raises(InputError, match=r"^rate: got .*; accepted: a finite number"):
        check_parameters({"rate": value}, rate=float)
