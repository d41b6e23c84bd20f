"""What half precision saves and costs: the same training in fp32 and in bf16, on real film snippets."""

from __future__ import annotations

import time
from typing import Any

from hybridft_utils.evidence.statistics import scores
from hybridft_utils.experiments.config import RunConfig
from hybridft_utils.experiments.fine_tune import fine_tune, label_names
from hybridft_utils.experiments.splits import as_split, subset

SEEDS = (0, 1, 2)
METHODS = ("full", "lora", "lora+prefix")
TRAIN, VALIDATION, TEST = 512, 256, 1000


def measure() -> dict[str, Any]:
    settings = {"dataset": "package:vader-movies", "train_size": TRAIN, "validation_size": VALIDATION}
    data = RunConfig(**settings).load_data()
    test = as_split(subset(data["test"], TEST, 0))
    found: dict[str, dict[str, list[float]]] = {}
    for seed in SEEDS:
        for method in METHODS:
            for precision in ("fp32", "bf16"):
                config = RunConfig(**settings, precision=precision)
                start = time.process_time()
                tuned = fine_tune(config, config.build(method), seed, data)
                seconds = time.process_time() - start
                predictions = tuned.classifier.predict_logits(test.texts).argmax(-1).tolist()
                accuracy = scores(test.labels, predictions, label_names(data))["accuracy"]
                row = found.setdefault(f"{method}, {precision}", {"accuracy": [], "seconds": []})
                row["accuracy"].append(round(accuracy, 4))
                row["seconds"].append(round(seconds, 2))
    return {"settings": {**settings, "test_size": TEST, "seeds": SEEDS}, "runs": found}
