"""Similarities: one function says how much alike two explanations are.

Left of `*` a similarity takes two sets of maps, (n, H, W) or (n, C, H, W) each, and it returns the float64 matrix
(n, m) of all pairs. With `b is a` the matrix is symmetric and half of the work is saved. Where a number does not exist
it is NaN, and `why_not` says why in words: that is always one map's fault, whatever the other one is.

Trait `prepare` is the function that makes maps ready (see `_pairs.Ready`); it takes the similarity's own parameters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrsens.spec import SIMILARITIES


def why_not(name: str, maps: NDArray[np.floating], **parameters: Any) -> list[str | None]:
    """For each map the reason why it cannot be compared, such as 'the map is constant', or None where it can.

    Args:
        name: of the similarity.
        maps: (n, H, W) or (n, C, H, W).
        parameters: of the similarity; the defaults where silent.
    """
    spec = SIMILARITIES[name]
    values = spec.complete(parameters)
    reasons: list[str | None] = []
    for i in range(0, len(maps), 16):
        reasons += spec.traits["prepare"](maps[i : i + 16], **values).reasons
    return reasons
