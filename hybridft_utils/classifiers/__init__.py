"""Models that answer with a label: a prompt with label words, a new head, and a bag of words as the floor.

Here belongs how a text becomes a prompt, tokens and label scores.  Training is
:mod:`hybridft_utils.experiments`.
"""

from .description import restore

__all__ = ["restore"]
