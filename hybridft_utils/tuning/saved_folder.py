"""One folder for a whole tuning: ``tuning.json`` and ``tuning.safetensors``, written atomically."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import InputError
from ..files import write_json, write_tensors
from ..methods.architectures import find_transformer
from ..methods.parts import Method
from ..methods.prefix import Prefix
from ..methods.soft_prompt import SoftPrompt
from .attach import METHODS, Tuning, attach
from .base_identity import compare_bases

FORMAT_VERSION = 1
WEIGHTS, SETTINGS = "tuning.safetensors", "tuning.json"


def as_entries(methods: Sequence[Method]) -> list[dict[str, Any]]:
    """Kind and settings of each method, as JSON can hold them."""
    return [{"kind": m.kind, **asdict(m)} for m in methods]  # type: ignore[call-overload]


def from_entries(entries: Sequence[dict[str, Any]]) -> list[Method]:
    """The methods that :func:`as_entries` described."""
    return [METHODS[e["kind"]](**{k: v for k, v in e.items() if k != "kind"}) for e in entries]


def save_tuning(tuning: Tuning, folder: str | Path) -> None:
    """Write ``tuning`` into ``folder``; a reparametrised prefix is saved as the keys and values it gives."""
    methods = [replace(m, reparam_hidden=None) if isinstance(m, Prefix) else m for m in tuning.methods]
    settings = {
        "format_version": FORMAT_VERSION,
        "methods": as_entries(methods),
        "also_train": list(tuning.also_train),
        "gating": tuning.gating,
        "base": tuning.base,
    }
    write_folder(folder, settings, SETTINGS, tuning.state_dict(), WEIGHTS)


def load_tuning(model: nn.Module, folder: str | Path) -> Tuning:
    """Attach what :meth:`Tuning.save` wrote to ``model``, the base model it was trained on.

    Raises :class:`InputError` for another base model, by the name of the difference, and for a
    folder that is damaged or was written by something else; the model is then as it was.
    """
    settings = read_settings(folder, SETTINGS)
    version = settings.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError("format_version", version, f"{FORMAT_VERSION}, the version this package reads")
    state = read_tensors(folder, WEIGHTS)
    try:
        methods = from_entries(settings["methods"])
        # The saved tensors replace whatever the methods would start from.
        blank = [replace(m, init="random") if isinstance(m, Prefix | SoftPrompt) else m for m in methods]
        also_train, gating, base = list(settings["also_train"]), settings["gating"], dict(settings["base"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{SETTINGS} as Tuning.save writes it ({type(error).__name__}: {error})"
        raise InputError("folder", str(folder), reason) from error
    find_transformer(model)
    return attach_state(model, blank, also_train, gating, state, base=base, methods=methods)


def attach_state(
    model: nn.Module,
    blank: list[Method],
    also_train: list[str],
    gating: str | None,
    state: dict[str, Tensor],
    base: dict[str, Any] | None = None,
    methods: list[Method] | None = None,
) -> Tuning:
    """Attach ``blank`` methods, check the base, and fill in ``state``; all or nothing."""
    tuning = attach(model, *blank, also_train=also_train, gating=gating)
    try:
        if base is not None:
            compare_bases(base, tuning.base)
        tuning.load_state_dict(state)
    except BaseException:
        tuning.detach()
        raise
    tuning.methods = tuple(methods or blank)
    return tuning


def write_folder(
    folder: str | Path,
    settings: dict[str, Any],
    settings_name: str,
    state: dict[str, Tensor],
    weights_name: str,
) -> None:
    """Write a json and a safetensors file into ``folder``."""
    write_tensors(Path(folder) / weights_name, state)
    write_json(Path(folder) / settings_name, settings)


def read_settings(folder: str | Path, name: str) -> dict[str, Any]:
    """The json object in ``folder / name``."""
    try:
        content = json.loads((Path(folder) / name).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError("folder", str(folder), f"a folder with {name}") from error
    except ValueError as error:
        raise InputError("folder", str(folder), f"a folder whose {name} is JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError("folder", str(folder), f"a folder whose {name} is a JSON object")
    return content


def read_tensors(folder: str | Path, name: str) -> dict[str, Tensor]:
    """The tensors of the safetensors file ``folder / name``; nothing is ever unpickled."""
    path = Path(folder) / name
    if not path.is_file():
        raise InputError("folder", str(folder), f"a folder with {name} (pickled weights are never read)")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError("folder", str(folder), f"a folder with {name} undamaged ({error})") from error
