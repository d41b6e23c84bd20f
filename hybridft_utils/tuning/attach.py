"""Put tuning methods on a model, any of them together, and save what they trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..errors import InputError
from ..methods.architectures import find_architecture, find_transformer
from ..methods.parts import Host, Method, check_choice
from ..methods.prefix import Prefix
from ..methods.registry import METHODS
from .attached import Attached
from .marks import is_marked
from .peft_export import export_peft
from .saved_folder import save_tuning


class Tuning(Attached):
    """Methods attached to a model: what is trained, and ways to switch, merge, detach and save it.

    Made by :func:`attach`, :func:`load_tuning` and :func:`import_peft`.
    """

    def save(self, folder: str | Path) -> None:
        """Write the tuning into ``folder``, which :func:`load_tuning` reads; what else is there stays.

        At every moment the folder holds the old tuning or the new one, whole.  A reparametrised prefix is
        saved as the keys and values it gives.  Raises :class:`InputError` where the folder cannot be written.
        """
        save_tuning(self, folder)

    def export_peft(self, folder: str | Path) -> None:
        """Write a folder that ``PeftModel.from_pretrained`` loads with equal logits; other files there stay.

        At every moment the folder holds no adapter, the old one or the new one, whole.  Raises
        :class:`InputError` with the reason for what PEFT cannot hold
        (:mod:`hybridft_utils.tuning.peft_export`), for a folder that holds an adapter of other settings, and
        where the folder cannot be written.
        """
        export_peft(self, folder)


def attach(
    model: nn.Module,
    *methods: Method,
    also_train: Sequence[str] = (),
    gating: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    task_text: str | None = None,
) -> Tuning:
    """Freeze ``model`` and put ``methods`` on it.

    ``model`` is a transformers model or a module that holds one.  ``also_train`` names modules
    that are trained as they are, such as a classifier.  ``gating="unipelt"`` gives every part but
    a soft prompt a gate computed from its sublayer's input (Mao et al. 2022).  ``task_text`` with
    ``tokenizer`` is what ``init="task"`` starts from.  New parameters are drawn with torch's global
    generator.

    Raises :class:`InputError` for a model or a combination that is not supported; the model is
    then as it was.
    """
    if not isinstance(model, nn.Module):
        raise InputError("model", model, "a transformers model, or a module that holds one")
    transformer = find_transformer(model)
    architecture = find_architecture(transformer)
    check_methods(methods)
    check_choice("gating", gating, None, "unipelt")
    check_model(model)
    implementation = transformer.config._attn_implementation
    if any(isinstance(m, Prefix) for m in methods) and implementation not in ("eager", "sdpa"):
        raise InputError("attn_implementation", implementation, "'eager' or 'sdpa' for prefix-tuning")
    task_ids = None
    if task_text is not None:
        if tokenizer is None:
            raise InputError("tokenizer", None, "the model's tokenizer together with task_text")
        task_ids = torch.tensor(tokenizer(task_text, add_special_tokens=False).input_ids)
    names = (also_train,) if isinstance(also_train, str) else also_train
    return Tuning(methods, names, Host(model, transformer, architecture, gating, task_ids))


def check_methods(methods: Sequence[Method]) -> None:
    """Refuse anything that is not a method, and a method that is given twice."""
    for method in methods:
        if not isinstance(method, Method):
            known = ", ".join(f"{c.__name__}()" for c in METHODS.values())
            raise InputError("methods", method, f"methods such as {known}")
    kinds = [m.kind for m in methods]
    for kind in set(kinds):
        if kinds.count(kind) > 1:
            raise InputError("methods", f"{kind} twice", "each method once")


def check_model(model: nn.Module) -> None:
    """Refuse a model that another tuning trains, or that has no weights in memory."""
    if is_marked(model):
        given = "a model with a tuning attached, or a part of one"
        raise InputError("model", given, "a model as it was loaded (see Tuning.detach)")
    if any(p.is_meta for p in model.parameters()):
        raise InputError("model", "weights on the meta device", "a model whose weights are in memory")
