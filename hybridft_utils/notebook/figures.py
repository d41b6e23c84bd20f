"""One look for every figure of the book, with one colour per method."""

from __future__ import annotations

import matplotlib.pyplot as plt
from cycler import cycler

#: Colour-blind-safe palette (Okabe and Ito 2008).
FROZEN = "#8C8C8C"
TRAINED = "#D55E00"
BLUE, GREEN, ORANGE, SKY, PURPLE = "#0072B2", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"

#: The colour of each method, the same in every chapter.
METHOD_COLOURS = {
    "full": "#000000",
    "head": FROZEN,
    "lora": BLUE,
    "prefix": GREEN,
    "lora+prefix": TRAINED,
    "prompt": SKY,
    "adapter": PURPLE,
    "bitfit": ORANGE,
}


def use_style() -> None:
    """Set matplotlib's defaults for the book; call it once, after the imports."""
    plt.rcParams.update(
        {
            "figure.figsize": (6.4, 3.6),
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "axes.prop_cycle": cycler(color=[BLUE, TRAINED, GREEN, PURPLE, ORANGE, SKY, "#000000"]),
            "legend.frameon": False,
            "svg.hashsalt": "hybrid-fine-tuning",
        }
    )
