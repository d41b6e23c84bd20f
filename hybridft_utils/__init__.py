"""Shared by the notebooks of the book Hybrid Fine-Tuning."""

from .classifiers.head_classifier import HeadClassifier
from .classifiers.prompt_classifier import PromptClassifier
from .classifiers.template import PromptTemplate
from .classifiers.verbalizer import Verbalizer
from .errors import InputError
from .exercises.grade import check_mine
from .experiments.config import RunConfig
from .experiments.results import RunResult
from .experiments.run import run
from .experiments.sweep import sweep
from .methods.adapter import Adapter
from .methods.baselines import BitFit, FullFineTuning, HeadOnly
from .methods.lora import LoRA
from .methods.prefix import Prefix
from .methods.published import Recipe, mam, unipelt
from .methods.soft_prompt import SoftPrompt
from .models.loading import load_base
from .notebook.gradient_check import check_gradient
from .notebook.parameters import check_parameters
from .reviews.reading import load_reviews
from .tuning.attach import Tuning, attach
from .tuning.load import load_tuning
from .tuning.peft_import import import_peft

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
    "check_mine",
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
