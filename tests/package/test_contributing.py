"""The new architecture and the new method that CONTRIBUTING.md describes, as they stand there."""

import re

import pytest
import torch
from tiny_models import COMMON, batch, jitter, largest
from transformers import PhiConfig, PhiForCausalLM

from hybridft_utils import Adapter, LoRA, Prefix, SoftPrompt, attach, check_mine, load_tuning
from hybridft_utils.methods.architectures import ARCHITECTURES
from hybridft_utils.methods.registry import METHODS


@pytest.fixture
def example(root, monkeypatch):
    """The names that the code in CONTRIBUTING.md defines."""
    monkeypatch.setitem(ARCHITECTURES, "phi", None)
    monkeypatch.setitem(METHODS, "ia3", None)
    names = {"__name__": "example", "check_mine": check_mine}
    blocks = re.findall(r"```python\n(.*?)```", (root / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.S)
    for block in blocks:
        exec(compile(block, "CONTRIBUTING.md", "exec"), names)
    return names


def phi():
    torch.manual_seed(0)
    return PhiForCausalLM(PhiConfig(**COMMON, partial_rotary_factor=0.5)).eval()


def test_both_work_with_everything_else(example, tmp_path):
    methods = (LoRA(2), Prefix(4), SoftPrompt(3), Adapter(4), example["IA3"]())
    inputs, model = batch("left"), phi()
    base, modules = model(**inputs).logits, dict(model.named_modules())
    tuning = attach(model, example["IA3"]())
    assert torch.equal(model(**inputs).logits, base)
    assert tuning.count().by_method == {"ia3": 2 * 32}
    tuning.detach()
    assert dict(model.named_modules()) == modules

    tuning = attach(model, *methods)
    assert tuning.count().by_method.keys() == {"lora", "prefix", "prompt", "adapter", "ia3"}
    jitter(tuning)
    output = model(**inputs, labels=inputs["input_ids"])
    output.loss.backward()
    assert all(p.grad.abs().max() > 0 for p in tuning.parameters())
    kept = inputs["attention_mask"][1].bool()
    alone = model(input_ids=inputs["input_ids"][1, kept][None]).logits[0]
    assert largest(output.logits[1, kept], alone) < 1e-5
    tuning.save(tmp_path / "t")
    again = phi()
    load_tuning(again, tmp_path / "t")
    assert torch.equal(again(**inputs).logits, output.logits)
    tuning.detach()
    assert torch.equal(model(**inputs).logits, base)
