"""Put tuning methods on a model, any of them together, and keep, save and restore what they learn."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from . import prefix as prefix_module
from .adapter import Adapter
from .architectures import find_architecture, find_transformer, join
from .baselines import BitFit, FullFineTuning, HeadOnly
from .errors import InputError
from .files import atomic_folder, write_json
from .lora import LoRA, LoRALinear
from .methods import Host, Method, Part
from .prefix import Prefix, PrefixKV, ReparametrisedKV
from .soft_prompt import InputHook, SoftPrompt

#: Every method by its kind; LoRA is put in first, so that other parts see its layers.
METHODS: dict[str, type[Method]] = {
    m.kind: m for m in (LoRA, Prefix, SoftPrompt, Adapter, FullFineTuning, HeadOnly, BitFit)
}
FORMAT_VERSION = 1
WEIGHTS, SETTINGS = "tuning.safetensors", "tuning.json"


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

    Made by :func:`attach` and :func:`load_tuning`.
    """

    def __init__(self, root: nn.Module, methods: Sequence[Method], also_train: Sequence[str], host: Host):
        self.root, self.model = root, host.model
        self.methods, self.also_train, self.gating = tuple(methods), tuple(also_train), host.gating
        self.base = describe_base(root, host.model, also_train)
        self._config = host.model.config
        self._implementation = self._config._attn_implementation
        self._input_hook: InputHook | None = None
        self._attached = False
        factors: dict[str, float] = {}
        for name in also_train:
            factors.update({n: 1.0 for n in parameters_under(root, name)})
        for method in methods:
            factors.update(method.base_parameters(host))
        self._factors = factors
        self._required = {n: p.requires_grad for n, p in root.named_parameters()}
        for name, parameter in root.named_parameters():
            parameter.requires_grad_(name in factors)
        self._base_names = {id(p): n for n, p in root.named_parameters()}
        # Only what is trained in place needs a copy to go back to.
        self._originals = {
            n: p.detach().clone() for n, p in root.named_parameters() if n in factors
        }
        self.parts: list[Part] = []
        self._shift = sum(m.length for m in methods if isinstance(m, Prefix) and m.positions == "shift")
        self._architecture = host.architecture
        for method in sorted(methods, key=lambda m: list(METHODS).index(m.kind)):
            self.parts += method.parts(host)
        self._put()

    # -- switching ---------------------------------------------------------------------------

    def _put(self) -> None:
        for part in self.parts:
            part.put()
        kinds = {part.method for part in self.parts}
        if "prefix" in kinds:
            eager = self._implementation == "eager"
            self._config._attn_implementation = prefix_module.EAGER if eager else prefix_module.SDPA
        if kinds & {"prefix", "prompt"}:
            self._input_hook = InputHook(self.model.base_model, self._architecture.causal, self._shift)
        self._attached = True

    def _take(self) -> None:
        for part in reversed(self.parts):
            part.take()
        self._config._attn_implementation = self._implementation
        if self._input_hook is not None:
            self._input_hook.remove()
            self._input_hook = None
        self._attached = False

    def _need_attached(self, action: str) -> None:
        if not self._attached:
            raise InputError(action, "a detached or disabled tuning", "a tuning that is attached to its model")

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Inside the ``with`` block the model is exactly the base model."""
        self._need_attached("disabled()")
        self._take()
        tuned = self._swap(self._originals)
        try:
            yield
        finally:
            self._swap(tuned)
            self._put()

    @torch.no_grad()
    def _swap(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Copy ``values`` into the base's parameters and return what was there."""
        parameters = dict(self.root.named_parameters())
        before = {name: parameters[name].detach().clone() for name in values}
        for name, value in values.items():
            parameters[name].copy_(value)
        return before

    def detach(self) -> nn.Module:
        """Take everything off again: the base model, its modules and weights as they were."""
        self._need_attached("detach()")
        self._take()
        self._swap(self._originals)
        for name, parameter in self.root.named_parameters():
            parameter.requires_grad_(self._required[name])
        return self.root

    def merge(self) -> nn.Module:
        """Add LoRA's updates to the weights and take LoRA off; other parts stay as they are.

        Where LoRA (or training in place) is all there is, the model is an ordinary one afterwards.
        """
        self._need_attached("merge()")
        self._take()
        for part in self.parts:
            if isinstance(part.module, LoRALinear):
                part.module.merge()
        self.parts = [part for part in self.parts if not isinstance(part.module, LoRALinear)]
        self.methods = tuple(m for m in self.methods if not isinstance(m, LoRA))
        if self.parts:
            self._put()
        else:
            for name, parameter in self.root.named_parameters():
                parameter.requires_grad_(self._required[name])
        return self.root

    # -- parameters --------------------------------------------------------------------------

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Trained parameters with the names under which they are saved."""
        base = {id(p) for p in self.root.parameters() if id(p) in self._base_names}
        seen: set[int] = set()
        for part in self.parts:
            for name, parameter in part.module.named_parameters():
                if id(parameter) not in base and id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield f"{part.name}.{name}", parameter
        for parameter in self.root.parameters():
            name = self._base_names.get(id(parameter), "")
            if name in self._factors:
                yield name, parameter

    def parameters(self) -> list[nn.Parameter]:
        """The trained parameters."""
        return [p for _, p in self.named_parameters()]

    def owner(self, name: str) -> str:
        """The kind of the method that trains the parameter saved as ``name``, or "also_train"."""
        for part in self.parts:
            if name.startswith(f"{part.name}."):
                return part.method
        for module in self.also_train:
            if name.startswith(f"{module}."):
                return "also_train"
        return next(m.kind for m in self.methods if m.trains_base)

    def parameter_groups(self, learning_rate: float | Mapping[str, float]) -> list[dict[str, Any]]:
        """Groups for a torch optimiser, with the rates of discriminative fine-tuning.

        ``learning_rate`` is one rate for all, or a rate for each method's kind (and "also_train").
        """
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            fixed = isinstance(learning_rate, int | float)
            rate = learning_rate if fixed else learning_rate[self.owner(name)]  # type: ignore[index]
            groups.setdefault(rate * self._factors.get(name, 1.0), []).append(parameter)  # type: ignore[operator]
        return [{"params": params, "lr": rate} for rate, params in groups.items()]

    def count(self) -> Count:
        """How many parameters are trained, of how many in base and parts together."""
        by_method: dict[str, int] = {}
        for name, parameter in self.named_parameters():
            owner = self.owner(name)
            by_method[owner] = by_method.get(owner, 0) + parameter.numel()
        added = sum(p.numel() for n, p in self.named_parameters() if n not in self._factors)
        base = {id(p): p.numel() for p in self.root.parameters() if id(p) in self._base_names}
        return Count(sum(by_method.values()), sum(base.values()) + added, by_method)

    # -- saving ------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the trained tensors; a reparametrised prefix is folded into keys and values."""
        state = {}
        folded = {p.name: p.module for p in self.parts if isinstance(p.module, ReparametrisedKV)}
        for name, parameter in self.named_parameters():
            if any(name.startswith((f"{n}.trunk", f"{n}.out")) for n in folded):
                continue
            state[name] = parameter.detach().clone()
        with torch.no_grad():
            for name, module in folded.items():
                key, value = module.keys_and_values()
                state[f"{name}.key"], state[f"{name}.value"] = key.clone(), value.clone()
        return state

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy tensors that :meth:`state_dict` gave back in; names and shapes must match exactly."""
        own = dict(self.named_parameters())
        for name in sorted(own.keys() ^ state.keys()):
            where = "missing from the saved tuning" if name in own else "not part of this tuning"
            raise InputError("state", name, f"exactly the tuning's own tensors; this one is {where}")
        for name, parameter in own.items():
            if parameter.shape != state[name].shape:
                given = f"{name} of shape {tuple(state[name].shape)}"
                raise InputError("state", given, f"shape {tuple(parameter.shape)}")
            parameter.copy_(state[name])

    def save(self, folder: str | Path) -> None:
        """Write ``tuning.safetensors`` and ``tuning.json`` into ``folder``, all or nothing."""
        settings = {
            "format_version": FORMAT_VERSION,
            "methods": [{"kind": m.kind, **asdict(m)} for m in map(folded_method, self.methods)],
            "also_train": list(self.also_train),
            "gating": self.gating,
            "base": self.base,
        }
        state = {n: t.contiguous().cpu() for n, t in self.state_dict().items()}
        with atomic_folder(folder) as fresh:
            save_file(state, fresh / WEIGHTS, metadata={"format": "pt"})
            write_json(fresh / SETTINGS, settings)

    def export_peft(self, folder: str | Path) -> None:
        """Write a folder that ``PeftModel.from_pretrained`` loads; see :mod:`.peft_format`."""
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
    that are trained as they are, such as a classifier.  ``gating="unipelt"`` gives every part a
    gate computed from its sublayer's input (Mao et al. 2022).  ``task_text`` with ``tokenizer`` is
    what ``init="task"`` starts from.  Drawing the new parameters uses torch's global generator.

    Raises :class:`InputError` for a model or a combination that is not supported.
    """
    transformer = find_transformer(model)
    architecture = find_architecture(transformer)
    for method in methods:
        if not isinstance(method, Method):
            raise InputError("methods", method, f"methods such as {', '.join(c.__name__ for c in METHODS.values())}")
    kinds = [m.kind for m in methods]
    for kind in set(kinds):
        if kinds.count(kind) > 1:
            raise InputError("methods", f"{kind} twice", "each method once")
    if gating not in (None, "unipelt"):
        raise InputError("gating", gating, "None or 'unipelt'")
    if any("prefix" in m._modules or isinstance(m, LoRALinear) for m in transformer.modules()):
        raise InputError("model", "a model with a tuning attached", "a model as it was loaded (see Tuning.detach)")
    implementation = transformer.config._attn_implementation
    if "prefix" in kinds and implementation not in ("eager", "sdpa"):
        raise InputError("attn_implementation", implementation, "'eager' or 'sdpa' for prefix-tuning")
    task_ids = None
    if task_text is not None:
        if tokenizer is None:
            raise InputError("tokenizer", None, "the model's tokenizer together with task_text")
        task_ids = torch.tensor(tokenizer(task_text, add_special_tokens=False).input_ids)
    host = Host(model, transformer, architecture, gating, task_ids)
    return Tuning(model, methods, also_train, host)


def load_tuning(model: nn.Module, folder: str | Path) -> Tuning:
    """Attach what :meth:`Tuning.save` wrote to ``model``, the base model it was trained on."""
    folder = Path(folder)
    for name in (WEIGHTS, SETTINGS):
        if not (folder / name).is_file():
            raise InputError("folder", str(folder), f"a folder written by Tuning.save, with {WEIGHTS} and {SETTINGS}")
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    version = settings["format_version"]
    if version != FORMAT_VERSION:
        raise InputError("format_version", version, f"{FORMAT_VERSION}, the version this package reads")
    transformer = find_transformer(model)
    compare_bases(settings["base"], describe_base(model, transformer, settings["also_train"]))
    methods = []
    for entry in settings["methods"]:
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items() if k != "kind"}
        method = METHODS[entry["kind"]](**options)
        # The saved tensors replace whatever the method would start from.
        methods.append(replace(method, init="random") if isinstance(method, Prefix | SoftPrompt) else method)
    tuning = attach(model, *methods, also_train=settings["also_train"], gating=settings["gating"])
    tuning.load_state_dict(load_file(folder / WEIGHTS))
    return tuning


def folded_method(method: Method) -> Method:
    """``method`` as it is saved: a prefix's reparametrisation is already computed."""
    return replace(method, reparam_hidden=None) if isinstance(method, Prefix) else method


def parameters_under(root: nn.Module, name: str) -> list[str]:
    """Names of the parameters of module ``name``."""
    try:
        module = root.get_submodule(name)
    except AttributeError:
        known = ", ".join(n for n, _ in root.named_children())
        raise InputError("also_train", name, f"the name of a module, such as {known}") from None
    return [join(name, n) for n, _ in module.named_parameters()]


def describe_base(root: nn.Module, model: PreTrainedModel, also_train: Sequence[str]) -> dict[str, Any]:
    """What a saved tuning remembers of its base: sizes, and a checksum of each parameter's start."""
    config = model.config
    sizes = {
        name: getattr(config, name)
        for name in ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    }
    sums = {}
    for name, parameter in root.named_parameters():
        if not any(name.startswith(f"{n}.") for n in also_train):
            start = parameter.detach().flatten()[:256].to("cpu", torch.float32)
            sums[name] = zlib.crc32(start.numpy().tobytes())
    return {**sizes, "checksums": sums}


def compare_bases(saved: dict[str, Any], given: dict[str, Any]) -> None:
    """Refuse another base model than the saved one, by the name of the first difference."""
    for name, value in saved.items():
        if name != "checksums" and given[name] != value:
            raise InputError("model", f"{name}={given[name]}", f"the saved tuning's base with {name}={value}")
    for name, value in saved["checksums"].items():
        if given["checksums"].get(name) != value:
            raise InputError("model", f"other weights in {name}", "the base model the tuning was trained on")


__all__ = ["Count", "PrefixKV", "Tuning", "attach", "load_tuning"]
