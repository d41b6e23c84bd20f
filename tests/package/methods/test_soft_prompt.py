"""Soft prompts: what the model sees, what comes out, starts, limits."""

import pytest
import torch
from tiny_models import CONTEXT, DECODERS, KINDS, WIDTH, batch, jitter, largest, tiny
from transformers import AutoModel

from hybridft_utils import InputError, SoftPrompt, attach


@pytest.mark.parametrize("kind", [*DECODERS, "bert"])
def test_is_vectors_in_front_of_the_embeddings(kind):
    inputs, model = batch("full"), tiny(kind)
    tuning = attach(model, SoftPrompt(4))
    got = model(**inputs).logits
    front = tuning.parameters()[0].detach().expand(3, -1, -1)
    tuning.detach()
    embedded = torch.cat([front, model.get_input_embeddings()(inputs["input_ids"])], dim=1)
    expected = model(inputs_embeds=embedded).logits[:, 4:]
    assert got.is_contiguous()
    assert largest(got, expected) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_are_those_of_the_text(kind):
    inputs, model = batch("right"), tiny(kind)
    attach(model, SoftPrompt(4))
    output = model(**inputs, output_hidden_states=True)
    assert output.logits.shape == tiny(kind)(**inputs).logits.shape
    assert {h.shape[1] for h in output.hidden_states} == {9}
    assert model(**inputs, return_dict=False)[0].shape == output.logits.shape


def test_a_bare_encoder_with_its_pooler():
    model = AutoModel.from_config(tiny("bert").config).eval()
    attach(model, SoftPrompt(4))
    output = model(**batch(), token_type_ids=torch.ones(3, 9, dtype=torch.long))
    assert output.last_hidden_state.shape == (3, 9, WIDTH)
    assert torch.equal(output.pooler_output, model.pooler(output.last_hidden_state))


def test_embeddings_may_be_given_instead_of_tokens():
    inputs, model = batch("left"), tiny("llama")
    attach(model, SoftPrompt(4))
    embedded = model.get_input_embeddings()(inputs["input_ids"])
    got = model(inputs_embeds=embedded, attention_mask=inputs["attention_mask"]).logits
    assert torch.equal(got, model(**inputs).logits)
    with pytest.raises(InputError, match="input_ids"):
        model.model()


def test_a_mask_of_rows_and_keys():
    inputs, model = batch("full"), tiny("llama-gqa")
    attach(model, SoftPrompt(4))
    rows = torch.ones(3, 1, 9, 9).tril().bool()
    for mask in (rows, torch.zeros(3, 1, 9, 9).masked_fill(~rows, torch.finfo(torch.float32).min)):
        got = model(input_ids=inputs["input_ids"], attention_mask=mask).logits
        assert largest(got, model(**inputs).logits) < 1e-6


class Tokenizer:
    def __call__(self, text, add_special_tokens):
        return type("Encoded", (), {"input_ids": [5 + len(word) for word in text.split()]})()


def test_starts():
    model = tiny("llama")
    words = model.get_input_embeddings().weight
    options = {"tokenizer": Tokenizer(), "task_text": "good or bad"}
    task = attach(model, SoftPrompt(4, init="task"), **options)
    assert torch.equal(task.parameters()[0], words[[9, 7, 8, 9]])
    task.detach()
    vocab = attach(model, SoftPrompt(4)).parameters()[0]
    assert all((words == row).all(1).any() for row in vocab)
    torch.manual_seed(0)
    random = attach(tiny("gpt2"), SoftPrompt(60, init="random")).parameters()[0]
    assert random.std().item() == pytest.approx(tiny("gpt2").transformer.wte.weight.std().item(), rel=0.1)


def test_count_and_precision():
    tuning = attach(tiny("llama").bfloat16(), SoftPrompt(6))
    assert tuning.count().trained == 6 * WIDTH
    assert tuning.parameters()[0].dtype == torch.float32
    assert tuning.model(**batch()).logits.dtype == torch.bfloat16


def test_trains():
    inputs, model = batch(), tiny("bert-classifier")
    tuning = attach(model, SoftPrompt(4))
    jitter(tuning)
    model(**inputs, labels=torch.tensor([0, 1, 0])).loss.backward()
    assert tuning.parameters()[0].grad.abs().max() > 0


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="prompt_length: got 0"):
        SoftPrompt(0)
    with pytest.raises(InputError, match="init: got 'zero'"):
        SoftPrompt(init="zero")
    with pytest.raises(InputError, match=f"prompt_length: got {CONTEXT}"):
        attach(tiny("gpt2"), SoftPrompt(CONTEXT))
    model = tiny("bert")
    attach(model, SoftPrompt(8))
    with pytest.raises(InputError, match="60 tokens after 8 positions"):
        model(input_ids=torch.ones(1, 60, dtype=torch.long))
