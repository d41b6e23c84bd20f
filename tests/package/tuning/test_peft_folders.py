"""PEFT's folders: written ones load there with equal logits, its own are read, the rest is refused."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import (
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from tiny_models import KINDS, batch, jitter, largest, real, tiny

from hybridft_utils import (
    Adapter,
    BitFit,
    FullFineTuning,
    HeadOnly,
    InputError,
    LoRA,
    Prefix,
    SoftPrompt,
    attach,
    import_peft,
)

pytestmark = pytest.mark.filterwarnings("ignore")
DECODERS_AND_BERT = [k for k in KINDS if "classifier" not in k]
HEADS = {"bert-classifier": "classifier", "gpt2-classifier": "score", "llama-classifier": "score"}


def exported(kind, folder, *methods, **options):
    """Our logits and those of PEFT on the exported folder."""
    tuning = attach(tiny(kind), *methods, **options)
    jitter(tuning)
    inputs = batch("right")
    ours = tuning.model(**inputs).logits
    tuning.export_peft(folder)
    theirs = PeftModel.from_pretrained(tiny(kind), folder).eval()(**inputs).logits
    return real(ours, inputs), real(theirs[:, -ours.shape[1] :] if ours.ndim == 3 else theirs, inputs)


@pytest.mark.parametrize("kind", KINDS)
def test_lora_out(kind, tmp_path):
    second = {"gpt2": "h.1.mlp.c_fc", "bert": "layer.1.intermediate.dense"}
    ending = second.get(kind.removesuffix("-classifier"), "layers.1.mlp.up_proj")
    ours, theirs = exported(kind, tmp_path, LoRA(3, alpha=5, rank_pattern={ending: 2}))
    assert largest(theirs, ours) < 1e-5
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert settings["fan_in_fan_out"] == ("gpt2" in kind)
    names = {f"base_model.model.{n}.lora_{m}.weight" for n in settings["target_modules"] for m in "AB"}
    heads = {n for n in load_file(tmp_path / "adapter_model.safetensors") if HEADS.get(kind, "none") in n}
    assert load_file(tmp_path / "adapter_model.safetensors").keys() == names | heads
    assert bool(heads) == (kind in HEADS)  # PEFT wants a classifier's head even where it is as it was


@pytest.mark.parametrize("positions", ["keep", "shift"])
@pytest.mark.parametrize("kind", KINDS)
def test_prefix_out(kind, positions, tmp_path):
    if positions == "keep" and ("gpt2" in kind or "bert" in kind):
        with pytest.raises(InputError, match="positions='shift': PEFT moves the text's positions"):
            exported(kind, tmp_path / "t", Prefix(4, softmax="joint", positions=positions))
        assert not (tmp_path / "t").exists()
        return
    ours, theirs = exported(kind, tmp_path, Prefix(4, softmax="joint", positions=positions))
    assert largest(theirs, ours) < (1e-5 if positions == "keep" else 1e-9)


@pytest.mark.parametrize("rope_type", ["llama3", "linear", "yarn", "dynamic"])
def test_scaled_rotary_positions(rope_type, tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    scaling = {
        "rope_type": rope_type,
        "factor": 4.0,
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 16,
    }
    if rope_type == "llama3":
        scaling |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = LlamaConfig(**{**tiny("llama-gqa").config.to_dict(), "rope_parameters": scaling})
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    inputs = batch("right")
    tuning = attach(model, Prefix(4, softmax="joint"))
    jitter(tuning, 1.0)
    ours = real(model(**inputs).logits, inputs)
    if rope_type == "dynamic":
        with pytest.raises(InputError, match="dynamic rotary positions"):
            tuning.export_peft(tmp_path)
        return
    tuning.export_peft(tmp_path)
    tuning.detach()
    theirs = PeftModel.from_pretrained(model, tmp_path).eval()
    assert largest(real(theirs(**inputs).logits, inputs), ours) < 1e-5


@pytest.mark.parametrize("kind", DECODERS_AND_BERT)
def test_soft_prompt_out(kind, tmp_path):
    ours, theirs = exported(kind, tmp_path, SoftPrompt(4))
    assert largest(theirs, ours) < 1e-6


def test_folded_prefix_out(tmp_path):
    ours, theirs = exported(
        "llama-gqa", tmp_path, Prefix(4, softmax="joint", reparam_hidden=5, positions="shift")
    )
    assert largest(theirs, ours) < 1e-6


@pytest.mark.parametrize(
    "method", [LoRA(2), Prefix(4, softmax="joint", positions="shift")], ids=lambda m: m.kind
)
@pytest.mark.parametrize("kind", HEADS)
def test_with_a_classifier_out_and_in(kind, method, tmp_path):
    ours, theirs = exported(kind, tmp_path, method, also_train=(HEADS[kind],))
    assert largest(theirs, ours) < 1e-5
    model = tiny(kind)
    tuning = import_peft(model, tmp_path)
    assert largest(model(**batch("right")).logits, ours) < 1e-6
    assert tuning.also_train == (HEADS[kind],)
    ours, theirs = exported(kind, tmp_path, method, HeadOnly())
    assert largest(theirs, ours) < 1e-5


@pytest.mark.parametrize(
    ("kind", "methods", "options", "sentence"),
    [
        ("llama", (LoRA(), Prefix(4)), {}, "got 'lora \\+ prefix'; accepted: one LoRA, one prefix or one soft prompt"),
        ("llama", (Adapter(),), {}, "got 'adapter'"),
        ("llama", (FullFineTuning(),), {}, "got 'full'"),
        ("llama", (LoRA(),), {"gating": "unipelt"}, "gating=unipelt.*PEFT has none"),
        ("llama", (Prefix(4, softmax="joint", gated=True),), {}, "a gated prefix"),
        ("llama", (Prefix(4),), {}, "a prefix with softmax='separate'.; accepted: softmax='joint'"),
        ("bert", (LoRA(), BitFit()), {}, "bert trained in place"),
        ("bert", (LoRA(), HeadOnly()), {}, "cls trained in place"),  # its decoder is tied to the embeddings
        ("gpt2-classifier", (SoftPrompt(4),), {}, "pools the wrong token"),
        ("bert-classifier", (SoftPrompt(4),), {}, "pools the wrong token"),
    ],
)  # fmt: skip
def test_what_peft_cannot_hold(kind, methods, options, sentence, tmp_path):
    tuning = attach(tiny(kind), *methods, **options)
    with pytest.raises(InputError, match=sentence):
        tuning.export_peft(tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_a_head_outside_the_transformers_model(tmp_path):
    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.head = tiny("bert").bert, torch.nn.Linear(32, 2)

    outer = Classifier()
    with pytest.raises(InputError, match=r"'head.weight'; accepted: parameters inside BertModel"):
        attach(outer, LoRA(2), also_train=("head",)).export_peft(tmp_path / "t")
    inner = Classifier()
    tuning = attach(inner, LoRA(2))
    jitter(tuning)
    tuning.export_peft(tmp_path / "t")
    theirs = PeftModel.from_pretrained(tiny("bert").bert, tmp_path / "t").eval()
    ours = inner.model(**batch()).last_hidden_state
    assert largest(theirs(**batch()).last_hidden_state, ours) < 1e-5
    again = Classifier()
    import_peft(again, tmp_path / "t")
    assert torch.equal(again.model(**batch()).last_hidden_state, ours)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("llama-gqa", {"target_modules": "all-linear", "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 6}}),
        ("llama-gqa", {"target_modules": ["q_proj", "up_proj"], "alpha_pattern": {"up_proj": 32}, "lora_dropout": 0.1}),
        ("gpt2", {"target_modules": ["c_attn", "c_fc"], "rank_pattern": {"c_attn": 7}, "alpha_pattern": {".*c_fc": 3}}),
        ("gpt2", {"target_modules": r".*h\.1\..*c_proj", "use_rslora": True, "rank_pattern": {"mlp.c_proj": 9}}),
        ("bert", {"target_modules": ["query"], "layers_to_transform": [1], "init_lora_weights": "gaussian"}),
        ("qwen3", {"target_modules": ["v_proj"], "exclude_modules": ["model.layers.0.self_attn.v_proj"]}),
    ],
)  # fmt: skip
def test_lora_in(kind, settings, tmp_path):
    torch.manual_seed(1)
    theirs = get_peft_model(tiny(kind), LoraConfig(r=4, lora_alpha=8, **settings)).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    theirs.save_pretrained(tmp_path / "theirs")
    model = tiny(kind)
    tuning = import_peft(model, tmp_path / "theirs")
    inputs = batch("right")
    expected = theirs(**inputs).logits
    assert largest(model(**inputs).logits, expected) < 1e-5
    assert largest(tiny(kind)(**inputs).logits, expected) > 1e-3
    tuning.export_peft(tmp_path / "again")
    back = PeftModel.from_pretrained(tiny(kind), tmp_path / "again").eval()
    assert largest(back(**inputs).logits, expected) < 1e-5


@pytest.mark.parametrize(
    "config",
    [
        PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, prefix_projection=True, encoder_hidden_size=6),
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
        PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, encoder_hidden_size=6),
    ],
    ids=lambda c: str(c.peft_type),
)  # fmt: skip
def test_prompts_in(config, tmp_path):
    theirs = get_peft_model(tiny("llama-gqa"), config).eval()
    theirs.save_pretrained(tmp_path)
    model, inputs = tiny("llama-gqa"), batch("right")
    import_peft(model, tmp_path)
    assert largest(real(model(**inputs).logits, inputs), real(theirs(**inputs).logits[:, -9:], inputs)) < 1e-5


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"use_dora": True}, "use_dora: got True"),
        ({"bias": "all"}, "bias: got 'all'"),
        ({"init_lora_weights": "olora"}, "init_lora_weights: got 'olora'"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices: got"),
        ({"target_modules": ["embed_tokens"]}, "target_modules: got 'embed_tokens'"),
    ],
)
def test_what_cannot_be_expressed_here(settings, sentence, tmp_path):
    config = LoraConfig(r=2, **{"target_modules": ["q_proj"], **settings})
    get_peft_model(tiny("llama"), config).save_pretrained(tmp_path)
    model = tiny("llama")
    modules = dict(model.named_modules())
    with pytest.raises(InputError, match=sentence):
        import_peft(model, tmp_path)
    assert dict(model.named_modules()) == modules


def changed(folder, **settings):
    """Other settings, as in a folder that PEFT wrote, which holds no checksum of them."""
    drop(folder, "nothing")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


DAMAGE = {
    "another method": (lambda f: changed(f, peft_type="IA3"), "peft_type: got 'IA3'; accepted: LORA, PREFIX_TUNING"),
    "no rank": (lambda f: changed(f, r=None), "r: got None"),
    "no alpha": (lambda f: changed(f, lora_alpha=None), "alpha: got None"),
    "no config": (lambda f: (f / "adapter_config.json").unlink(), "a folder with adapter_config.json"),
    "half a config": (lambda f: (f / "adapter_config.json").write_text("{"), "undamaged JSON"),
    "pickled weights": (lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"), "never read"),
    "another model": (lambda f: rename_tensors(f, "layers.1", "layers.7"), "target_modules: got .*layers.1"),
    "a half pair": (lambda f: drop(f, "lora_B"), "missing from the saved tuning"),
}  # fmt: skip


def rename_tensors(folder, old, new):
    path = folder / "adapter_model.safetensors"
    save_file({n.replace(old, new): t for n, t in load_file(path).items()}, path)


def drop(folder, part):
    path = folder / "adapter_model.safetensors"
    save_file({n: t for n, t in load_file(path).items() if part not in n}, path)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_folders(damage, tmp_path):
    attach(tiny("llama"), LoRA(2)).export_peft(tmp_path)
    change, sentence = DAMAGE[damage]
    change(tmp_path)
    model = tiny("llama")
    modules = dict(model.named_modules())
    with pytest.raises(InputError, match=sentence) as error:
        import_peft(model, tmp_path)
    assert "\n" not in str(error.value)
    assert dict(model.named_modules()) == modules


def test_prompts_of_another_shape(tmp_path):
    for methods in ((Prefix(4, softmax="joint", positions="shift"),), (SoftPrompt(4),)):
        attach(tiny("llama"), *methods).export_peft(tmp_path / methods[0].kind)
    with pytest.raises(InputError, match="prompt_embeddings: got 'shape"):
        import_peft(tiny("llama-gqa"), tmp_path / "prefix")
    changed(tmp_path / "prompt", num_transformer_submodules=2)
    with pytest.raises(InputError, match="num_transformer_submodules: got 2"):
        import_peft(tiny("llama"), tmp_path / "prompt")
    drop(tmp_path / "prefix", "prompt")
    with pytest.raises(InputError, match="one tensor prompt_embeddings"):
        import_peft(tiny("llama"), tmp_path / "prefix")


def with_tensors(folder, **tensors):
    path = folder / "adapter_model.safetensors"
    save_file({**load_file(path), **{f"base_model.model.{n}": t for n, t in tensors.items()}}, path)


def lora_folder(kind, folder, **settings):
    """What PEFT writes of a LoRA that has moved."""
    theirs = get_peft_model(tiny(kind), LoraConfig(r=2, **{"target_modules": ["q_proj"], **settings}))
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    theirs.save_pretrained(folder)
    return theirs.eval()


def refused(model, folder, match):
    modules, before = dict(model.named_modules()), {n: p.clone() for n, p in model.named_parameters()}
    with pytest.raises(InputError, match=match) as error:
        import_peft(model, folder)
    assert "\n" not in str(error.value)
    assert dict(model.named_modules()) == modules
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


@pytest.mark.parametrize("name", [n for n, _ in tiny("llama-gqa").named_parameters()])
def test_no_weight_of_the_base_is_overwritten(name, tmp_path):
    theirs = lora_folder("llama-gqa", tmp_path)
    own = dict(tiny("llama-gqa").named_parameters())[name]
    with_tensors(tmp_path, **{name: own.data.clone()})
    model = tiny("llama-gqa")
    import_peft(model, tmp_path)  # it only says again what is there
    assert largest(model(**batch()).logits, theirs(**batch()).logits) < 1e-5
    for other in (own.data + 0.5, own.data[:1].clone(), own.data / 0):
        with_tensors(tmp_path, **{name: other})
        refused(tiny("llama-gqa"), tmp_path, rf"tensor base_model\.model\.{name}|tensor {name}")


def test_modules_that_peft_trained_are_read(tmp_path):
    theirs = lora_folder("llama-gqa", tmp_path, modules_to_save=["lm_head", "model.norm"])
    path = tmp_path / "adapter_model.safetensors"
    save_file({n: t if "lora" in n else t * 1.5 for n, t in load_file(path).items()}, path)
    model = tiny("llama-gqa")
    tuning = import_peft(model, tmp_path)
    assert tuning.also_train == ("lm_head", "model.norm")
    expected = PeftModel.from_pretrained(tiny("llama-gqa"), tmp_path).eval()(**batch()).logits
    assert largest(model(**batch()).logits, expected) < 1e-5
    assert largest(theirs(**batch()).logits, expected) > 1e-3
    tuning.detach()
    assert torch.equal(model(**batch()).logits, tiny("llama-gqa")(**batch()).logits)


@pytest.mark.parametrize("kind", ["llama", "llama-gqa", "gpt2"])
def test_embeddings_of_a_larger_vocabulary(kind, tmp_path):
    def larger(seed):
        model = tiny(kind)
        torch.manual_seed(seed)
        model.resize_token_embeddings(70)
        return model

    targets = ["c_attn"] if kind == "gpt2" else ["q_proj"]
    theirs = get_peft_model(larger(1), LoraConfig(r=2, target_modules=targets)).eval()
    theirs.save_pretrained(tmp_path, save_embedding_layers=True)
    model = larger(2)
    import_peft(model, tmp_path)
    inputs = batch()
    inputs["input_ids"][0, 2:5] = torch.tensor([61, 65, 69])
    assert largest(model(**inputs).logits, theirs(**inputs).logits) < 1e-5
    model = larger(2)
    model.get_input_embeddings().weight.data[7] += 1  # another base
    refused(model, tmp_path, "tensor ")


def test_lora_on_the_head(tmp_path):
    theirs = lora_folder("llama-gqa", tmp_path, target_modules=["q_proj", "lm_head"])
    model = tiny("llama-gqa")
    import_peft(model, tmp_path)
    assert largest(model(**batch()).logits, theirs(**batch()).logits) < 1e-5


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rank_pattern": {"qq_proj": 2}}, "rank_pattern: got 'qq_proj'"),
        ({"alpha_pattern": {"v_proj": 2}}, "alpha_pattern: got 'v_proj'"),
        ({"target_modules": ["q_proj", "v_proj"]}, "target_modules: got 'v_proj'"),
        ({"target_modules": "nothing"}, "target_modules: got 'nothing'"),
        ({"target_modules": ["layers.0.self_attn.q_proj"]}, "LoRA on model.layers.1.self_attn.q_proj"),
        ({"target_modules": 3}, "as PEFT writes it"),
        ({"rank_pattern": {"q_proj": 3}}, "r: got 3; accepted: 2, the rank of the tensors"),
        ({"r": 4}, "r: got 4; accepted: 2"),
        ({"lora_alpha": float("nan")}, "alpha: got nan"),
        ({"lora_alpha": 10**400}, "alpha: got"),
        ({"alpha_pattern": {"([a-z_0-9.]+)+q_projx": 2}}, "alpha_pattern: got"),
        ({"rank_pattern": {"(.*)*(.*)*(.*)*(.*)*!": 2}}, "rank_pattern: got"),
        ({"target_modules": "((.+)+)+!"}, "target_modules: got"),
        ({"rank_pattern": {"(": 2}}, "as PEFT writes it"),
        ({"rank_pattern": [1]}, "rank_pattern: got"),
        ({"peft_type": ["LORA"]}, r"peft_type: got \['LORA'\]"),
        ({"peft_type": None}, "peft_type: got None"),
        ({"modules_to_save": 5}, "as PEFT writes it"),
    ],
)
def test_settings_that_fit_nothing_or_never_end(settings, sentence, tmp_path):
    lora_folder("llama", tmp_path)
    changed(tmp_path, **settings)
    refused(tiny("llama"), tmp_path, sentence)


@pytest.mark.parametrize("change", [lambda t: t / 0, lambda t: t * float("nan"), lambda t: t.to(torch.int8)])
@pytest.mark.parametrize(
    "method", [LoRA(2), Prefix(4, softmax="joint", positions="shift"), SoftPrompt(4)], ids=lambda m: m.kind
)
def test_no_tensor_that_is_not_finite(method, change, tmp_path):
    tuning = attach(tiny("llama"), method)
    jitter(tuning)
    tuning.export_peft(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    save_file({n: change(t) for n, t in load_file(path).items()}, path)
    refused(tiny("llama"), tmp_path, "not finite|of type torch.int8")


@given(
    dropped=st.lists(st.integers(0, 7), max_size=2, unique=True),
    renamed=st.lists(st.integers(0, 7), max_size=2, unique=True),
    reshaped=st.lists(st.integers(0, 7), max_size=1),
)
@settings(max_examples=60, deadline=None)
def test_each_tensor_is_accounted_for(dropped, renamed, reshaped, tmp_path_factory):
    """PEFT fills what is missing and forgets what is too much; here both are refused."""
    folder = tmp_path_factory.mktemp("adapter")
    theirs = lora_folder("llama", folder, target_modules=["q_proj", "up_proj"])
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    names = sorted(tensors)
    for index in reshaped:
        tensors[names[index]] = tensors[names[index]][:, :-1].clone()
    for index in renamed:
        tensors[names[index].replace("proj", "prj")] = tensors.pop(names[index])
    for index in dropped:
        tensors.pop(names[index], None)
    save_file(tensors, path)
    if dropped or renamed or reshaped:
        refused(tiny("llama"), folder, "got")
    else:
        model = tiny("llama")
        import_peft(model, folder)
        assert largest(model(**batch()).logits, theirs(**batch()).logits) < 1e-5
