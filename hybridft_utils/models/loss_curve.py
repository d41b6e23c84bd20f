"""The log of a pre-training as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from ..notebook.figures import FROZEN, TRAINED, use_style


def draw_losses(entries: Sequence[dict[str, Any]], picture: Path) -> None:
    """Draw training and held-out loss, in nats per token, against the tokens seen, into ``picture``."""
    validated = [e for e in entries if "validation_loss" in e]
    losses = [e["loss"] for e in entries]
    with plt.rc_context():
        use_style()
        figure, ax = plt.subplots()
        ax.plot([e["tokens"] for e in entries], losses, color=FROZEN, lw=0.6, label="training")
        ax.plot(
            [e["tokens"] for e in validated],
            [e["validation_loss"] for e in validated],
            "o-",
            ms=3,
            color=TRAINED,
            label="held-out reviews",
        )
        ax.set(xlabel="tokens seen", ylabel="loss, nats per token", ylim=(min(losses) - 0.2, min(losses) + 3))
        ax.legend()
        figure.savefig(picture, metadata={"Date": None})
        plt.close(figure)
