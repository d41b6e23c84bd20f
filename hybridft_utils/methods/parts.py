"""What all tuning methods have in common: a frozen description, and parts put on a model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import InputError
from .architectures import Architecture, join, path_of

#: Largest width of a part, in widths of its layer; anything above could only exhaust the memory.
WIDEST = 64


@dataclass
class Part:
    """One trainable module put into a model at one place."""

    method: str  # the method's kind, such as "lora"
    name: str  # dotted name of ``module`` in the attached model
    module: nn.Module
    put: Callable[[], None]  # put the module into the model
    take: Callable[[], None]  # take it out again; the model is as before
    wrapped: nn.Module | None = None  # the base module inside ``module``
    trained: dict[str, nn.Parameter] = field(init=False)  # by full name

    def __post_init__(self) -> None:
        base = set() if self.wrapped is None else set(self.wrapped.parameters())
        own = self.module.named_parameters(remove_duplicate=False)
        self.trained = {f"{self.name}.{n}": p for n, p in own if p not in base}


@dataclass(frozen=True)
class Host:
    """A model about to be tuned, and where its layers are."""

    root: nn.Module  # what the user attached to; names are seen from here
    model: PreTrainedModel
    architecture: Architecture
    gating: str | None = None
    task_ids: Tensor | None = None  # (tokens,), for methods that start from a task's text

    @property
    def inner(self) -> PreTrainedModel:
        """The model without its head."""
        return self.model.base_model  # type: ignore[return-value]

    @property
    def inner_path(self) -> str:
        return path_of(self.root, self.inner)

    def layer_paths(self) -> Iterator[str]:
        """Dotted name of each layer, first to last."""
        layers = join(self.inner_path, self.architecture.layers)
        for index in range(len(self.root.get_submodule(layers))):  # type: ignore[arg-type]
            yield f"{layers}.{index}"

    def check_unshared(self, paths: Sequence[str]) -> None:
        """Refuse ``paths`` of which two lead to one module: only the last part there would be trained."""
        first: dict[nn.Module, str] = {}
        for path in paths:
            other = first.setdefault(self.root.get_submodule(path), path)
            if other != path:
                given = f"{other} and {path}, which are one module"
                raise InputError("model", given, "a model whose layers are modules of their own")

    def gate(self, features: int) -> Gate | None:
        """A new gate where the user asked for gating."""
        return Gate(features) if self.gating == "unipelt" else None

    def check_length(self, parameter: str, length: int) -> None:
        """Refuse a prefix or a prompt that leaves the text no room."""
        context = self.model.config.max_position_embeddings
        if length >= context:
            raise InputError(parameter, length, f"less than the model's context of {context} tokens")

    def check_width(self, parameter: str, value: int, width: int | None = None) -> None:
        """Refuse a part that is far wider than the layer it sits in, by default the model's width."""
        most = WIDEST * (width or self.model.config.hidden_size)
        if value > most:
            raise InputError(parameter, value, f"at most {most}, {WIDEST} times the width of the layer")

    def start_ids(self, init: str, length: int) -> Tensor:
        """(length,) token ids to start from: "vocab" draws words, "task" repeats the task's text."""
        if init == "vocab":
            return torch.randint(self.model.config.vocab_size, (length,))
        if self.task_ids is None or not len(self.task_ids):
            raise InputError("init", init, "'task' together with attach(..., task_text=, tokenizer=)")
        return self.task_ids.repeat(-(-length // len(self.task_ids)))[:length]


class Method:
    """Base of the frozen dataclasses that name a method and its settings."""

    kind: ClassVar[str]

    def parts(self, host: Host) -> list[Part]:
        """The modules this method adds to ``host``; none by default.  The model is not changed yet."""
        return []

    def base_parameters(self, host: Host) -> dict[str, float]:
        """Names of the base's own parameters to train, with a factor on their learning rate."""
        return {}


class Gate(nn.Module):
    r"""How much of a part is used, from the sublayer's input: :math:`g_t = \sigma(w^\top h_t + b)`.

    UniPELT (Mao et al. 2022, section 3.2) averages over the tokens; one gate per token keeps
    causal models causal and does not depend on padding.  ``last`` holds the newest gates.
    """

    def __init__(self, features: int):
        super().__init__()
        self.linear = nn.Linear(features, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.last: Tensor | None = None

    def logit(self, x: Tensor) -> Tensor:
        """(batch, tokens, features) to the gate's logit, (batch, tokens, 1)."""
        z = self.linear(x.to(self.linear.weight.dtype))
        self.last = torch.sigmoid(z.detach())
        return z

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, features) to gates in (0, 1), (batch, tokens, 1)."""
        return torch.sigmoid(self.logit(x))


def place(module: nn.Module, like: Tensor) -> None:
    """Move ``module`` to the device of ``like``, in at least single precision.

    A half-precision parameter would lose most updates to rounding, so under a half-precision base
    the few trained parameters are kept in float32, as PEFT does.
    """
    dtype = like.dtype if like.dtype.is_floating_point else torch.float32
    module.to(like.device, torch.promote_types(dtype, torch.float32))


def first_argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """A module's input, whether it was passed by position or by name."""
    return args[0] if args else kwargs["hidden_states"]


def check_whole(parameter: str, value: object, least: int = 1) -> None:
    """Refuse anything but a whole number of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(parameter, value, f"a whole number of at least {least}")


def check_number(parameter: str, value: object, valid: Callable[[Any], bool], accepted: str) -> None:
    """Refuse anything but a ``valid`` number within the range of floating point."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or (isinstance(value, int) and abs(value) > sys.float_info.max) or not valid(value):
        raise InputError(parameter, value, accepted)


def check_choice(parameter: str, value: object, *choices: object) -> None:
    """Refuse anything but one of ``choices``."""
    if value not in choices:
        raise InputError(parameter, value, " or ".join(map(repr, choices)))
