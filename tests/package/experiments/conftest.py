"""Small data and settings that the tests of training and of runs share."""

import pandas as pd
import pytest

from hybridft_utils import PromptClassifier, PromptTemplate, RunConfig, Verbalizer
from hybridft_utils.experiments.splits import Split

WORDS = {"negative": ["terrible"], "positive": ["great"]}


def easy_split(n):
    """Texts that one word decides."""
    texts = [f"a {'great' if i % 2 else 'terrible'} film number {i}" for i in range(n)]
    return Split(texts, [i % 2 for i in range(n)])


@pytest.fixture
def easy():
    return easy_split


@pytest.fixture
def classifier(llama, tokenizer):
    return PromptClassifier(llama, tokenizer, PromptTemplate(), Verbalizer(WORDS))


@pytest.fixture
def data_folder(tmp_path):
    folder = tmp_path / "reviews"
    folder.mkdir()
    for name, n in (("train", 48), ("dev", 16), ("test", 20)):
        split = easy_split(n)
        pd.DataFrame({"text": split.texts, "label": split.labels}).to_csv(folder / f"{name}.csv", index=False)
    return folder


@pytest.fixture
def small(model_folder, data_folder, tmp_path):
    """Makes the settings of a small run, into tmp_path / "out"."""

    def make(**settings):
        sizes = {"epochs": 1, "prefix_length": 4, "output_dir": str(tmp_path / "out")}
        return RunConfig(**{"model": str(model_folder), "dataset": str(data_folder), **sizes, **settings})

    return make


@pytest.fixture
def encoder_folder(encoder, masked_tokenizer, tmp_path):
    folder = tmp_path / "encoder"
    encoder.save_pretrained(folder)
    masked_tokenizer.save_pretrained(folder)
    return folder
