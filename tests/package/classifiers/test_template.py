"""Templates and verbalizers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridft_utils import InputError, PromptTemplate, Verbalizer


def test_template_fills_and_cuts_at_the_label():
    template = PromptTemplate("Review: {text} It was {label}.")
    assert template.fill("So {label} good.", "great") == "Review: So {label} good. It was great."
    assert template.fill("Fine.", "{text} {label}") == "Review: Fine. It was {text} {label}."
    assert template.context("Fine.") == "Review: Fine. It was"
    assert template.label_space == " " and template.label_last
    chinese = PromptTemplate("{text} 这段文字的情感是{label}。")
    assert chinese.label_space == "" and chinese.context("好") == "好 这段文字的情感是"
    assert not PromptTemplate("A {label} one: {text}").label_last


pieces = st.lists(
    st.sampled_from(["{text}", "{label}", "{", "}", "{0}", "%s", "\\1", "fine", " "]), max_size=5
)


@given(text=pieces.map("".join), word=pieces.map("".join), between=st.sampled_from([" It was ", ": ", "\n"]))
def test_whatever_is_put_in_is_put_in_as_it_is(text, word, between):
    assert PromptTemplate(f"{{text}}{between}{{label}}.").fill(text, word) == f"{text}{between}{word}."
    assert PromptTemplate(f"{{label}}{between}{{text}}.").fill(text, word) == f"{word}{between}{text}."


@pytest.mark.parametrize(
    "pattern", ["no slots", "{text} only", "{label} {label} {text}", "{text} {label} {other}"]
)
def test_template_without_its_slots_is_refused(pattern):
    with pytest.raises(InputError, match=r"^template: got "):
        PromptTemplate(pattern)


@pytest.mark.parametrize(
    "words",
    [
        {"good": ["great"]},
        {"good": ["great"], "bad": []},
        {"good": ["fine"], "bad": ["fine"]},
        {"a": [" "], "b": ["x"]},
    ],
)
def test_missing_or_identical_label_words_are_refused(words):
    with pytest.raises(InputError, match=r"^label_words: got "):
        Verbalizer(words)


def test_verbalizer_takes_one_word_or_several():
    verbalizer = Verbalizer({"bad": "awful", "good": ["great", "fine"]})
    assert verbalizer.labels == ["bad", "good"] and verbalizer.words["good"] == ("great", "fine")
