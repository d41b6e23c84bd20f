"""What prefixes and soft prompts need at the inner model's input and output: positions and masks."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import InputError
from .architectures import Architecture
from .soft_prompt import SoftPromptVectors


class InputHook:
    """Prepares the inner model's input for prefixes and soft prompts, and cuts its output.

    Positions follow the attention mask in causal models, so padding on the left changes nothing;
    they move by ``shift`` (prefix with ``positions="shift"``) and by the soft prompt's length.
    """

    def __init__(
        self, inner: PreTrainedModel, architecture: Architecture, shift: int, prompt: SoftPromptVectors | None
    ):
        self.inner, self.architecture, self.shift, self.prompt = inner, architecture, shift, prompt
        self.length = 0 if prompt is None else len(prompt.embeddings)
        self.names = list(inspect.signature(inner.forward).parameters)
        self.cut = False
        self.handles = [
            inner.register_forward_pre_hook(self.before, with_kwargs=True),
            inner.register_forward_hook(self.after),
        ]

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()

    def before(self, _module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        kwargs = {**dict(zip(self.names, args, strict=False)), **kwargs}
        ids, embedded = kwargs.get("input_ids"), kwargs.get("inputs_embeds")
        given = ids if ids is not None else embedded
        if given is None:
            raise InputError("input_ids", None, "token ids as input_ids, or embeddings as inputs_embeds")
        cache, mask = kwargs.get("past_key_values"), kwargs.get("attention_mask")
        cached = int(cache.get_seq_length()) if cache is not None else 0
        text_before = cached - self.length if cached else 0
        if self.prompt is not None and mask is None and cache is None:
            self.check_one_text(kwargs.get("position_ids"))
        positions = self.positions(kwargs.get("position_ids"), mask, given, text_before)
        self.cut = self.prompt is not None and not cached
        if self.cut:
            embedded = self.inner.get_input_embeddings()(ids) if embedded is None else embedded
            kwargs["inputs_embeds"] = self.prompt(embedded)  # type: ignore[misc]
            kwargs.pop("input_ids", None)
            kwargs["return_dict"] = True
            if kwargs.get("token_type_ids") is not None:
                kwargs["token_type_ids"] = nn.functional.pad(kwargs["token_type_ids"], (self.length, 0))
            own = torch.arange(self.length, device=given.device) + self.shift
            positions = torch.cat([own.expand(len(given), -1), positions.expand(len(given), -1)], dim=1)
            for layer in getattr(cache, "layers", ()):
                if not layer.is_initialized and hasattr(layer, "max_cache_len"):
                    layer.max_cache_len += self.length
        if self.prompt is not None and mask is not None:
            read = given.shape[1] + (self.length if self.cut else cached)
            rooms = [getattr(layer, "max_cache_len", 0) for layer in getattr(cache, "layers", ())]
            keys = max([read, *rooms])
            kwargs["attention_mask"] = self.extend(mask, keys, cached)
        if positions is not None:
            kwargs["position_ids"] = positions
        return (), kwargs

    def check_one_text(self, positions: Tensor | None) -> None:
        """Refuse positions (batch, tokens) that restart or jump.

        Without a mask transformers takes each stretch for a text of its own, and hides the prompt from all
        but the first.
        """
        if positions is not None and (positions != torch.arange(positions.shape[-1]).to(positions)).any():
            given = "texts packed into one row, by positions that do not count from 0"
            raise InputError("position_ids", given, "one text per row together with a soft prompt")

    def positions(self, positions: Tensor | None, mask: Any, given: Tensor, text_before: int) -> Any:
        """Where the text's tokens stand, (batch or 1, tokens); None where the model's own choice is right."""
        tokens, moved = given.shape[1], self.shift + self.length
        context = self.inner.config.max_position_embeddings
        if moved and moved + text_before + tokens > context:
            taken = f"{text_before + tokens} tokens after {moved} positions of the prompt or prefix"
            raise InputError("input_ids", taken, f"a context of {context} positions together")
        if positions is not None:
            return positions + moved
        if self.architecture.causal and isinstance(mask, Tensor) and mask.ndim == 2:
            return (mask.cumsum(-1) - 1).clamp_min(0)[:, -tokens:] + moved
        if moved:
            return torch.arange(text_before, text_before + tokens, device=given.device)[None] + moved
        return None

    def extend(self, mask: Any, keys: int, cached: int) -> Any:
        """``mask`` with the soft prompt in front: visible keys, and the prompt's own rows where it is read.

        The mask is (batch, text keys), (batch, 1, tokens, text keys), or a dict of the latter; the
        attention will see ``keys`` keys, of which ``cached`` come before the tokens that are read.
        """
        if isinstance(mask, dict):
            return {n: None if one is None else self.extend(one, keys, cached) for n, one in mask.items()}
        if mask.ndim == 2:
            return nn.functional.pad(mask, (self.length, 0), value=1)
        if not self.architecture.causal or getattr(self.inner.config, "sliding_window", None) is not None:
            raise InputError("attention_mask", f"a mask of shape {tuple(mask.shape)}", "(batch, tokens) here")
        seen, hidden = (True, False) if mask.dtype == torch.bool else (0.0, torch.finfo(mask.dtype).min)
        # A mask made for a static cache may count the prompt's room among its keys, at the end.
        mask = mask[..., : keys - self.length]
        mask = nn.functional.pad(mask, (self.length, 0, self.length if self.cut else 0, 0), value=seen)
        # The prompt's rows are ours to write, and a cache's mask took the prompt for text before the row.
        ours = slice(self.length) if self.cut else slice(None)
        rows = torch.arange(mask.shape[-2], device=mask.device)[ours, None] + cached
        mask[..., ours, :].masked_fill_(torch.arange(mask.shape[-1], device=mask.device) > rows, hidden)
        return mask

    def after(self, module: nn.Module, _args: tuple, output: Any) -> Any:
        if self.cut:
            output.last_hidden_state = output.last_hidden_state[:, self.length :].contiguous()
            if getattr(module, "pooler", None) is not None:
                output.pooler_output = module.pooler(output.last_hidden_state)  # type: ignore[operator]
            if output.get("hidden_states") is not None:
                output.hidden_states = tuple(h[:, self.length :] for h in output.hidden_states)
        return output
