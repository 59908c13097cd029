"""Catastrophic overfitting: a network that learns to defeat the one step it is trained with (Wong et al. 2020)."""

from __future__ import annotations

import math

SHARE = 0.5  # of the best accuracy that is left
LEAST = 0.1  # that must be lost besides, so that the noise of a young network is no alarm
SURE = 4.0  # standard errors of the difference, so that the noise of few images is none, over many epochs either


def collapsed(accuracy: float, best: float, count: int) -> bool:
    """Whether accuracy under a multi-step attack has fallen from its best by more than half and by a tenth, and by more
    than chance: two proportions of `count` images each, their variance pooled. Fewer than nine images never suffice.

    >>> collapsed(0.02, 0.35, 512), collapsed(0.30, 0.35, 512), collapsed(0.04, 0.12, 512)
    (True, False, False)
    >>> collapsed(0.0, 1.0, 8), collapsed(0.0, 1.0, 9), collapsed(0.05, 0.35, 20)
    (False, True, False)
    """
    both = (accuracy + best) / 2
    error = math.sqrt(2 * both * (1 - both) / count)
    return accuracy < SHARE * best and best - accuracy > max(LEAST, SURE * error)
