"""Where a result comes from: versions, commit, device, data."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import DatasetDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase

PACKAGES = ("torch", "transformers", "datasets", "peft", "accelerate", "scikit-learn", "numpy")


def provenance() -> dict[str, Any]:
    """Versions, commit and device of this process."""
    return {
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "commit": commit(),
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"cpu ({platform.machine()})",
        "threads": torch.get_num_threads(),
    }


def commit() -> str:
    """The commit of this package's checkout, with "+" where files are changed; "" outside one."""
    folder = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--short=12", "HEAD")
    return f"{head}+" if head and git("status", "--porcelain", "--untracked-files=no") else head


def fingerprint(data: DatasetDict) -> dict[str, Any]:
    """Rows and SHA-256 of texts and labels of each split."""
    found = {}
    for split, rows in data.items():
        digest = hashlib.sha256()
        for text, label in zip(rows["text"], rows["label"], strict=True):
            digest.update(f"{label}\t{text}\n".encode())
        found[split] = {"rows": len(rows), "sha256": digest.hexdigest()[:16]}
    return found


def base_fingerprint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of a base model: its configuration, every weight, and its tokenizer."""
    settings = model.config.to_dict()
    for name in ("transformers_version", "_name_or_path"):  # the same model by another name
        settings.pop(name, None)
    words: dict[str, Any] = {"vocab": tokenizer.get_vocab()}
    if tokenizer.is_fast:
        words = json.loads(tokenizer.backend_tokenizer.to_str())
        for name in ("truncation", "padding"):  # set anew by each call
            words.pop(name)
    digest = hashlib.sha256(json.dumps([settings, words], sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def portable(path: str) -> str:
    """A model or data name without the folders of this machine above it."""
    return Path(path).name if Path(path).is_absolute() else path
