"""SHA-256 checksums of tensors and settings, which show any change since they were saved."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import Tensor


def tensor_checksum(tensor: Tensor) -> str:
    """The SHA-256 of the type, the shape and every bit of ``tensor``, in hexadecimal."""
    values = tensor.detach().contiguous().cpu()
    found = hashlib.sha256(f"{values.dtype} {tuple(values.shape)}".encode())
    found.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def settings_checksum(settings: Any) -> str:
    """The SHA-256 of ``settings`` as JSON, whatever the order of their names, in hexadecimal."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
