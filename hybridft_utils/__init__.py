"""Shared by the notebooks of the book Hybrid Fine-Tuning."""

from .adapter import Adapter
from .attach import Tuning, attach, load_tuning
from .base import load_base
from .baselines import BitFit, FullFineTuning, HeadOnly
from .classifiers import HeadClassifier, PromptClassifier
from .config import RunConfig
from .data import load_reviews
from .errors import InputError
from .gradients import check_gradient
from .lora import LoRA
from .parameters import check_parameters
from .prefix import Prefix
from .prompts import PromptTemplate, Verbalizer
from .run import RunResult, run
from .soft_prompt import SoftPrompt

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
    "RunConfig",
    "RunResult",
    "SoftPrompt",
    "Tuning",
    "Verbalizer",
    "attach",
    "check_gradient",
    "check_parameters",
    "load_base",
    "load_reviews",
    "load_tuning",
    "run",
]
