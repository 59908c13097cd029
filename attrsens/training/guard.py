"""Catastrophic overfitting: a network that learns to defeat the one step it is trained with (Wong et al. 2020)."""

from __future__ import annotations

SHARE = 0.5  # of the best accuracy that is left
LEAST = 0.1  # that must be lost besides, so that the noise of a young network is no alarm


def collapsed(accuracy: float, best: float) -> bool:
    """Whether accuracy under a multi-step attack has fallen from its best by more than half and by a tenth.

    >>> collapsed(0.02, 0.35), collapsed(0.30, 0.35), collapsed(0.04, 0.12)
    (True, False, False)
    """
    return accuracy < SHARE * best and best - accuracy > LEAST
