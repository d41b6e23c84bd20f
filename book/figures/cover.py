"""Draw the book's picture: ``python book/figures/cover.py`` writes book/_static/cover.svg."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from hybridft_utils.notebook.figures import BLUE, FROZEN, GREEN, ORANGE, PURPLE, use_style

INK = "#222222"
PALE = "#EFEFEF"


def box(ax: Axes, x: float, y: float, w: float, h: float, text: str = "", **look: object) -> None:
    """A rounded box with its lower left corner at (x, y) and a centred text."""
    colour, size = look.pop("colour", INK), look.pop("size", 10)
    style = {"facecolor": PALE, "edgecolor": FROZEN, "linewidth": 1.2} | look
    ax.add_patch(FancyBboxPatch((x, y), w, h, boxstyle="round,pad=0,rounding_size=0.08", **style))
    ax.text(x + w / 2, y + h / 2, text, ha="center", va="center", color=colour, size=size)


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = INK) -> None:
    look = {"arrowstyle": "-|>", "mutation_scale": 11, "color": colour, "linewidth": 1.2}
    ax.add_patch(FancyArrowPatch(start, end, **look))


def filled(colour: str) -> dict[str, object]:
    return {"facecolor": colour, "edgecolor": colour, "colour": "white"}


def draw() -> plt.Figure:
    """The hybrid from bottom to top: template, one frozen layer with its trained parts, verbalizer."""
    use_style()
    fig, ax = plt.subplots(figsize=(9, 5.8))
    ax.set(xlim=(1, 11.6), ylim=(0, 6.8), aspect="equal")
    ax.axis("off")

    # The text in its template; what is asked for is the empty slot.
    words = ["a", "moving", "film", ".", "It", "was", "?"]
    widths = [0.6, 1.15, 0.85, 0.5, 0.6, 0.8, 0.6]
    x = 2.1
    for i, (word, width) in enumerate(zip(words, widths, strict=True)):
        look = {"edgecolor": ORANGE, "linewidth": 2} if i >= 4 else {}
        box(ax, x, 0.45, width, 0.55, word, facecolor="white", **look)
        x += width + 0.12
    ax.text(3.7, 0.2, "text", ha="center", va="center", size=9, color=INK)
    ax.text(6.65, 0.2, "prompt template", ha="center", va="center", size=9, color=INK)

    # One layer of N, frozen.
    for shift in (0.3, 0.15, 0.0):
        box(ax, 1.2 + shift, 1.5 + shift, 7.2, 3.7, facecolor="#DADADA" if shift else "#E4E4E4")
    ax.text(8.25, 1.68, "× N layers, frozen", ha="right", size=9, color=INK)
    arrow(ax, (4.8, 1.02), (4.8, 1.5))

    # Attention: every key and value of the text, and before them the prefix.
    ax.text(1.5, 2.75, "keys\nvalues", va="center", size=9, color=INK)
    for row in (2.5, 2.8):
        for k in range(3):
            box(ax, 2.4 + 0.3 * k, row, 0.26, 0.24, **filled(GREEN))
        for k in range(8):
            box(ax, 3.35 + 0.3 * k, row, 0.26, 0.24, facecolor="white")
    ax.text(2.82, 2.24, "prefix", ha="center", va="center", size=9, color=INK)
    ax.text(4.5, 2.24, "of the text", ha="center", va="center", size=9, color=INK)
    box(ax, 2.4, 3.4, 3.35, 0.5, "attention", facecolor="white")
    arrow(ax, (4.1, 3.06), (4.1, 3.4))
    box(ax, 2.4, 4.35, 3.35, 0.5, "feed-forward", facecolor="white")
    arrow(ax, (4.1, 3.9), (4.1, 4.35))
    arrow(ax, (4.1, 4.85), (4.1, 5.85))

    # LoRA beside a weight, an adapter behind the feed-forward network.
    box(ax, 6.35, 2.35, 0.7, 0.7, "$W_0$", facecolor="white", size=11)
    ax.text(7.2, 2.7, "+", ha="center", va="center", size=12)
    box(ax, 7.35, 2.35, 0.22, 0.7, "B", **filled(BLUE), size=8)
    box(ax, 7.63, 2.6, 0.6, 0.22, "A", **filled(BLUE), size=8)
    ax.text(7.3, 2.14, "LoRA", ha="center", va="center", size=9, color=INK)
    ax.plot([5.75, 6.35], [3.5, 3.05], color=FROZEN, linewidth=1, linestyle=":")
    ax.add_patch(plt.Polygon([(6.4, 4.25), (6.4, 4.95), (6.75, 4.72), (6.75, 4.48)], color=PURPLE))
    ax.add_patch(plt.Polygon([(7.15, 4.25), (7.15, 4.95), (6.8, 4.72), (6.8, 4.48)], color=PURPLE))
    ax.text(7.3, 4.6, "adapter", va="center", size=9, color=INK)
    ax.plot([5.75, 6.4], [4.6, 4.6], color=FROZEN, linewidth=1, linestyle=":")

    # The verbalizer reads two words at the slot.
    box(ax, 2.4, 5.85, 3.35, 0.5, "words at the slot", facecolor="white")
    arrow(ax, (5.75, 6.1), (8.6, 6.1))
    ax.text(7.2, 6.32, "verbalizer", ha="center", va="center", size=9, color=INK)
    for y, word, length, label in ((6.3, "great", 1.35, "positive"), (5.65, "terrible", 0.3, "negative")):
        ax.text(9.5, y + 0.17, word, ha="right", va="center", size=10)
        ax.add_patch(plt.Rectangle((9.62, y), length, 0.34, color=INK if length > 1 else FROZEN))
        ax.text(9.72 + length, y + 0.17, label, va="center", size=9, color=INK)

    # The key.
    for k, colour in enumerate((BLUE, GREEN, PURPLE)):
        box(ax, 9.5 + 0.3 * k, 4.3, 0.24, 0.24, **filled(colour))
    box(ax, 9.5, 3.75, 0.24, 0.24)
    ax.text(10.5, 4.42, "trained", va="center", size=10)
    ax.text(10.5, 3.87, "frozen", va="center", size=10)
    return fig


if __name__ == "__main__":
    target = Path(__file__).resolve().parents[1] / "_static" / "cover.svg"
    draw().savefig(target, metadata={"Date": None}, facecolor="white", bbox_inches="tight")
