"""Put tuning methods on a model, any of them together, and switch, merge and take them off again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ..errors import InputError
from ..methods import prefix as prefix_module
from ..methods.adapter import Adapter
from ..methods.architectures import find_architecture, find_transformer, join
from ..methods.baselines import BitFit, FullFineTuning, HeadOnly
from ..methods.input_hook import InputHook
from ..methods.lora import LoRA, LoRALinear
from ..methods.parts import Gate, Host, Method, check_choice
from ..methods.prefix import Prefix, PrefixKV, ReparametrisedKV
from ..methods.soft_prompt import SoftPrompt
from .base_identity import describe_base

#: Every method by its kind; LoRA is put in first, so that other parts see its layers.
METHODS: dict[str, type[Method]] = {
    m.kind: m for m in (LoRA, Prefix, SoftPrompt, Adapter, FullFineTuning, HeadOnly, BitFit)
}


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


class Tuning:
    """Methods attached to a model: what is trained, and ways to switch, merge, detach and save it.

    Made by :func:`attach`, :func:`load_tuning` and :func:`import_peft`.  Parameters of the base
    that are trained in place (full fine-tuning, biases, ``also_train``) are kept a second time in
    main memory, as they were, for :meth:`disabled` and :meth:`detach`.
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
            self.in_place.update(factors)
            self._owners.update(dict.fromkeys(factors, kind))
        order = list(METHODS)
        self.parts = [p for m in sorted(methods, key=lambda m: order.index(m.kind)) for p in m.parts(host)]
        if not self.parts and not self.in_place:
            known = ", ".join(c.__name__ for c in METHODS.values())
            raise InputError("methods", "none", f"at least one of {known}")
        self.base = describe_base(host.root, host.model, self.in_place)
        self._aside = {n: self._base[n].detach().to("cpu", copy=True) for n in self.in_place}
        self._required = {n: p.requires_grad for n, p in self._base.items()}
        self._implementation = host.model.config._attn_implementation
        self._input_hook: InputHook | None = None
        for name, parameter in self._base.items():
            parameter.requires_grad_(name in self.in_place)
        self.model._tuning_attached = True  # type: ignore[assignment]
        self._put()

    # -- switching ---------------------------------------------------------------------------

    def _put(self) -> None:
        for part in self.parts:
            part.put()
        kinds = {part.method for part in self.parts}
        if "prefix" in kinds:
            eager = self._implementation == "eager"
            self.model.config._attn_implementation = prefix_module.EAGER if eager else prefix_module.SDPA
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
        del self.model._tuning_attached

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
            weight: Tensor = layer.base.weight  # type: ignore[assignment]
            holders = [m for m in self.root.modules() if any(p is weight for p in m._parameters.values())]
            if layer.gate is not None:
                raise InputError(
                    "merge()", "gated LoRA", "LoRA without gating, since a gate depends on the input"
                )
            if len(holders) > 1 or not weight.is_floating_point():
                raise InputError(
                    "merge()", f"LoRA on {name}", "LoRA on weights that are neither tied nor quantised"
                )
        self._take("merged")
        for layer in layers.values():
            layer.merge()
        self.parts = [part for part in self.parts if part.name not in layers]
        self.methods = tuple(m for m in self.methods if not isinstance(m, LoRA))
        if self.parts:
            self._swap()
            self.base = describe_base(self.root, self.model, self.in_place)
            self._swap()
            self._put()
        else:
            self._release()
        return self.root

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
        """How many parameters are trained, of how many in base and parts together."""
        by_method: dict[str, int] = {}
        added = 0
        for name, parameter, kind in self._entries():
            by_method[kind] = by_method.get(kind, 0) + parameter.numel()
            added += 0 if name in self.in_place else parameter.numel()
        total = sum(p.numel() for p in self._base.values()) + added
        return Count(sum(by_method.values()), total, by_method)

    def gates(self) -> dict[str, Tensor]:
        """Every gate's newest value by its name: a number for a gated prefix, and for a gate computed
        from the input one a token of the last forward pass, (batch, tokens, 1).
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
        """Copy tensors that :meth:`state_dict` gave back in; names and shapes must match exactly."""
        self.need_attached("load_state_dict()")
        own = dict(self.named_parameters())
        for name in sorted(own.keys() ^ state.keys()):
            where = "missing from the saved tuning" if name in own else "not part of this tuning"
            raise InputError("state", name, f"exactly the tuning's own tensors; this one is {where}")
        for name, parameter in own.items():
            if parameter.shape != state[name].shape:
                given = f"{name} of shape {tuple(state[name].shape)}"
                raise InputError("state", given, f"shape {tuple(parameter.shape)}")
        for name, parameter in own.items():
            parameter.copy_(state[name])

    def save(self, folder: str | Path) -> None:
        """Write the tuning into ``folder``, all or nothing; :func:`load_tuning` reads it."""
        from .saved_folder import save_tuning

        save_tuning(self, folder)

    def export_peft(self, folder: str | Path) -> None:
        """Write a folder that ``PeftModel.from_pretrained`` loads; see :mod:`hybridft_utils.tuning.peft_format`."""
        from .peft_format import export_peft

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
    ``tokenizer`` is what ``init="task"`` starts from.  Drawing the new parameters uses torch's
    global generator.

    Raises :class:`InputError` for a model or a combination that is not supported; the model is
    then as it was.
    """
    transformer = find_transformer(model)
    architecture = find_architecture(transformer)
    for method in methods:
        if not isinstance(method, Method):
            known = ", ".join(f"{c.__name__}()" for c in METHODS.values())
            raise InputError("methods", method, f"methods such as {known}")
    kinds = [m.kind for m in methods]
    for kind in set(kinds):
        if kinds.count(kind) > 1:
            raise InputError("methods", f"{kind} twice", "each method once")
    check_choice("gating", gating, None, "unipelt")
    if hasattr(transformer, "_tuning_attached"):
        raise InputError(
            "model", "a model with a tuning attached", "a model as it was loaded (see Tuning.detach)"
        )
    implementation = transformer.config._attn_implementation
    if "prefix" in kinds and implementation not in ("eager", "sdpa"):
        raise InputError("attn_implementation", implementation, "'eager' or 'sdpa' for prefix-tuning")
    task_ids = None
    if task_text is not None:
        if tokenizer is None:
            raise InputError("tokenizer", None, "the model's tokenizer together with task_text")
        task_ids = torch.tensor(tokenizer(task_text, add_special_tokens=False).input_ids)
    names = (also_train,) if isinstance(also_train, str) else also_train
    return Tuning(methods, names, Host(model, transformer, architecture, gating, task_ids))


def parameters_under(root: nn.Module, name: str) -> list[str]:
    """Names of the parameters of module ``name``."""
    try:
        module = root.get_submodule(name)
    except AttributeError:
        known = ", ".join(n for n, _ in root.named_children())
        raise InputError("also_train", name, f"the name of a module, such as {known}") from None
    return [join(name, n) for n, _ in module.named_parameters()]
