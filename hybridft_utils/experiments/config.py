"""The settings of a sentiment run; unknown names and bad values are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from datasets import DatasetDict
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from ..classifiers.template import PromptTemplate
from ..classifiers.verbalizer import Verbalizer
from ..errors import InputError, describe
from ..methods.adapter import Adapter
from ..methods.baselines import BitFit, FullFineTuning, HeadOnly
from ..methods.lora import LoRA
from ..methods.parts import Method
from ..methods.prefix import Prefix
from ..methods.soft_prompt import SoftPrompt
from ..reviews.reading import load_reviews

#: Names that ``methods`` may hold, alone or joined by "+".
METHOD_NAMES = ("full", "head", "lora", "prefix", "prompt", "adapter", "bitfit")

#: What NumPy takes as a seed.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
#: Widths and lengths of what a method adds; more could not be allocated.
Size = Annotated[int, Field(gt=0, le=2**16)]


class RunConfig(BaseModel):
    """Settings of :func:`hybridft_utils.run`; the fields are the parameters of notebook 10.

    ``resume`` goes on after the methods and seeds that a run with the same settings, data and base model
    finished in ``output_dir``; otherwise everything is trained anew.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str = "builtin:movies"
    dataset: str = "package:vader-movies"
    text_column: str | None = None
    label_column: str | None = None
    label_names: list[str] | None = None
    detokenize: bool = False
    drop_empty: bool = False
    classifier: Literal["auto", "prompt", "head"] = "auto"
    template: str = "{text} It was {label}."
    label_words: dict[str, list[str]] = {"negative": ["terrible"], "positive": ["great"]}
    calibrate: bool = True
    pooling: Literal["mean", "cls", "last"] = "mean"
    max_length: Annotated[int, Field(ge=8)] | None = None
    methods: list[str] = ["zero-shot", "full", "lora", "prefix", "lora+prefix"]
    rank: Size = 8
    alpha: PositiveFloat = 16.0
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: str | list[str] = "all-linear"
    prefix_length: Size = 16
    prefix_init: Literal["random", "vocab"] = "random"
    prefix_softmax: Literal["separate", "joint"] = "separate"
    prompt_length: Size = 16
    bottleneck: Size = 64
    epochs: PositiveInt = 3
    batch_size: PositiveInt = 16
    learning_rate: PositiveFloat | dict[str, PositiveFloat] | None = None
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip: PositiveFloat = 1.0
    train_size: PositiveInt | None = None
    validation_size: PositiveInt | None = None
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    save_tunings: bool = True
    resume: bool = False
    output_dir: str = "runs/sentiment"

    def __init__(self, **settings: Any):
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise describe(error, list(type(self).model_fields)) from None

    @field_validator("*", mode="before")
    @classmethod
    def no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        switch = cls.model_fields[str(info.field_name)].annotation is bool
        if not switch and any(isinstance(v, bool) for v in values):
            raise InputError(str(info.field_name), value, "anything but true or false")
        return value

    @field_validator("methods")
    @classmethod
    def known_methods(cls, methods: list[str]) -> list[str]:
        accepted = f"zero-shot, {', '.join(METHOD_NAMES)}, or several of them joined by +, each once"
        for method in methods:
            terms = method.split("+")
            if method != "zero-shot" and (set(terms) - set(METHOD_NAMES) or len(set(terms)) < len(terms)):
                raise InputError("methods", method, accepted)
        if not methods or len(set(methods)) < len(methods):
            raise InputError("methods", methods, accepted)
        return methods

    @field_validator("template")
    @classmethod
    def template_with_slots(cls, template: str) -> str:
        return PromptTemplate(template).pattern

    @field_validator("label_words")
    @classmethod
    def distinct_words(cls, words: dict[str, list[str]]) -> dict[str, list[str]]:
        Verbalizer(words)
        return words

    @field_validator("seeds")
    @classmethod
    def distinct_seeds(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise InputError("seeds", seeds, "different seeds")
        return seeds

    def load_data(self) -> DatasetDict:
        """The reviews that these settings name; see :func:`load_reviews`."""
        return load_reviews(
            self.dataset,
            text_column=self.text_column,
            label_column=self.label_column,
            label_names=self.label_names,
            detokenize=self.detokenize,
            drop_empty=self.drop_empty,
        )

    def build(self, method: str) -> tuple[Method, ...]:
        """The methods that a name such as "lora+prefix" stands for."""
        targets = self.target_modules
        made: dict[str, Method] = {
            "full": FullFineTuning(),
            "head": HeadOnly(),
            "lora": LoRA(
                self.rank,
                self.alpha,
                self.lora_dropout,
                targets if isinstance(targets, str) else tuple(targets),
            ),
            "prefix": Prefix(self.prefix_length, self.prefix_init, self.prefix_softmax),
            "prompt": SoftPrompt(self.prompt_length),
            "adapter": Adapter(self.bottleneck),
            "bitfit": BitFit(),
        }
        return tuple(made[name] for name in method.split("+"))

    def rates(self) -> dict[str, float]:
        """The learning rate of each method's kind."""
        if isinstance(self.learning_rate, float):
            return dict.fromkeys(LEARNING_RATES, self.learning_rate)
        given = self.learning_rate or {}
        unknown = set(given) - set(LEARNING_RATES)
        if unknown:
            raise InputError("learning_rate", unknown.pop(), f"a rate for {', '.join(LEARNING_RATES)}")
        return {**LEARNING_RATES, **given}


#: Rates to start from with ``builtin:movies``; ``benchmarks/learning_rates.py`` compares them on validation.
LEARNING_RATES = {
    "full": 3e-4,
    "head": 1e-2,
    "lora": 2e-3,
    "prefix": 5e-3,
    "prompt": 1e-2,
    "adapter": 2e-3,
    "bitfit": 2e-3,
    "also_train": 2e-3,
}
