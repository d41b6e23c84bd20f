"""Texts of a pre-training: cleaned, packed into rows, and without what is held out."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridft_utils import InputError
from hybridft_utils.models.corpus import (
    PIECE,
    SHARED,
    clean,
    held_out_part,
    pack,
    part_by_hash,
    pieces,
    read_corpus,
    without_near_duplicates,
)


def test_rows_begin_with_the_start_token_and_lose_only_the_end():
    reviews = [[1, 2, 3], [1, 5], [1, 7, 8, 9, 10, 11, 12], [1, 13]]
    assert pack(reviews, 4).tolist() == [[1, 2, 3, 1], [1, 5, 1, 7], [1, 8, 9, 10], [1, 11, 12, 1]]
    assert pack([[1, 2]], 4).shape == (0, 4)


@given(st.text())
def test_a_cleaned_text_has_no_tags_capitals_or_runs_of_spaces(text):
    cleaned = clean(f"A<br />{text}")
    assert "<br />" not in cleaned.replace("<br<br />", "") and cleaned == " ".join(cleaned.lower().split())


def test_full_width_punctuation_stays():
    assert clean("\ufeff 房间很好，不错！ WiFi（快）\u3000早餐…") == "房间很好，不错！ wifi（快） 早餐…"


@given(st.lists(st.text(min_size=1)))
def test_the_hash_of_a_text_alone_decides_its_part(texts):
    kept, held = part_by_hash(texts)
    assert sorted(kept + held) == sorted(texts) and not set(kept) & set(held)
    assert part_by_hash(reversed(texts))[1] == held[::-1]


letters = st.text("abc", min_size=1, max_size=40)


@given(st.lists(letters, max_size=12), st.lists(letters, min_size=1, max_size=4))
def test_no_kept_text_shares_more_than_a_third_of_its_pieces(texts, held_out):
    def near(text):
        return any(
            len(pieces(text) & pieces(held)) > SHARED * min(len(pieces(text)), len(pieces(held)))
            for held in held_out
        )

    kept = without_near_duplicates(texts, held_out)
    assert kept == [text for text in dict.fromkeys(texts) if not near(text)]
    assert not set(kept) & set(held_out)


def test_a_text_inside_another_is_a_near_duplicate():
    held = "房间很干净，服务员态度也很好，下次还会来。"
    longer = "交通方便。" * 9 + held + "早餐一般。" * 9
    other = "手机屏幕很清楚，电池用得很久，值得购买。"
    assert without_near_duplicates([longer, other, held[:14], other], [held]) == [other]
    assert {len(piece) for piece in pieces(held)} == {PIECE}


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("好坏房间早餐服务手机"), 30)) for _ in range(200)]
    file = tmp_path / "reviews.csv"
    pd.DataFrame({"label": [0, 1] * 100, "review": texts}).to_csv(file, index=False)
    return file, texts


def test_test_parts_are_held_out(table):
    file, texts = table
    corpus = read_corpus([str(file)], [str(file)])
    assert sorted(corpus.training + corpus.held_out) == sorted(texts)
    assert 5 < len(corpus.held_out) < 40 and sorted(held_out_part(str(file))) == sorted(corpus.held_out)
    whole = read_corpus([str(file)])
    assert sorted(whole.training) == sorted(texts) and whole.held_out == []
    assert whole.fingerprint() != corpus.fingerprint()
    with pytest.raises(InputError, match="hold_out: got 'other'"):
        read_corpus([str(file)], ["other"])
