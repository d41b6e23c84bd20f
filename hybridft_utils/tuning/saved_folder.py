"""One folder for a whole tuning: settings in ``tuning.json``, tensors in ``tuning-CHECKSUM.safetensors``.

Two files cannot be replaced in one step, so the settings name the file of tensors that belongs to them.  A
save writes the tensors under a new name, then replaces ``tuning.json``, then removes the tensors that it
replaced.  A reader that finds them gone reads ``tuning.json`` again.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from ..errors import InputError
from ..files import exclusive, read_json, write_json, write_tensors
from ..methods.prefix import Prefix
from ..methods.registry import as_entries
from .attached import Attached, fitted
from .base_identity import describe_base
from .checksums import settings_checksum, tensor_checksum

FORMAT_VERSION = 2
SETTINGS = "tuning.json"
#: Tensors, in format 1.
WEIGHTS = "tuning.safetensors"
NAMED_WEIGHTS = re.compile(r"tuning-[0-9a-f]{16}\.safetensors")
#: How long a save waits for another one into the same folder, in seconds.
PATIENCE = 60.0


def save_tuning(tuning: Attached, folder: str | Path) -> None:
    """Write ``tuning`` into ``folder``; a reparametrised prefix is saved as the keys and values it gives."""
    state = tuning.state_dict()
    for name, tensor in state.items():
        fitted(name, tensor, tensor)
    settings = describe_tuning(tuning, {name: tensor_checksum(t) for name, t in state.items()})
    place, weights = Path(folder), str(settings["weights"])
    with exclusive(place, "folder", wait=PATIENCE):
        replaced = named_weights(place)
        try:
            write_tensors(place / weights, state)
            write_json(place / SETTINGS, settings)
        finally:
            kept = named_weights(place)
            old = {p.name for p in place.iterdir() if NAMED_WEIGHTS.fullmatch(p.name)} if kept else {weights}
            for name in old | ({replaced} if replaced else set()):
                if name != kept:
                    (place / name).unlink(missing_ok=True)


def describe_tuning(tuning: Attached, tensors: dict[str, str]) -> dict[str, Any]:
    """All settings, with the checksums of the ``tensors`` and, last, a checksum of the settings."""
    methods = [replace(m, reparam_hidden=None) if isinstance(m, Prefix) else m for m in tuning.methods]
    describe = getattr(tuning.root, "describe", None)
    settings = {
        "format_version": FORMAT_VERSION,
        "methods": as_entries(methods),
        "also_train": list(tuning.also_train),
        "gating": tuning.gating,
        "classifier": describe() if callable(describe) else None,
        "loaded_from": loaded_from(tuning),
        "base": describe_base(tuning),
        "weights": f"tuning-{settings_checksum(tensors)[:16]}.safetensors",
        "tensors": tensors,
    }
    return {**settings, "checksum": settings_checksum(settings)}


def loaded_from(tuning: Attached) -> str | None:
    """The name that loads the base again; for a folder, its absolute path."""
    name = getattr(tuning.model, "loaded_from", None)
    return os.path.abspath(name) if name is not None and os.path.isdir(name) else name


def named_weights(folder: Path) -> str | None:
    """The file of tensors that the settings in ``folder`` name; None where there are none."""
    try:
        return weights_name(read_settings(folder))
    except InputError:
        return None


def weights_name(settings: dict[str, Any]) -> str:
    return WEIGHTS if settings["format_version"] == 1 else settings["weights"]


def read_tuning(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and tensors as :func:`save_tuning` wrote them; nothing is ever unpickled.

    Raises :class:`InputError` for a folder that holds no tuning or a damaged one.  Format 1 had no checksums.
    """
    settings = read_settings(folder)
    while (content := content_of(Path(folder) / weights_name(settings))) is None:
        newer = read_settings(folder)
        if newer == settings:
            accepted = f"a folder with {weights_name(settings)} (pickled weights are never read)"
            raise InputError("folder", str(folder), accepted)
        settings = newer  # a save came between
    state = parse_tensors(content, weights_name(settings), folder)
    if settings["format_version"] > 1:
        check_tensors(state, settings)
    return settings, state


def read_settings(folder: str | Path) -> dict[str, Any]:
    """The settings in ``folder``, refused unless they are as they were saved."""
    path = Path(folder) / SETTINGS
    if not path.is_file():
        raise InputError("folder", str(folder), f"a folder with {SETTINGS}")
    settings = read_json(path, "folder")
    if not isinstance(settings, dict):
        raise InputError("folder", str(folder), f"a folder whose {SETTINGS} is a JSON object")
    version = settings.get("format_version")
    if version not in (1, FORMAT_VERSION) or isinstance(version, bool):
        raise InputError("format_version", version, f"1 or {FORMAT_VERSION}, the versions this package reads")
    if version > 1:
        content = {name: value for name, value in settings.items() if name != "checksum"}
        if settings.get("checksum") != settings_checksum(content):
            accepted = f"a folder whose {SETTINGS} is as it was saved (its checksum does not fit)"
            raise InputError("folder", str(folder), accepted)
    return settings


def content_of(path: Path) -> bytes | None:
    """The file's bytes; None where there is no such file."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError("folder", str(path), f"a file that can be read ({error.strerror})") from error


def parse_tensors(content: bytes, name: str, folder: str | Path) -> dict[str, Tensor]:
    """The tensors in the bytes of a safetensors file."""
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError("folder", str(folder), f"a folder with {name} undamaged ({reason})") from error


def check_tensors(state: dict[str, Tensor], settings: dict[str, Any]) -> None:
    """Refuse tensors that are not those whose checksums were saved."""
    saved = settings["tensors"]
    for name in sorted(saved.keys() | state.keys()):
        if name not in state or name not in saved or tensor_checksum(state[name]) != saved[name]:
            accepted = f"the tensors as they were saved with {SETTINGS}, unchanged"
            raise InputError("folder", f"{name} in {weights_name(settings)}", accepted)
