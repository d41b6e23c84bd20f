"""Marks on what a tuning is attached to, so that nothing of it is given to a second one."""

from __future__ import annotations

from torch import nn

MARK = "_tuning_attached"


def mark(root: nn.Module) -> None:
    """Mark every module, which a copy of the model keeps, and every parameter, which models may share."""
    for held in (*root.modules(), *root.parameters()):
        setattr(held, MARK, True)


def unmark(root: nn.Module) -> None:
    """Take the marks off again."""
    for held in (*root.modules(), *root.parameters()):
        held.__dict__.pop(MARK, None)


def is_marked(root: nn.Module) -> bool:
    """Whether a module or a parameter of ``root`` belongs to a tuning that is attached."""
    return any(hasattr(held, MARK) for held in (*root.modules(), *root.parameters()))
