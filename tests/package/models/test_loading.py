"""load_base: what it loads, and what it refuses in one sentence."""

import json

import pytest
import torch
from transformers import BertForMaskedLM, BertModel, LlamaForCausalLM

from hybridft_utils import InputError, load_base


def refused(match, model):
    with pytest.raises(InputError, match=match) as caught:
        load_base(model)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("model: got ")


def test_folder_is_loaded_with_the_head_it_was_saved_with(
    model_folder, llama, bert, encoder, masked_tokenizer, tmp_path
):
    loaded, tokenizer = load_base(model_folder)
    assert isinstance(loaded, LlamaForCausalLM) and not loaded.training
    ids = torch.tensor([tokenizer("fine").input_ids])
    assert torch.equal(loaded(ids).logits, llama(ids).logits)
    for model, kind in ((bert, BertForMaskedLM), (encoder, BertModel)):
        folder = tmp_path / kind.__name__
        model.save_pretrained(folder)
        masked_tokenizer.save_pretrained(folder)
        assert type(load_base(folder)[0]) is kind


def test_folders_without_a_model_are_refused(model_folder, tmp_path):
    refused("a folder that exists", str(tmp_path / "nowhere"))
    refused("config.json", tmp_path)
    weights = model_folder / "model.safetensors"
    weights.rename(model_folder / "pytorch_model.bin")
    refused("pytorch_model.bin.*safetensors", model_folder)
    (model_folder / "pytorch_model.bin").unlink()
    refused("no weights", model_folder)


def test_remote_code_is_not_run(model_folder):
    config = json.loads((model_folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "code.Own", "AutoModelForCausalLM": "code.Own"},
    }
    (model_folder / "config.json").write_text(json.dumps(config))
    (model_folder / "code.py").write_text("raise SystemExit('remote code ran')")
    refused("model: got", model_folder)


def test_unknown_names_are_refused():
    refused("builtin:movies", "builtin:nonsense")
    refused("can be reached", "nobody/no-such-model")


def test_a_missing_padding_token_is_the_end_of_text(model_folder):
    settings = json.loads((model_folder / "tokenizer_config.json").read_text())
    settings.pop("pad_token")
    (model_folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = json.loads((model_folder / "config.json").read_text())
    config["pad_token_id"] = None
    (model_folder / "config.json").write_text(json.dumps(config))
    model, tokenizer = load_base(model_folder)
    assert tokenizer.pad_token == tokenizer.eos_token
    assert model.config.pad_token_id == tokenizer.eos_token_id
