"""``check_mine`` judges whatever a reader hands in, and never raises for it."""

import pytest
import torch

from hybridft_utils import InputError, check_mine
from hybridft_utils.exercises.grade import GRADERS


def raises(*_):
    raise RuntimeError("broken\nfor two lines")


def stub(*_): ...


@pytest.mark.parametrize("name", GRADERS)
@pytest.mark.parametrize(
    ("mine", "said"),
    [
        (stub, ("it returns None", "is no nn.Module")),
        (..., ("give the function or class itself, not ellipsis",)),
        (None, ("give the function or class itself, not NoneType",)),
        (raises, ("it raises RuntimeError: broken",)),
        (lambda: None, ("it raises TypeError",)),
        (lambda *given: "text", ("it returns str", "is no nn.Module")),
        (lambda *given: torch.zeros(1, 2, 3, 4, 5), ("it returns", "is no nn.Module")),
        (int, ("it raises TypeError",)),
    ],
)
def test_a_mistake_becomes_one_sentence(name: str, mine: object, said: tuple[str, ...]) -> None:
    grade = check_mine(name, mine)
    assert not grade
    sentence = repr(grade)
    assert sentence.startswith(f"{name}: not yet: ") and sentence.endswith(".") and "\n" not in sentence
    assert any(part in sentence for part in said), sentence


def test_a_right_answer_is_true_and_leaves_the_random_state() -> None:
    before = torch.get_rng_state()
    grade = check_mine("03.attention", torch.nn.functional.scaled_dot_product_attention)
    assert not grade  # its fourth argument is a mask
    grade = check_mine(
        "03.attention",
        lambda q, k, v, causal: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal),
    )
    assert grade and repr(grade) == "03.attention: right."
    assert torch.equal(before, torch.get_rng_state())


def test_a_notebook_in_float64_is_graded_alike() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        grade = check_mine(
            "02.cross_entropy_gradient",
            lambda z, y: (z.softmax(1) - torch.nn.functional.one_hot(y, z.shape[1])) / len(y),
        )
        assert grade, grade
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", ["03.atention", 3, None, ["03.attention"]])
def test_an_unknown_name_lists_the_names(name: object) -> None:
    with pytest.raises(InputError, match=r"accepted: one of 01\.bpe_merge, 02\."):
        check_mine(name, print)
