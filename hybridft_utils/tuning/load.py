"""Put a saved tuning back on its base model, or refuse by naming what differs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import InputError
from ..methods.architectures import find_transformer
from ..methods.prefix import Prefix
from ..methods.registry import from_entries
from ..methods.soft_prompt import SoftPrompt
from .attach import Tuning, attach
from .base_identity import compare_bases, describe_base, sampled_checksum
from .checksums import tensor_checksum
from .saved_folder import SETTINGS, read_tuning

#: How far a calibration may be from the saved one, in nats, since another machine rounds differently.
PRIOR_TOLERANCE = 1e-3


def load_tuning(model: nn.Module, folder: str | Path) -> Tuning:
    """Put what :meth:`Tuning.save` wrote back on ``model``, the base model or classifier it was trained on.

    Raises :class:`InputError`, which names the difference, for another base model and for a classifier with
    other labels, label words or template.  The same error is raised for a folder that is damaged or was
    written by something else.  The model is then as it was.
    """
    settings, state = read_tuning(folder)
    sampled = settings["format_version"] == 1
    try:
        methods = from_entries(settings["methods"])
        also_train, gating = list(settings["also_train"]), settings["gating"]
        base = {**settings["base"], "checksums": dict(settings["base"]["checksums"])}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{SETTINGS} as Tuning.save writes it ({type(error).__name__}: {error})"
        raise InputError("folder", str(folder), reason) from error
    find_transformer(model)
    compare_classifiers(settings.get("classifier"), model)
    # The saved tensors replace whatever the methods would start from.
    blank = [replace(m, init="random") if isinstance(m, Prefix | SoftPrompt) else m for m in methods]
    tuning = attach(model, *blank, also_train=also_train, gating=gating)
    with detached_on_failure(tuning):
        compare_bases(base, describe_base(tuning, sampled_checksum if sampled else tensor_checksum))
        tuning.load_state_dict(state)
    tuning.methods = tuple(methods)
    return tuning


@contextmanager
def detached_on_failure(tuning: Tuning) -> Iterator[None]:
    """Leave the model as it was if the block fails."""
    try:
        yield
    except BaseException:
        tuning.detach()
        raise


def compare_classifiers(saved: dict[str, Any] | None, model: nn.Module) -> None:
    """Refuse a classifier that would read texts or name answers otherwise than the saved tuning's."""
    describe = getattr(model, "describe", None)
    if saved is None or not callable(describe):
        return
    given = describe()
    # The calibration comes last, since another prompt has another one.
    for name in sorted((saved.keys() | given.keys()) - {"dropout"}, key=lambda n: (n == "prior", n)):
        if not same(name, saved.get(name), given.get(name)):
            raise InputError(name, given.get(name), f"{saved.get(name)!r}, as in the saved tuning")


def same(name: str, saved: Any, given: Any) -> bool:
    """Whether two classifiers agree in a setting."""
    if name != "prior" or saved is None or given is None or len(saved) != len(given):
        return saved == given
    return all(math.isclose(a, b, abs_tol=PRIOR_TOLERANCE) for a, b in zip(saved, given, strict=True))
