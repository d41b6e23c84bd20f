"""Notebook 10 by papermill on SST-2, with a folder of each kind of model (tiny and random here)."""

from pathlib import Path

import pytest
import torch
import transformers
from chain import ROOT
from test_reruns import papermill
from transformers import PreTrainedTokenizerFast

from hybridft_utils import RunResult

NOTEBOOK = ROOT / "notebooks" / "10_sentiment_run.ipynb"
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
KINDS = {
    "causal": ("LlamaConfig", "LlamaForCausalLM"),
    "masked": ("BertConfig", "BertForMaskedLM"),
    "encoder": ("BertConfig", "BertModel"),
}


def model_folder(kind: str, folder: Path) -> Path:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(ROOT / "hybridft_utils/assets/movies")
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    config, model = (getattr(transformers, name) for name in KINDS[kind])
    torch.manual_seed(0)
    model(config(vocab_size=len(tokenizer), max_position_embeddings=128, **SIZES)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.needs_data
@pytest.mark.parametrize("kind", KINDS)
def test_sst2_with_a_model_folder(kind: str, data: Path, tmp_path: Path) -> None:
    given = {
        "dataset": str(data / "sst2"),
        "model": str(model_folder(kind, tmp_path / kind)),
        "methods": ["lora+prefix"],
        "seeds": [0],
        "train_size": 64,
        "validation_size": 64,
        "epochs": 1,
    }
    result = papermill(NOTEBOOK, tmp_path, given)
    assert result.returncode == 0, result.stderr[-3000:]
    kept = RunResult.load(tmp_path / "runs/sentiment/results.json")
    assert kept.config["dataset"] == "sst2" and kept.config["model"] == kind
    assert kept.correct("lora+prefix").shape == (1, 1821)
    assert list(tmp_path.glob("runs/sentiment/run-*/lora+prefix-seed0/tuning-*.safetensors"))
