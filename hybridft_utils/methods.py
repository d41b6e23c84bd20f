"""What all tuning methods have in common: a frozen description, and parts put on a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .architectures import Architecture, join, path_of


@dataclass
class Part:
    """One trainable module put into a model at one place."""

    method: str  # the method's kind, such as "lora"
    name: str  # dotted name of ``module`` in the attached model
    module: nn.Module  # its parameters are trained, but for a wrapped base module
    put: Callable[[], None]  # put the module into the model
    take: Callable[[], None]  # take it out again; the model is as before


@dataclass(frozen=True)
class Host:
    """A model about to be tuned, and where things are in it."""

    root: nn.Module  # what the user attached to; names are seen from here
    model: PreTrainedModel
    architecture: Architecture
    gating: str | None
    task_ids: Tensor | None  # (tokens,), for methods that start from a task's text

    @property
    def inner(self) -> PreTrainedModel:
        """The model without its head."""
        return self.model.base_model

    @property
    def inner_path(self) -> str:
        return path_of(self.root, self.inner)

    def layer_paths(self) -> Iterator[str]:
        """Dotted name of each layer, first to last."""
        layers = join(self.inner_path, self.architecture.layers)
        for index in range(len(self.root.get_submodule(layers))):  # type: ignore[arg-type]
            yield f"{layers}.{index}"

    def gate(self, features: int) -> Gate | None:
        """A new gate where the user asked for gating."""
        return Gate(features) if self.gating == "unipelt" else None


class Method:
    """Base of the frozen dataclasses that name a method and its settings."""

    kind: ClassVar[str]
    trains_base: ClassVar[bool] = False

    def parts(self, host: Host) -> list[Part]:
        """The modules this method adds to ``host``; none by default."""
        return []

    def base_parameters(self, host: Host) -> dict[str, float]:
        """Names of the base's own parameters to train, with a factor on their learning rate."""
        return {}


class Gate(nn.Module):
    r"""How much of a part is used, from the sublayer's input: :math:`g_t = \sigma(w^\top h_t + b)`.

    UniPELT (Mao et al. 2022, section 3.2) averages over the tokens; a gate of each token keeps
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
        z = self.linear(x)
        self.last = torch.sigmoid(z.detach())
        return z

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, features) to gates in (0, 1), (batch, tokens, 1)."""
        return torch.sigmoid(self.logit(x))


def first_argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """A module's input, whether it was passed by position or by name."""
    return args[0] if args else kwargs["hidden_states"]
