"""Formulas of the papers in NumPy, as they are printed, for docs/metrics.py; none of it calls attrsens."""

from __future__ import annotations

import numpy as np
from _scenes import Array, Scene
from scipy.stats import rankdata


def changes(scene: Scene, moves: Array, definition: str) -> Array:
    """D(Phi(x + u), Phi(x)) of every u; Yeh et al. 2019 (yeh), Wang et al. 2020 (hse), or no norm (plain)."""
    here = scene.phi()
    out = []
    for u in moves:
        there = scene.phi(scene.image + u)
        if definition == "hse":
            out.append(np.linalg.norm(there / np.linalg.norm(there) - here / np.linalg.norm(here)))
        else:
            out.append(np.linalg.norm(there - here) / (np.linalg.norm(here) if definition == "yeh" else 1.0))
    return np.array(out)


def running(distances: Array, norm: float) -> float:
    """The largest distance as published code has it: what was largest so far is divided in every round."""
    largest = 0.0
    for distance in distances:
        largest = max(largest, distance) / norm
    return largest


def falls(scene: Scene, moves: Array) -> Array:
    """|f(x + u) - f(x)| / |f(x)|."""
    here = scene.f(scene.image[None])[0]
    return np.abs(scene.f(scene.image + moves) - here) / abs(here)


def stability(scene: Scene, moves: Array, to: str, form: str = "printed") -> float:
    """Agarwal et al. 2022, eq. 2 (image), 3 (features), 5 (logits), over all copies."""
    x, here, least = scene.image, scene.phi(), 1e-6
    layers = {"image": lambda y: y.ravel(), "features": lambda y: np.exp(y).ravel()}
    layers["logits"] = lambda y: scene.logits(y[None])[0]
    layer = layers[to]
    found = []
    for u in moves:
        change, move = scene.phi(x + u) - here, layer(x + u) - layer(x)
        if form == "norm":
            above = np.linalg.norm(change) / np.linalg.norm(here)
            below = np.linalg.norm(move) / np.linalg.norm(layer(x))
        else:
            above = np.linalg.norm(change / np.maximum(np.abs(here), least))
            below = np.linalg.norm(move if to == "logits" else move / np.maximum(np.abs(layer(x)), least))
        found.append(above / below)
    return float(max(found))


def squares(side: int, stride: int, shape: tuple[int, ...]) -> Array:
    """Indicators of the squares, (n, H, W)."""
    out = []
    for row in range(0, shape[0] - side + 1, stride):
        for column in range(0, shape[1] - side + 1, stride):
            inside = np.zeros(shape)
            inside[row : row + side, column : column + side] = 1
            out.append(inside)
    return np.stack(out)


def infidelity(scene: Scene, perturbations: Array, weights: Array, free: bool) -> tuple[float, float]:
    """(E[(df - b I.Phi)^2], E[df^2]); Yeh et al. 2019, definition 2.1, and with a free factor.

    Args:
        perturbations: what is taken off the image.
        weights: the I of I.Phi.
    """
    fell = scene.f(scene.image[None]) - scene.f(scene.image - perturbations)
    told = (weights * scene.phi()).sum((1, 2))
    beta = (fell * told).mean() / (told**2).mean() if free else 1.0
    return float(((fell - beta * told) ** 2).mean()), float((fell**2).mean())


def faithfulness(scene: Scene, subsets: Array, off: Array, weighted: bool) -> float:
    """corr(sum_S e Phi, f(x) - f(x - e_S)); Wang et al. 2020, 4.

    Args:
        subsets: 1 in S, (n, H, W).
        off: what is taken off, (n, H, W).
        weighted: False leaves the e out of the sum.
    """
    fell = scene.f(scene.image[None]) - scene.f(scene.image - subsets * off)
    told = (subsets * scene.phi() * (off if weighted else 1)).sum((1, 2))
    return float(np.corrcoef(told, fell)[0, 1])


def curve(scene: Scene, insert: bool, prob: bool) -> Array:
    """The class's output after 0, 1, 2 ... pixels, largest first, black for what is hidden."""
    order = np.argsort(-scene.phi().ravel(), kind="stable")
    start = np.zeros(scene.image.size) if insert else scene.image.ravel().copy()
    steps = [start.copy()]
    for index in order:
        start[index] = scene.image.ravel()[index] if insert else 0
        steps.append(start.copy())
    logits = scene.logits(np.stack(steps).reshape(-1, *scene.image.shape))
    wide = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) if prob else logits
    return wide[:, scene.target]


def area(values: Array) -> float:
    """By trapezoids over [0, 1]."""
    return float((values[1:] + values[:-1]).sum() / 2 / (len(values) - 1))


def gini(heatmap: Array) -> float:
    """Chalasani et al. 2020: 1 - 2 sum_k a_(k) / |a| (n - k + 1/2) / n."""
    a = np.sort(np.abs(heatmap).ravel())
    n = len(a)
    return float(1 - 2 * sum(a[k - 1] / a.sum() * (n - k + 0.5) / n for k in range(1, n + 1)))


def pointing(heatmap: Array, region: Array) -> float:
    """Zhang et al. 2018, of the first maximum."""
    return float(region.ravel()[heatmap.argmax()])


def loc(heatmap: Array, region: Array) -> float:
    positive = heatmap > 0
    return float((positive & (region > 0)).sum() / (positive | (region > 0)).sum())


def eg(heatmap: Array, region: Array) -> float:
    positive = heatmap.clip(min=0)
    return float((positive * region).sum() / positive.sum())


def pp(heatmap: Array, region: Array) -> float:
    return float((heatmap.clip(min=0) * region).sum() / (np.abs(heatmap) * region).sum())


def con(heatmap: Array, region: Array) -> float:
    """Our reading of BND Def. 11, whose printed equation is lost."""
    rows, columns = np.nonzero(region)
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    w = np.abs(heatmap[rows, columns]) / np.abs(heatmap[rows, columns]).sum()
    y, x = rows / height, columns / width
    far = np.sqrt((y - (w * y).sum()) ** 2 + (x - (w * x).sum()) ** 2)
    return float((w / np.maximum(far, 0.5 / max(height, width))).sum())


def top_k(heatmap: Array, region: Array, k: int) -> float:
    return float(np.mean([region.ravel()[i] for i in np.argsort(-heatmap.ravel(), kind="stable")[:k]]))


def box_iou(heatmap: Array, region: Array, alpha: float, sliced: bool) -> float:
    """IoU of the extent of what reaches alpha times the maximum; `sliced` as SAM's code cuts it out."""
    rows, columns = np.nonzero(heatmap.clip(min=0) >= alpha * heatmap.max())
    found = np.zeros_like(region)
    found[rows.min() + sliced : rows.max() + 1, columns.min() + sliced : columns.max() + 1] = 1
    return float((found * region).sum() / np.maximum(found, region).sum())


def rank_correlation(a: Array, b: Array) -> float:
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def cosine_distance(a: Array, b: Array) -> float:
    return float(1 - (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


def unsigned_gradients(a: Array, b: Array) -> float:
    """Pearson correlation of two maps' histograms of oriented gradients, over the whole map (Dalal and Triggs 2005)."""
    found = []
    for heatmap in (a, b):
        down, across = np.gradient(heatmap)
        angle = np.rad2deg(np.arctan2(down, across)) % 180
        found.append(np.histogram(angle, 9, (0, 180), weights=np.hypot(down, across))[0])
    return float(np.corrcoef(*found)[0, 1])
