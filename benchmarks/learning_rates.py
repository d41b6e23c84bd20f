"""Which learning rate suits each method: validation losses over a grid; the test split is not read."""

from hybridft_utils import Adapter, FullFineTuning, HeadOnly, LoRA, Prefix, SoftPrompt
from hybridft_utils.experiments.studies import Point

GRID = {
    FullFineTuning(): (1e-4, 3e-4, 1e-3),
    HeadOnly(): (3e-3, 1e-2, 3e-2),
    LoRA(): (1e-3, 2e-3, 5e-3),
    Prefix(): (2.5e-3, 5e-3, 1e-2),
    SoftPrompt(): (3e-3, 1e-2, 3e-2),
    Adapter(): (1e-3, 2e-3, 5e-3),
}
POINTS = {
    f"{method.kind} {rate:g}": Point((method,), {"learning_rate": {method.kind: rate}}, test=False)
    for method, rates in GRID.items()
    for rate in rates
}
