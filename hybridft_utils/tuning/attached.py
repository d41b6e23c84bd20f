"""Methods that are on a model: what they train, and ways to switch, merge and take them off again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..methods import prefix as prefix_module
from ..methods.architectures import join
from ..methods.input_hook import InputHook
from ..methods.lora import LoRA, LoRALinear
from ..methods.parts import Gate, Host, Method, Part
from ..methods.prefix import Prefix, PrefixKV, ReparametrisedKV
from ..methods.registry import METHODS
from .marks import mark, unmark

#: The types that a parameter may be loaded from: no integers, and nothing of 8 bits.
PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Count:
    """Trained and total parameters; ``by_method`` sums to ``trained``."""

    trained: int
    total: int
    by_method: dict[str, int]

    @property
    def percent(self) -> float:
        return 100 * self.trained / self.total

    def __str__(self) -> str:
        return f"{self.trained:,} of {self.total:,} parameters trained ({self.percent:.2f} %)"


class Attached:
    """Methods attached to a model; :class:`hybridft_utils.Tuning` adds the files.

    Parameters of the base that are trained in place (full fine-tuning, biases, ``also_train``) are kept
    a second time in main memory, as they were, for :meth:`disabled` and :meth:`detach`.
    """

    def __init__(self, methods: Sequence[Method], also_train: Sequence[str], host: Host):
        # Whatever can be refused is refused before the model is changed.
        self.host, self.root, self.model = host, host.root, host.model
        self.methods, self.also_train, self.gating = tuple(methods), tuple(also_train), host.gating
        self._base = dict(host.root.named_parameters())
        # Base parameters that are trained, with a factor on their learning rate.
        self.in_place: dict[str, float] = {}
        self._owners: dict[str, str] = {}
        for kind, factors in (
            *((m.kind, m.base_parameters(host)) for m in methods),
            *(("also_train", dict.fromkeys(parameters_under(host.root, n), 1.0)) for n in also_train),
        ):
            for name in factors:
                if not self._base[name].is_floating_point():
                    raise InputError(
                        "methods", f"{kind} of the quantised {name}", "weights that can be trained"
                    )
            self.in_place.update(factors)
            self._owners.update(dict.fromkeys(factors, kind))
        order = list(METHODS)
        self.parts: list[Part] = []
        for method in sorted(methods, key=lambda m: order.index(m.kind)):
            self.parts += method.parts(host)
        if not self.parts and not self.in_place:
            known = ", ".join(c.__name__ for c in METHODS.values())
            raise InputError("methods", "none", f"at least one of {known}")
        self._aside = {n: self._base[n].detach().to("cpu", copy=True) for n in self.in_place}
        self._required = {n: p.requires_grad for n, p in self._base.items()}
        self._implementation = host.model.config._attn_implementation
        self._input_hook: InputHook | None = None
        for name, parameter in self._base.items():
            parameter.requires_grad_(name in self.in_place)
        self._put()
        mark(self.root)

    # -- switching ---------------------------------------------------------------------------

    def _put(self) -> None:
        for part in self.parts:
            part.put()
        kinds = {part.method for part in self.parts}
        if "prefix" in kinds:
            name = prefix_module.EAGER if self._implementation == "eager" else prefix_module.SDPA
            joint = any(isinstance(m, Prefix) and m.softmax == "joint" for m in self.methods)
            self.model.config._attn_implementation = name + (prefix_module.JOINT if joint else "")
        if kinds & {"prefix", "prompt"}:
            shift = sum(m.length for m in self.methods if isinstance(m, Prefix) and m.positions == "shift")
            prompt: Any = self.host.inner._modules.get("soft_prompt")
            self._input_hook = InputHook(self.host.inner, self.host.architecture, shift, prompt)
        self._state = "attached"

    def _take(self, state: str) -> None:
        for part in reversed(self.parts):
            part.take()
        self.model.config._attn_implementation = self._implementation
        if self._input_hook is not None:
            self._input_hook.remove()
            self._input_hook = None
        self._state = state

    def _swap(self) -> None:
        """Exchange what is trained in place with what was set aside; no third copy is made."""
        for name, aside in self._aside.items():
            parameter = self._base[name]
            self._aside[name] = parameter.data.cpu()
            parameter.data = aside.to(parameter.device, parameter.dtype)

    def _release(self) -> None:
        for name, parameter in self._base.items():
            parameter.requires_grad_(self._required[name])
        unmark(self.root)

    def need_attached(self, action: str) -> None:
        """Refuse ``action`` on a tuning that is not on its model now."""
        if self._state != "attached":
            raise InputError(action, f"a {self._state} tuning", "a tuning that is attached to its model")

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Inside the ``with`` block the model is exactly the base model."""
        if self._state == "disabled":  # within another such block
            yield
            return
        self.need_attached("disabled()")
        self._take("disabled")
        self._swap()
        try:
            yield
        finally:
            self._swap()
            self._put()

    def detach(self) -> nn.Module:
        """Take everything off again: the base model, its modules and weights as they were."""
        self.need_attached("detach()")
        self._take("detached")
        self._swap()
        self._release()
        return self.root

    def merge(self) -> nn.Module:
        """Add LoRA's updates to the weights and take LoRA off; other parts stay as they are.

        Where LoRA (or training in place) is all there is, the model is an ordinary one afterwards.
        Else the merged model is what the remaining tuning calls its base.
        """
        self.need_attached("merge()")
        layers = {p.name: p.module for p in self.parts if isinstance(p.module, LoRALinear)}
        for name, layer in layers.items():
            self._need_mergeable(name, layer)
        self._take("merged")
        for layer in layers.values():
            layer.merge()
        self.parts = [part for part in self.parts if part.name not in layers]
        self.methods = tuple(m for m in self.methods if not isinstance(m, LoRA))
        if self.parts:
            self._put()
        else:
            self._release()
        return self.root

    def _need_mergeable(self, name: str, layer: LoRALinear) -> None:
        """Refuse what one matrix cannot hold, or what more than this layer would see."""
        if layer.gate is not None:
            accepted = "LoRA without gating, since a gate depends on the input"
            raise InputError("merge()", "gated LoRA", accepted)
        weight: Tensor = layer.base.weight  # type: ignore[assignment]
        # A weight that is computed from others, as under weight normalisation, is no parameter.
        holders = [m for m in self.root.modules() if any(p is weight for p in m._parameters.values())]
        if len(holders) != 1 or not weight.is_floating_point():
            accepted = "LoRA on weights that are neither tied, nor parametrised, nor quantised"
            raise InputError("merge()", f"LoRA on {name}", accepted)

    # -- parameters --------------------------------------------------------------------------

    def _entries(self) -> Iterator[tuple[str, nn.Parameter, str]]:
        """Name, parameter and kind of everything trained; shared parameters once."""
        seen: set[nn.Parameter] = set()
        added = ((n, p, part.method) for part in self.parts for n, p in part.trained.items())
        in_base = ((n, self._base[n], kind) for n, kind in self._owners.items())
        for name, parameter, kind in (*added, *in_base):
            if parameter not in seen:
                seen.add(parameter)
                yield name, parameter, kind

    def frozen_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters of the base that are not trained, with their names in the base."""
        return ((name, p) for name, p in self._base.items() if name not in self.in_place)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Trained parameters with the names under which they are saved."""
        return ((name, parameter) for name, parameter, _ in self._entries())

    def parameters(self) -> list[nn.Parameter]:
        """The trained parameters."""
        return [parameter for _, parameter, _ in self._entries()]

    def parameter_groups(self, learning_rate: float | Mapping[str, float]) -> list[dict[str, Any]]:
        """Groups for a torch optimiser, with the rates of discriminative fine-tuning.

        ``learning_rate`` is one rate for all, or a rate for each method's kind (and "also_train").
        """
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter, kind in self._entries():
            rate = learning_rate[kind] if isinstance(learning_rate, Mapping) else learning_rate
            groups.setdefault(rate * self.in_place.get(name, 1.0), []).append(parameter)
        return [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]

    def count(self) -> Count:
        """The number of trained parameters, and of all parameters in base and parts together."""
        by_method: dict[str, int] = {}
        added = 0
        for name, parameter, kind in self._entries():
            by_method[kind] = by_method.get(kind, 0) + parameter.numel()
            added += 0 if name in self.in_place else parameter.numel()
        total = sum(p.numel() for p in self._base.values()) + added
        return Count(sum(by_method.values()), total, by_method)

    def gates(self) -> dict[str, Tensor]:
        """Every gate's newest value by its name: a number for a gated prefix, and for a gate computed
        from the input one per token of the last forward pass, (batch, tokens, 1).
        """
        values: dict[str, Tensor] = {}
        for part in self.parts:
            for name, module in part.module.named_modules():
                if isinstance(module, PrefixKV) and module.gate_logit is not None:
                    values[join(part.name, name)] = torch.sigmoid(module.gate_logit.detach())
                if isinstance(module, Gate) and module.last is not None:
                    values[join(part.name, name)] = module.last
        return values

    # -- saving ------------------------------------------------------------------------------

    @torch.no_grad()
    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the trained tensors; a reparametrised prefix is folded into keys and values."""
        self.need_attached("state_dict()")
        folded = {p.name: p.module for p in self.parts if isinstance(p.module, ReparametrisedKV)}
        network = tuple(f"{name}.{child}." for name in folded for child in ("trunk", "out"))
        state = {n: p.detach().clone() for n, p in self.named_parameters() if not n.startswith(network)}
        for name, module in folded.items():
            state[f"{name}.key"], state[f"{name}.value"] = (t.clone() for t in module.keys_and_values())
        return state

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy in the tensors that :meth:`state_dict` gave.

        Raises :class:`InputError` unless names and shapes are exactly the tuning's own and every value is a
        finite floating-point number; nothing is changed then.
        """
        self.need_attached("load_state_dict()")
        own = dict(self.named_parameters())
        for name in sorted(own.keys() ^ state.keys()):
            where = "missing from the saved tuning" if name in own else "not part of this tuning"
            raise InputError("state", name, f"exactly the tuning's own tensors; this one is {where}")
        fitting = {name: fitted(name, state[name], parameter) for name, parameter in own.items()}
        for name, parameter in own.items():
            parameter.copy_(fitting[name])


def fitted(name: str, value: Tensor, parameter: Tensor) -> Tensor:
    """``value`` in the precision and on the device of ``parameter``; what does not fit is refused."""
    if not isinstance(value, Tensor) or value.dtype not in PRECISIONS:
        given = f"{name} of type {getattr(value, 'dtype', type(value).__name__)}"
        raise InputError("state", given, "tensors of 16, 32 or 64 bit floating-point numbers")
    if parameter.shape != value.shape:
        given = f"{name} of shape {tuple(value.shape)}"
        raise InputError("state", given, f"shape {tuple(parameter.shape)}")
    value = value.to(parameter.device, parameter.dtype)
    if not value.isfinite().all():
        raise InputError("state", f"{name} with values that are not finite", "finite numbers")
    return value


def parameters_under(root: nn.Module, name: str) -> list[str]:
    """Names of the parameters of module ``name``; of a parameter that two modules share, its first name."""
    try:
        module = root.get_submodule(name)
    except AttributeError:
        known = ", ".join(n for n, _ in root.named_children())
        raise InputError("also_train", name, f"the name of a module, such as {known}") from None
    names = {parameter: n for n, parameter in root.named_parameters()}
    return [names[parameter] for parameter in module.parameters()]
