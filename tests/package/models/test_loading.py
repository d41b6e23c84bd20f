"""load_base: what it loads, and what it refuses in one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import BertForMaskedLM, BertForSequenceClassification, BertModel, LlamaForCausalLM

from hybridft_utils import Adapter, InputError, LoRA, Prefix, SoftPrompt, attach, load_base
from hybridft_utils.models.account import COMPUTED


def refused(match, model):
    """One sentence about the model; ``match`` may be None."""
    with pytest.raises(InputError, match=match) as caught:
        load_base(model)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("model: got ")


def test_folder_is_loaded_with_the_head_it_was_saved_with(
    model_folder, llama, bert, encoder, masked_tokenizer, tmp_path
):
    loaded, tokenizer = load_base(model_folder)
    assert loaded.loaded_from == str(model_folder)
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


def edit(folder: Path, change: Callable[[dict], object]) -> None:
    """Change the tensors of a model folder."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def configure(folder: Path, **changes: object) -> None:
    """Change values of config.json; None takes one out."""
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


KINDS = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", {}),
    "bert": ("BertConfig", "BertForMaskedLM", {}),
}
SIZES = {
    "vocab_size": 8193,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory, masked_tokenizer):
    """A saved tiny model of each architecture."""
    found = {}
    for kind, (config, model, more) in KINDS.items():
        found[kind] = tmp_path_factory.mktemp(kind)
        torch.manual_seed(0)
        made = getattr(transformers, model)(getattr(transformers, config)(**SIZES, **more, pad_token_id=0))
        made.save_pretrained(found[kind])
        masked_tokenizer.save_pretrained(found[kind])
        load_base(found[kind])
    return found


def remove(tensors, name):
    del tensors[name]


def rename(tensors, name):
    tensors[f"{name}_2"] = tensors.pop(name)


def reshape(tensors, name):
    tensors[name] = torch.cat([tensors[name], tensors[name][:1]])


def poison(tensors, name):
    tensors[name].view(-1)[-1] = torch.nan


def overflow(tensors, name):
    tensors[name].view(-1)[0] = -torch.inf


def quantise(tensors, name):
    tensors[name] = tensors[name].to(torch.int8)


def threshold(tensors, name):
    tensors[name] = tensors[name] > 0


def shrink(tensors, name):
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)


EDITS = (remove, rename, reshape, poison, overflow, quantise, threshold, shrink)
SIZE_NAMES = {
    "llama": (*list(SIZES)[:5], "num_key_value_heads", "head_dim"),
    "gpt2": ("vocab_size", "n_embd", "n_layer", "n_positions"),
    "bert": tuple(n for n in SIZES if n != "num_attention_heads"),
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_changed_tensor_is_refused(data, folders, tmp_path):
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    folder = shutil.copytree(folders[kind], tmp_path / "changed", dirs_exist_ok=True)
    name = data.draw(st.sampled_from(sorted(load_file(folder / "model.safetensors"))))
    change = data.draw(st.sampled_from(EDITS))
    edit(folder, lambda tensors: change(tensors, name))
    refused(f"(?s){name.split('.')[-1]}|weights for a model of", folder)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_changed_size_is_refused(data, folders, tmp_path):
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    folder = shutil.copytree(folders[kind], tmp_path / "changed", dirs_exist_ok=True)
    name = data.draw(st.sampled_from(SIZE_NAMES[kind]))
    size = json.loads((folder / "config.json").read_text())[name]
    other = st.one_of(st.integers(-2, 2 * size + 8), st.sampled_from([10**9, 10**30, 1.5, "many", [], True]))
    configure(folder, **{name: data.draw(other.filter(lambda value: value != size or value is True))})
    refused(None, folder)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"num_hidden_layers": 1}, "layers.1"),
        ({"num_hidden_layers": 3}, "parameters|layers.2"),
        ({"num_hidden_layers": 10**9}, "1000000000 layers"),
        ({"hidden_act": "nonsense"}, "nonsense"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps"),
        ({"num_attention_heads": 0}, None),
        ({"rms_norm_eps": -1.0}, "NaN or infinity"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "not quantised"),
    ],
    ids=str,
)
def test_a_config_that_does_not_fit_is_refused(changes, match, model_folder):
    configure(model_folder, **changes)
    refused(match, model_folder)


def test_a_config_without_sizes_builds_no_default_model(model_folder):
    (model_folder / "config.json").write_text(
        '{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}'
    )
    refused("32 layers|weights for a model of", model_folder)
    for broken in ("", "[]", "{", "null", "[" * 10_000, '{"model_type": []}'):
        (model_folder / "config.json").write_text(broken)
        refused(None, model_folder)


def test_damaged_files_are_refused(model_folder):
    weights, tokenizer = model_folder / "model.safetensors", model_folder / "tokenizer.json"
    whole = weights.read_bytes()
    for damaged in (b"", whole[:100], whole[:-8], b"\xff" * 8 + whole[8:], whole[:8] + b"[" + whole[9:]):
        weights.write_bytes(damaged)
        refused("complete safetensors", model_folder)
    weights.write_bytes(whole)
    for damaged_text in ("", "{", '{"version": "1.0", "model": {}}'):
        tokenizer.write_text(damaged_text)
        refused("a folder with a tokenizer", model_folder)


def test_shards_must_be_whole(model_folder, llama):
    (model_folder / "model.safetensors").unlink()
    llama.save_pretrained(model_folder, max_shard_size="300KB")
    index = model_folder / "model.safetensors.index.json"
    listed = json.loads(index.read_text())
    assert len(set(listed["weight_map"].values())) > 1
    load_base(model_folder)
    short = dict(list(listed["weight_map"].items())[1:])
    for broken in ({"weight_map": {}}, {"weight_map": short}, {}, {"weight_map": []}):
        index.write_text(json.dumps({"metadata": {}} | broken))
        refused(None, model_folder)
    index.write_text(json.dumps(listed))
    next(model_folder.glob("*-00001-of-*")).unlink()
    refused("00001", model_folder)


def test_what_models_compute_anew_may_be_in_the_file(model_folder, llama):
    def add(tensors):
        for layer in range(2):
            tensors[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
        tensors["model.embeddings.position_ids"] = torch.arange(8)
        assert all(map(COMPUTED.search, list(tensors)[-1:]))

    edit(model_folder, add)
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(load_base(model_folder)[0](ids).logits, llama(ids).logits)


def test_tied_matrices_must_be_one(folders, tmp_path):
    folder = shutil.copytree(folders["llama"], tmp_path / "tied")
    edit(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    load_base(folder)
    edit(folder, lambda t: t["lm_head.weight"].add_(1))
    refused("two different matrices", folder)


def test_an_adapter_is_not_applied_silently(model_folder, llama, tmp_path):
    attach(llama, LoRA(rank=2)).export_peft(tmp_path / "adapter")
    shutil.copytree(tmp_path / "adapter", model_folder, dirs_exist_ok=True)
    refused("load_base reads the base model, then import_peft", model_folder)
    (model_folder / "config.json").unlink()
    refused("load_base reads the base model, then import_peft", model_folder)


def test_a_trained_head_is_not_dropped(bert_config, masked_tokenizer, tmp_path):
    BertForSequenceClassification(bert_config).save_pretrained(tmp_path)
    masked_tokenizer.save_pretrained(tmp_path)
    refused("trained head of a BertForSequenceClassification", tmp_path)
    configure(tmp_path, architectures=["BertModel"])
    refused("classifier.bias", tmp_path)


def test_heads_of_pretraining_and_poolers_are_dropped(bert_config, encoder, masked_tokenizer, tmp_path):
    torch.manual_seed(0)
    whole = transformers.BertForPreTraining(bert_config).eval()
    whole.save_pretrained(tmp_path)
    masked_tokenizer.save_pretrained(tmp_path)
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(load_base(tmp_path)[0](ids)[0], whole.bert(ids)[0])
    configure(tmp_path, architectures=["BertForMaskedLM"])
    assert torch.equal(load_base(tmp_path)[0](ids).logits, whole(ids).prediction_logits)
    BertModel(bert_config, add_pooling_layer=False).save_pretrained(tmp_path)
    loaded, _ = load_base(tmp_path)
    assert loaded.pooler is None and loaded(ids).last_hidden_state.isfinite().all()


@pytest.mark.parametrize(
    "method", [LoRA(rank=2), Prefix(length=2), SoftPrompt(length=2), Adapter(bottleneck=2)]
)
def test_a_model_saved_with_a_tuning_attached_is_refused(method, llama, model_folder):
    tuning = attach(llama, method)
    llama.save_pretrained(model_folder)
    refused(r"Tuning.merge\(\) or Tuning.detach\(\)", model_folder)
    tuning.detach().save_pretrained(model_folder)
    load_base(model_folder)


def test_a_tokenizer_that_does_not_fit_is_refused(model_folder, folders, tokenizer):
    larger = transformers.PreTrainedTokenizerFast.from_pretrained(model_folder)
    larger.add_tokens(["one more"])
    larger.save_pretrained(model_folder)
    refused("token 8192 and an embedding of 8192 rows", model_folder)
    bare = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    bare.save_pretrained(model_folder)
    refused("padding or an end-of-text token", model_folder)


@pytest.mark.parametrize(
    "name", ["x" * 300, "/" + "x" * 300, "a/" * 3000, "nul\0", "\udc80", "", " "], ids=ascii
)
def test_names_that_no_file_system_has_are_refused(name):
    refused(None, name)


def test_only_floating_types_are_loaded(model_folder):
    with pytest.raises(InputError, match=r"dtype: got torch.int8; accepted: one of torch.float32"):
        load_base(model_folder, torch.int8)
    edit(model_folder, lambda t: t["model.norm.weight"].fill_(1e9))
    load_base(model_folder)
    with pytest.raises(InputError, match=r"NaN or infinity in model.norm.weight.*finite weights in float16"):
        load_base(model_folder, torch.float16)
