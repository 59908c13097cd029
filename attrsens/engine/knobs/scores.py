"""What knobs do to a scalar score: shift and effect within an image; SAM's aggregations (science 2.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from attrsens.engine.inference import FEWEST, Interval, marginal, mean_interval, within_image
from attrsens.engine.inference.intervals import Floats
from attrsens.engine.inference.variation import NOTE
from attrsens.engine.knobs.bootstrap import ALIKE, EQUAL, FEW, intervals, smooth
from attrsens.engine.knobs.results import ScoreEffect, Stability
from attrsens.params import Value

Draws = Sequence[Sequence[float | None]] | Floats
DEFINITIONS = {
    "mean": "mean over images of the mean over values (SAM 4.5)",
    "mean_std": "mean over images of the standard deviation over values (SAM 4.5, the paper)",
    "rms_std": "root of the mean over images of the variance over values (SAM 4.5, the published code)",
    "marginal": "standard deviation over values of the mean over images (SAM 4.6), of each model",
    "marginal_mean": "mean of that over models (SAM 4.6)",
    "hidden": "mean standard deviation within an image less that of the means over images: above 0, means hide changes",
}


def score_effect(
    quantity: str, knob: str, value: Value, at_t0: Draws, at_t: Draws, *, draws: bool = True
) -> ScoreEffect:
    """What t does to a score of n images.

    Args:
        at_t0, at_t: scores[image][draw], the same images and draws; None or NaN is missing and takes its image out.
        draws: whether the method draws; a single draw then tells the shift alone.

    Raises:
        ValueError: shapes that differ, or an infinite score.
    """
    gaps = _table(at_t) - _table(at_t0)
    known = np.isfinite(gaps).all(1) & (gaps.shape[1] > 0)
    n, missing = int(known.sum()), int((~known).sum())
    gaps = gaps[known]
    if n == 0:
        return ScoreEffect(quantity, knob, value, 0, missing, reason="no image has both scores")
    d = gaps.mean(1)
    shift = float(d.mean())
    m = gaps.shape[1]
    notes = []
    within, noise, ends = None, None, None
    if m > 1 or not draws:
        variance = gaps.var(1, ddof=1) / m if draws else np.zeros(n)
        squares = d**2 - variance
        within, noise, ends = float(squares.mean()), float(variance.mean()), _interval(squares)
    else:
        notes.append("one draw does not tell the seed's variance")
    of_shift = _interval(d)
    if of_shift is None:
        notes.append(FEW if n < FEWEST else EQUAL)
    reason = "; ".join(notes) or None
    return ScoreEffect(quantity, knob, value, n, missing, shift, of_shift, within, ends, noise, reason=reason)


def stability(quantity: str, knob: str, scores: Mapping[str, Sequence[Sequence[float | None]]]) -> Stability:
    """SAM's aggregations of scores[model][image][value], t0 among the values.

    Raises:
        ValueError: rows of different lengths, or an infinite score.
    """
    inside = {model: within_image(table) for model, table in scores.items()}
    means = marginal(scores)
    gaps = {model: _hidden(table) for model, table in scores.items()}
    return Stability(
        quantity=quantity,
        knob=knob,
        mean={model: w.mean for model, w in inside.items()},
        mean_std={model: w.mean_std for model, w in inside.items()},
        rms_std={model: w.rms_std for model, w in inside.items()},
        marginal=means.by_classifier,
        marginal_mean=means.std,
        hidden={model: gap for model, (gap, _) in gaps.items()},
        hidden_ci95={model: interval for model, (_, interval) in gaps.items()},
        n=means.n,
        missing=means.missing,
        definitions=DEFINITIONS,
        note=NOTE,
    )


def _hidden(table: Sequence[Sequence[float | None]]) -> tuple[float | None, Interval | None]:
    """Mean within-image spread less that of the means, and its interval."""
    data = _table(table)
    data = data[np.isfinite(data).all(1)]
    if not data.size:
        return None, None
    features = np.column_stack([data, data.std(1)])

    def f(means: Floats) -> Floats:
        return np.asarray((means[-1] - means[:-1].std(0))[None], np.float64)

    value = float(f(features.mean(0)[:, None])[0, 0])
    return value, intervals(smooth(features, f))[0] if len(data) >= FEWEST else None


def _interval(values: Floats) -> Interval | None:
    return mean_interval(values, kind="numbers") if np.ptp(values) > ALIKE * np.abs(values).max() else None


def _table(scores: Draws) -> Floats:
    data = np.asarray([[np.nan if v is None else v for v in row] for row in scores], np.float64)
    if data.ndim != 2:
        raise ValueError("every image wants a score for each draw")
    if np.isinf(data).any():
        raise ValueError("an infinite score cannot be averaged")
    return data
