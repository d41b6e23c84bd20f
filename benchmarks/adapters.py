"""Bottleneck adapters: how wide, and after a sublayer or beside it."""

from hybridft_utils import Adapter
from hybridft_utils.experiments.studies import Point

REVIEWS = {"dataset": "builtin:reviews-en", "train_size": 128, "validation_size": 128, "epochs": 2}
POINTS = {
    **{
        f"{placement} {bottleneck}": Point((Adapter(bottleneck, placement),))
        for placement in ("sequential", "parallel")
        for bottleneck in (8, 64)
    },
    "reviews-en": Point((Adapter(64),), REVIEWS),
}
