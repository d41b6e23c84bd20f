"""Every setting of a pre-training: what decides the weights, and where they go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from torch import Tensor

from ..errors import InputError
from .corpus import Corpus, read_corpus

Sources = Annotated[
    tuple[str, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)
]
Size = Annotated[int, Field(ge=8, le=2**16)]
Count = Annotated[int, Field(ge=1, le=2**31)]
#: What does not decide the weights: where they are kept, and how often.
FREE = ("output_dir", "checkpoint_every", "data", "hold_out")


class PretrainConfig(BaseModel):
    """The settings of :func:`hybridft_utils.models.pretrain.pretrain`; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    data: Sources = Field(("stanfordnlp/imdb",), min_length=1, description="Hub id, folder or files")
    hold_out: Sources = Field(
        (), description="sources whose test parts and their near-duplicates are left out"
    )
    output_dir: Path = Field(Path("runs/movies"), description="finished model, outside the package")
    tokenizer: Literal["byte-pairs", "characters"] = "byte-pairs"
    vocabulary_size: int = Field(8192, ge=300, le=2**16)
    hidden_size: Size = 256
    intermediate_size: Size = 688
    layers: int = Field(4, ge=1, le=1000)
    heads: int = Field(4, ge=1)
    context: Size = Field(256, description="tokens per row")
    batch_size: Count = Field(16, description="rows per optimiser step")
    micro_batch_size: Count = Field(8, description="rows per forward pass")
    steps: Count = Field(11200, description="optimiser steps")
    warmup_steps: int = Field(60, ge=0)
    matrix_learning_rate: float = Field(0.02, gt=0, description="Muon")
    learning_rate: float = Field(0.004, gt=0, description="AdamW")
    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    validation_reviews: Count = 256
    validate_every: Count = 400
    checkpoint_every: Count = 200
    log_every: Count = 10
    seed: int = Field(0, ge=0, lt=2**32)
    compile: bool = False

    @model_validator(mode="after")
    def check_heads(self) -> PretrainConfig:
        """Rotary positions turn pairs of coordinates, so a head has an even width."""
        if self.hidden_size % (2 * self.heads):
            accepted = f"heads of an even width that divide hidden_size {self.hidden_size}"
            raise InputError("heads", self.heads, accepted)
        return self

    def read_corpus(self) -> Corpus:
        """The texts that ``data`` and ``hold_out`` name."""
        return read_corpus(self.data, self.hold_out)

    def deciding(self, corpus: Corpus) -> dict[str, Any]:
        """Everything that decides the weights, with a fingerprint of the texts in place of their names."""
        return {**self.model_dump(mode="json", exclude=set(FREE)), "data": corpus.fingerprint()}

    def batch(self, step: int, rows: Tensor) -> Tensor:
        """The rows of a step, (batch_size, context).

        Seed and step alone decide them, so a continued run sees the same batches.  Every pass over the data
        has its own order.
        """
        steps_per_pass = len(rows) // self.batch_size
        order = np.random.default_rng([self.seed, step // steps_per_pass]).permutation(len(rows))
        begin = step % steps_per_pass * self.batch_size
        return rows[order[begin : begin + self.batch_size]]
