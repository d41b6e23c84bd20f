r"""Soft prompt (prompt tuning): trained vectors in front of the input's embeddings (Lester et al. 2021).

.. math:: [P; E(x)] \in \mathbb{R}^{(n + T) \times d}

The rows of the n prompt vectors are cut off again behind the inner model.  So logits, labels and a
classifier's pooling see the T positions of the text and nothing else.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .architectures import join
from .errors import InputError
from .methods import Host, Method, Part


class SoftPromptVectors(nn.Module):
    """The trained vectors, ``embeddings`` (prompt length, hidden width)."""

    def __init__(self, length: int, width: int):
        super().__init__()
        self.embeddings = nn.Parameter(torch.randn(length, width) * 0.02)


@dataclass(frozen=True)
class SoftPrompt(Method):
    """``length`` trained vectors at the input.

    ``init``: "random", "vocab" (embeddings of random words of the vocabulary) or "task" (embeddings
    of the task's text).
    """

    length: int = 16
    init: Literal["random", "vocab", "task"] = "vocab"
    kind: ClassVar[str] = "prompt"

    def __post_init__(self) -> None:
        if not isinstance(self.length, int) or self.length < 1:
            raise InputError("prompt_length", self.length, "a whole number of at least 1")
        if self.init not in ("random", "vocab", "task"):
            raise InputError("init", self.init, "'random', 'vocab' or 'task'")

    def parts(self, host: Host) -> list[Part]:
        context = host.model.config.max_position_embeddings
        if self.length >= context:
            raise InputError("prompt_length", self.length, f"less than the model's context of {context} tokens")
        embed = host.inner.get_input_embeddings()
        vectors = SoftPromptVectors(self.length, embed.weight.shape[1])
        if self.init == "vocab":
            ids = torch.randint(embed.weight.shape[0], (self.length,))
        elif self.init == "task":
            if host.task_ids is None:
                raise InputError("init", "task", "'task' together with attach(..., task_text=, tokenizer=)")
            ids = host.task_ids.repeat(-(-self.length // len(host.task_ids)))[: self.length]
        if self.init != "random":
            vectors.embeddings.data.copy_(embed.weight.data[ids.to(embed.weight.device)])
        vectors.to(embed.weight.device, embed.weight.dtype)
        inner = host.inner

        def put() -> None:
            inner.add_module("soft_prompt", vectors)

        def take() -> None:
            del inner._modules["soft_prompt"]

        return [Part(self.kind, join(host.inner_path, "soft_prompt"), vectors, put, take)]


class InputHook:
    """Prepares the inner model's input for prefixes and soft prompts, and cuts its output.

    Positions follow the attention mask in causal models, so padding on the left changes nothing;
    they move by ``shift`` (prefix with ``positions="shift"``) and by the soft prompt's length.
    """

    def __init__(self, inner: PreTrainedModel, causal: bool, shift: int):
        self.inner, self.causal, self.shift = inner, causal, shift
        self.names = list(inspect.signature(inner.forward).parameters)
        self.prepended = 0
        self.handles = [
            inner.register_forward_pre_hook(self.before, with_kwargs=True),
            inner.register_forward_hook(self.after),
        ]

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()

    def before(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        kwargs = {**dict(zip(self.names, args, strict=False)), **kwargs}
        vectors = module._modules.get("soft_prompt")
        prompt: Tensor | None = vectors.embeddings if vectors is not None else None  # type: ignore[assignment]
        length = 0 if prompt is None else prompt.shape[0]
        ids, embeds = kwargs.get("input_ids"), kwargs.get("inputs_embeds")
        given = ids if ids is not None else embeds
        assert given is not None, "a transformers model needs input_ids or inputs_embeds"
        batch, tokens = given.shape[:2]
        cache, mask = kwargs.get("past_key_values"), kwargs.get("attention_mask")
        past = int(cache.get_seq_length()) if cache is not None else 0
        positions = kwargs.get("position_ids")
        if positions is None and self.causal and mask is not None and mask.ndim == 2:
            positions = (mask.cumsum(-1) - 1).clamp_min(0)[:, -tokens:]
        elif positions is None and (self.shift or length):
            seen = past - length if past else 0
            positions = torch.arange(seen, seen + tokens, device=given.device)[None]
        if positions is not None:
            positions = positions + self.shift + length
        self.prepended = 0
        if prompt is not None:
            if mask is not None:
                mask = front_of_mask(mask, length, with_rows=not past)
            if not past:
                if embeds is None:
                    embeds = self.inner.get_input_embeddings()(ids)
                front = prompt.to(embeds.dtype).expand(batch, -1, -1)
                kwargs.update(input_ids=None, inputs_embeds=torch.cat([front, embeds], dim=1))
                own = torch.arange(length, device=given.device).expand(batch, -1) + self.shift
                positions = torch.cat([own, positions.expand(batch, -1)], dim=1)
                types = kwargs.get("token_type_ids")
                if types is not None:
                    kwargs["token_type_ids"] = torch.cat([types.new_zeros(batch, length), types], dim=1)
                for layer in getattr(cache, "layers", ()):
                    if not layer.is_initialized and hasattr(layer, "max_cache_len"):
                        layer.max_cache_len += length
                self.prepended = length
        kwargs["attention_mask"], kwargs["position_ids"] = mask, positions
        return (), {name: value for name, value in kwargs.items() if value is not None}

    def after(self, module: nn.Module, args: tuple, output: Any) -> Any:
        if self.prepended:
            output.last_hidden_state = output.last_hidden_state[:, self.prepended :]
            pooler = getattr(module, "pooler", None)
            if pooler is not None:
                output.pooler_output = pooler(output.last_hidden_state)
            if output.get("hidden_states") is not None:
                output.hidden_states = tuple(h[:, self.prepended :] for h in output.hidden_states)
        return output


def front_of_mask(mask: Tensor, length: int, with_rows: bool) -> Tensor:
    """Extend a mask, (batch, keys) or (batch, 1, tokens, keys), by ``length`` visible keys in front.

    A four-dimensional mask also gets the prompt's own rows where the prompt is part of the input.
    """
    if mask.ndim == 2:
        return torch.cat([mask.new_ones(mask.shape[0], length), mask], dim=1)
    seen, hidden = (True, False) if mask.dtype == torch.bool else (0.0, torch.finfo(mask.dtype).min)
    mask = torch.cat([mask.new_full((*mask.shape[:3], length), seen), mask], dim=-1)
    if with_rows:
        rows = mask.new_full((*mask.shape[:2], length, mask.shape[-1]), hidden)
        rows[..., :length].masked_fill_(torch.ones(length, length, device=mask.device).tril().bool(), seen)
        mask = torch.cat([rows, mask], dim=2)
    return mask
