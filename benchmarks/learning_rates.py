"""Which learning rate suits each method: validation losses over a grid; the test split is not read."""

from __future__ import annotations

from typing import Any

from accelerate.utils import set_seed

from hybridft_utils import HeadClassifier, RunConfig, attach, load_reviews
from hybridft_utils.files import write_json
from hybridft_utils.provenance import fingerprint, portable, provenance
from hybridft_utils.results import RESULTS
from hybridft_utils.run import as_split, build_classifier, subset
from hybridft_utils.training import as_rows, train

GRID = {
    "full": (1e-4, 3e-4, 1e-3),
    "head": (3e-3, 1e-2, 3e-2),
    "lora": (5e-4, 2e-3, 5e-3),
    "prefix": (3e-3, 1e-2, 3e-2),
}
SEEDS = (0,)
TRAIN_SIZE, EPOCHS, BATCH_SIZE = 1000, 3, 16


def study(dataset: str) -> None:
    """Train each method with each rate of :data:`GRID` on 1,000 sentences; write the validation losses."""
    data = load_reviews(dataset, detokenize=True)
    labels = data["train"].features["label"].names
    validation = as_split(data["validation"])
    rows: list[dict[str, Any]] = []
    for method, rates in GRID.items():
        for rate in rates:
            for seed in SEEDS:
                config = RunConfig(dataset=dataset, learning_rate={method: rate})
                set_seed(seed)
                classifier = build_classifier(config, labels, head=method == "head")
                head = ("head",) if isinstance(classifier, HeadClassifier) else ()
                tuning = attach(
                    classifier, *config.build(method), also_train=() if method == "head" else head
                )
                history = train(
                    classifier,
                    tuning,
                    as_split(subset(data["train"], TRAIN_SIZE, seed)),
                    validation,
                    learning_rate=config.rates(),
                    epochs=EPOCHS,
                    batch_size=BATCH_SIZE,
                    seed=seed,
                )
                best = min(history, key=lambda e: e.validation_loss)
                rows.append(
                    {"method": method, "learning_rate": rate, "seed": seed, "history": as_rows(history)}
                )
                print(
                    f"{method} {rate:g} seed {seed}: {best.validation_loss:.4f} {best.validation_accuracy:.3f}"
                )
    settings = {"train_size": TRAIN_SIZE, "epochs": EPOCHS, "batch_size": BATCH_SIZE, "seeds": SEEDS}
    write_json(
        RESULTS / "learning-rates.json",
        {
            "dataset": portable(dataset),
            "settings": settings,
            "rows": rows,
            "provenance": {**provenance(), "data": fingerprint(data)},
        },
    )
