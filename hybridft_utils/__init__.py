"""Shared by the notebooks of the book Hybrid Fine-Tuning."""

from .adapter import Adapter
from .attach import Tuning, attach
from .base import load_base
from .baselines import BitFit, FullFineTuning, HeadOnly
from .classifiers import HeadClassifier, PromptClassifier
from .config import RunConfig
from .data import load_reviews
from .errors import InputError
from .gradients import check_gradient
from .lora import LoRA
from .parameters import check_parameters
from .peft_format import import_peft
from .prefix import Prefix
from .prompts import PromptTemplate, Verbalizer
from .recipes import Recipe, mam, unipelt
from .run import RunResult, run
from .saving import load_tuning
from .soft_prompt import SoftPrompt
from .sweep import sweep

__all__ = [
    "Adapter",
    "BitFit",
    "FullFineTuning",
    "HeadClassifier",
    "HeadOnly",
    "InputError",
    "LoRA",
    "Prefix",
    "PromptClassifier",
    "PromptTemplate",
    "Recipe",
    "RunConfig",
    "RunResult",
    "SoftPrompt",
    "Tuning",
    "Verbalizer",
    "attach",
    "check_gradient",
    "check_parameters",
    "import_peft",
    "load_base",
    "load_reviews",
    "load_tuning",
    "mam",
    "run",
    "sweep",
    "unipelt",
]
