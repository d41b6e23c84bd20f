"""Both classifiers against the plain computation, one text at a time."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from hybridft_utils import HeadClassifier, InputError, PromptClassifier, PromptTemplate, Verbalizer
from hybridft_utils.classifiers.prompt_classifier import CONTENT_FREE

TEXTS = ["I loved it.", "A long and rather dull evening, to be honest, with two good songs.", "No."]
WORDS = {"negative": ["terrible", "a waste of time"], "positive": ["great", "a joy"]}


def slow_causal_score(model, tokenizer, template, text, word):
    """log p(word | prompt), a forward pass for the whole text, no batch, no shortcut."""
    context = tokenizer(template.context(text), return_tensors="pt").input_ids
    whole = tokenizer(template.context(text) + template.label_space + word, return_tensors="pt").input_ids
    log_p = model(whole).logits.log_softmax(-1)[0]
    positions = range(context.shape[1], whole.shape[1])
    return sum(log_p[i - 1, whole[0, i]] for i in positions)


def test_causal_scores_are_the_words_probabilities(llama, tokenizer):
    template = PromptTemplate()
    classifier = PromptClassifier(llama, tokenizer, template, Verbalizer(WORDS)).eval()
    with torch.no_grad():
        got = classifier.logits(TEXTS)
        for row, text in enumerate(TEXTS):
            for column, words in enumerate(WORDS.values()):
                each = torch.stack([slow_causal_score(llama, tokenizer, template, text, w) for w in words])
                torch.testing.assert_close(got[row, column], each.exp().mean().log(), rtol=1e-5, atol=1e-5)


def test_masked_scores_use_one_mask_a_token(bert, masked_tokenizer):
    template = PromptTemplate("{label}, I thought: {text}")
    classifier = PromptClassifier(bert, masked_tokenizer, template, Verbalizer(WORDS)).eval()
    mask = masked_tokenizer.mask_token
    with torch.no_grad():
        got = classifier.logits(TEXTS)
        for row, text in enumerate(TEXTS):
            for column, words in enumerate(WORDS.values()):
                each = []
                for word in words:
                    tokens = masked_tokenizer(word, add_special_tokens=False).input_ids
                    ids = masked_tokenizer(
                        template.fill(text, " ".join([mask] * len(tokens))), return_tensors="pt"
                    ).input_ids
                    slots = (ids[0] == masked_tokenizer.mask_token_id).nonzero().flatten()
                    assert len(slots) == len(tokens)
                    log_p = bert(ids).logits.log_softmax(-1)[0, slots]
                    each.append(sum(log_p[i, token] for i, token in enumerate(tokens)))
                torch.testing.assert_close(
                    got[row, column], torch.stack(each).exp().mean().log(), rtol=1e-5, atol=1e-5
                )


def test_calibration_makes_content_free_texts_neutral(llama, tokenizer):
    classifier = PromptClassifier(llama, tokenizer, PromptTemplate(), Verbalizer(WORDS))
    before = classifier.predict_logits(TEXTS)
    classifier.calibrate()
    mean = classifier.predict_logits(list(CONTENT_FREE)).mean(0)
    torch.testing.assert_close(mean - mean.mean(), torch.zeros(2), atol=1e-5, rtol=0)
    shift = before - classifier.predict_logits(TEXTS)
    torch.testing.assert_close(shift, shift[:1].expand_as(shift))
    classifier.calibrate()
    torch.testing.assert_close(classifier.predict_logits(list(CONTENT_FREE)).mean(0), mean)


def test_long_texts_are_cut_and_the_prompt_kept(llama, tokenizer):
    classifier = PromptClassifier(llama, tokenizer, PromptTemplate(), Verbalizer(WORDS))
    row = classifier.encode_all(["word " * 500])[0]
    assert len(row) <= 64 - 1
    assert tokenizer.decode(row).endswith("it was")
    assert classifier.logits(["word " * 500]).isfinite().all()


LONG_WORDS = {"negative": ["a complete and utter waste of time"], "positive": ["great", "a joy"]}
pieces = st.sampled_from(["good ", "🎬", "👩‍👩‍👧", "好", "é", "\n", "antidisestablishment", "?!", " "])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(pieces, min_size=10, max_size=90), max_length=st.integers(24, 64), masked=st.booleans())
def test_no_prompt_with_its_label_exceeds_max_length(
    llama, bert, tokenizer, masked_tokenizer, parts, max_length, masked
):
    model, words = (bert, masked_tokenizer) if masked else (llama, tokenizer)
    classifier = PromptClassifier(model, words, PromptTemplate(), Verbalizer(LONG_WORDS), max_length)
    for _, tokens in classifier.words:
        (row,) = classifier.encode_all(["".join(parts)], masks=len(tokens))
        assert len(row) + (0 if masked else len(tokens)) <= max_length
        assert words.decode(row).rstrip(" .").endswith("<mask>" if masked else "it was")


def test_long_texts_and_label_words_stay_inside_the_context(tokenizer):
    """GPT-2 has no position after its context: one token too many is an IndexError."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=8192, n_positions=64, n_embd=32, n_layer=1, n_head=2))
    classifier = PromptClassifier(model.eval(), tokenizer, PromptTemplate(), Verbalizer(LONG_WORDS))
    texts = ["🎬" * n + "good " * m for n in range(0, 40, 3) for m in range(0, 70, 9)]
    assert classifier.predict_logits(["fine", *texts]).isfinite().all()


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_sizes_below_one_are_refused(llama, tokenizer, batch_size):
    classifier = PromptClassifier(llama, tokenizer, PromptTemplate(), Verbalizer(WORDS))
    for answer in (classifier.predict, classifier.predict_logits):
        with pytest.raises(InputError, match=f"^batch_size: got {batch_size}"):
            answer(TEXTS, batch_size=batch_size)


def test_logits_that_are_no_numbers_are_refused(llama, encoder, tokenizer, masked_tokenizer):
    prompted = PromptClassifier(llama, tokenizer, PromptTemplate(), Verbalizer(WORDS))
    headed = HeadClassifier(encoder, masked_tokenizer, ["a", "b"])
    with torch.no_grad():
        llama.model.norm.weight.fill_(float("nan"))
        headed.head.weight[0, 0] = float("nan")
    for classifier in (prompted, headed):
        with pytest.raises(InputError, match=r"^model: got 'logits that are no numbers for 3 of 3 texts'"):
            classifier.predict(TEXTS)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_head_pools_the_text_only(encoder, masked_tokenizer, pooling):
    classifier = HeadClassifier(encoder, masked_tokenizer, ["a", "b"], pooling).eval()
    with torch.no_grad():
        together = classifier.logits(TEXTS)
        for row, text in enumerate(TEXTS):
            hidden = encoder(
                **masked_tokenizer(text, return_tensors="pt", return_token_type_ids=False)
            ).last_hidden_state[0]
            pooled = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pooling]
            torch.testing.assert_close(together[row], classifier.head(pooled), rtol=1e-5, atol=1e-6)


def test_starts_in_the_mode_of_its_model(encoder, masked_tokenizer):
    encoder.config.hidden_dropout_prob = 0.1
    fresh = HeadClassifier(encoder, masked_tokenizer, ["no", "yes"])
    assert torch.equal(fresh.logits(TEXTS), fresh.logits(TEXTS)), "a loaded model is in evaluation mode"
    trained = HeadClassifier(encoder.train(), masked_tokenizer, ["no", "yes"])
    assert not torch.equal(trained.logits(TEXTS), trained.logits(TEXTS)), "dropout is on"


def test_predictions_do_not_depend_on_the_batch(llama, tokenizer):
    classifier = PromptClassifier(llama, tokenizer, PromptTemplate(), Verbalizer(WORDS))
    one, many = (classifier.predict_logits(TEXTS, batch_size=b) for b in (1, 8))
    torch.testing.assert_close(one, many, rtol=1e-5, atol=1e-5)
    assert classifier.predict([]) == [] and set(classifier.predict(TEXTS)) <= {"negative", "positive"}


def test_bad_input(llama, bert, encoder, tokenizer, masked_tokenizer):
    verbalizer = Verbalizer(WORDS)
    for match, make in {
        r"^model: got 'BertModel'": lambda: PromptClassifier(
            encoder, masked_tokenizer, PromptTemplate(), verbalizer
        ),
        r"^template: .*after": lambda: PromptClassifier(
            llama, tokenizer, PromptTemplate("{label} {text}"), verbalizer
        ),
        r"^label_words: .*same tokens": lambda: PromptClassifier(
            llama, tokenizer, PromptTemplate(), Verbalizer({"a": ["Great"], "b": ["great"]})
        ),
        r"^template: .*shorter": lambda: PromptClassifier(
            llama, tokenizer, PromptTemplate("{text} " + "so " * 80 + "{label}"), verbalizer
        ),
        r"^max_length: got 65": lambda: HeadClassifier(llama, tokenizer, ["a", "b"], max_length=65),
        r"^pooling: got 'max'": lambda: HeadClassifier(llama, tokenizer, ["a", "b"], "max"),
    }.items():
        with pytest.raises(InputError, match=match):
            make()
    classifier = PromptClassifier(llama, tokenizer, PromptTemplate(), verbalizer)
    with pytest.raises(InputError, match="empty text at index 1"):
        classifier.predict(["fine", " "])
    with pytest.raises(InputError, match="a list of texts"):
        classifier.predict("fine")
    masked = PromptClassifier(bert, masked_tokenizer, PromptTemplate(), verbalizer)
    with pytest.raises(InputError, match="without mask tokens"):
        masked.logits(["a <mask> in it"])
