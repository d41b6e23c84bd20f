"""A classifier's description: JSON, and back to the same classifier."""

import json

import pytest
import torch

from hybridft_utils import HeadClassifier, InputError, PromptClassifier, PromptTemplate, Verbalizer
from hybridft_utils.classifiers import restore

TEXTS = ["I loved it.", "A long and rather dull evening.", "No."]
WORDS = {"negative": ["terrible", "a waste of time"], "positive": ["great"]}


def through_json(classifier):
    return json.loads(json.dumps(classifier.describe()))


@pytest.mark.parametrize("calibrated", [False, True])
def test_prompt_classifier_comes_back_with_the_same_logits(llama, tokenizer, calibrated):
    words = Verbalizer(dict(reversed(WORDS.items())))
    made = PromptClassifier(llama, tokenizer, PromptTemplate("{text} All in all {label}"), words, 48)
    if calibrated:
        made.calibrate()
    restored = restore(llama, tokenizer, through_json(made))
    assert restored.labels == ["positive", "negative"] and restored.max_length == 48
    assert torch.equal(restored.predict_logits(TEXTS), made.predict_logits(TEXTS))
    assert restored.describe() == made.describe()


def test_head_classifier_comes_back_with_its_settings(encoder, masked_tokenizer):
    made = HeadClassifier(encoder, masked_tokenizer, ["no", "perhaps", "yes"], "cls", 0.25, 32)
    restored = restore(encoder, masked_tokenizer, through_json(made))
    restored.head.load_state_dict(made.head.state_dict())
    assert torch.equal(restored.predict_logits(TEXTS), made.predict_logits(TEXTS))
    assert restored.describe() == made.describe()
    assert restored.describe() == {
        "kind": "head",
        "labels": ["no", "perhaps", "yes"],
        "max_length": 32,
        "pooling": "cls",
        "dropout": 0.25,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "bag of words"}, "^classifier: got .*kind prompt or head"),
        ({"kind": ["prompt"]}, "^classifier: got "),
        ({"template": "{text}"}, "^template: got "),
        ({"template": None}, "^template: got None"),
        ({"labels": ["positive", "negative"]}, "^labels: got .*in the labels' order"),
        ({"labels": ["negative", "negative"]}, "^labels: got "),
        ({"prior": [0.0]}, "^labels: got .*1 priors"),
        ({"prior": [0.0, float("nan")]}, r"^prior\.1: got nan"),
        ({"label_words": {"negative": ["great"], "positive": ["great"]}}, "^label_words: got "),
        ({"label_words": {"negative": "bad", "positive": ["great"]}}, "^label_words.negative: got 'bad'"),
        ({"max_length": 65}, "^max_length: got 65"),
        ({"max_length": "48"}, "^max_length: got '48'"),
        ({"pooling": "mean"}, "^pooling: got 'mean'"),
    ],
)
def test_damaged_descriptions_are_refused_in_one_sentence(llama, tokenizer, change, message):
    described = PromptClassifier(llama, tokenizer, PromptTemplate(), Verbalizer(WORDS)).describe()
    with pytest.raises(InputError, match=message) as caught:
        restore(llama, tokenizer, {**described, **change})
    assert "\n" not in str(caught.value)


def test_descriptions_with_missing_settings_are_refused(llama, tokenizer):
    described = PromptClassifier(llama, tokenizer, PromptTemplate(), Verbalizer(WORDS)).describe()
    for name in described:
        with pytest.raises(InputError):
            restore(llama, tokenizer, {key: value for key, value in described.items() if key != name})
    for damaged in (None, [], "prompt", 3):
        with pytest.raises(InputError, match=r"^classifier: got "):
            restore(llama, tokenizer, damaged)
