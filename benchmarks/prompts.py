"""What prompts reach without training, in ten wordings, and what the whole model and a soft prompt
learn from few texts: each seed draws its own, and validation has as many as training.
"""

from hybridft_utils import FullFineTuning, SoftPrompt
from hybridft_utils.experiments.studies import Point

WORDINGS = (
    "{text} It was {label}.",
    "{text} The sentiment of this text is {label}.",
    "{text} All in all, it was {label}.",
    "{text} I thought it was {label}.",
    "{text} In short: {label}.",
    "{text} This is {label}.",
    "{text} The movie is {label}.",
    "{text} A {label} experience.",
    "{text} Just {label}!",
    "Review: {text} Verdict: {label}.",
)
#: Few texts make few steps, so they are read more often.
EPOCHS = {16: 20, 64: 12, 256: 6}
METHODS = {"full": FullFineTuning(), "prompt": SoftPrompt(16, init="vocab")}
POINTS = {
    **{f"zero-shot: {wording}": Point((), {"template": wording}) for wording in WORDINGS},
    "uncalibrated": Point((), {"calibrate": False}),
    **{
        f"{name} {size}": Point(
            (method,), {"train_size": size, "validation_size": size, "epochs": epochs, "batch_size": 8}
        )
        for name, method in METHODS.items()
        for size, epochs in EPOCHS.items()
    },
    "reviews-en": Point(
        (METHODS["prompt"],),
        {"dataset": "builtin:reviews-en", "train_size": 64, "validation_size": 64, "epochs": 2},
    ),
}
