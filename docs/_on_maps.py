"""Fixtures of scores and similarities that look at the maps alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import _others as others
import _papers as papers
import numpy as np
from _others import asks
from _scenes import (
    BOX,
    HALF,
    ONES,
    RAMP,
    SIDE,
    Array,
    Brightness,
    Other,
    Row,
    Scene,
    formula,
    linear,
    mixed,
    one_hot,
    row,
)

from attrsens.engine.cell import parse_call
from attrsens.engine.compare import compare
from attrsens.spec import SIMILARITIES


def sparseness() -> Iterator[Row]:
    alternate = np.where(np.arange(16).reshape(4, 4) % 2, -1, 1)
    steps = "(n - 1) / 3n for equal steps, whatever the sign"
    for heatmap, fixture, true, why, differs in (
        (one_hot(), "one of 16 entries is 1", 15 / 16, "1 - 1/n", ""),
        (0.5 * ONES, "all entries are 1/2", 0.0, "nothing differs", "it takes no map whose values are all the same"),
        (RAMP * alternate, "1/32, -2/32, 3/32 ... -16/32", 15 / 48, steps, ""),
        (-RAMP, "-1/32, -2/32 ... -16/32", 15 / 48, steps, "it takes no map without a positive value"),
    ):
        scene = Scene(linear(ONES), HALF, map=heatmap)
        yield row(
            scene,
            "gini",
            fixture,
            true,
            why,
            formula(lambda h=heatmap: papers.gini(h)),
            quantus=asks(scene, "Sparseness", differs, abs=True),
            tolerance=3e-6,  # Quantus adds 1e-7 to every magnitude
        )


def localisation() -> Iterator[Row]:
    def on(heatmap: Array, region: Array = BOX) -> Scene:
        return Scene(linear(ONES), HALF, map=heatmap, region=region)

    inside, outside = one_hot(1, 1), one_hot(0, 3)
    box = "region: the middle 2 x 2 of 4 x 4 pixels"
    tie = "it counts a hit if any of the equal maxima lies in the region"
    for heatmap, fixture, true, why, differs in (
        (inside, f"{box}; the maximum is in it", 1.0, "a hit", ""),
        (inside + outside, f"{box}; two equal maxima, one in it", 0.5, "one of two", tie),
    ):
        scene = on(heatmap)
        first = "its first maximum: the tie is left open" if differs else ""
        paper = Other("", partial(papers.pointing, heatmap, BOX), first)
        yield row(scene, "pointing", fixture, true, why, paper, quantus=asks(scene, "PointingGame", differs))
    half = np.zeros((SIDE, SIDE))
    half[1] = 1
    scene = on(half - 0.5)
    yield row(
        scene,
        "loc",
        f"{box}; its second row is positive, 4 pixels of which 2 are in the region",
        1 / 3,
        "2 pixels of 6",
        formula(partial(papers.loc, half - 0.5, BOX)),
    )
    heatmap = 3 * inside + outside - 2 * one_hot(3, 0)
    scene = on(heatmap)
    fixture = f"{box}; 3 inside, 1 and -2 outside"
    mass = "negative values outside make its denominator smaller, so the share exceeds 1"
    kept = asks(scene, "AttributionLocalisation", positive_attributions=True)
    for quantus in (kept, asks(scene, "RelevanceMassAccuracy", mass)):
        paper = formula(partial(papers.eg, heatmap, BOX))
        yield row(scene, "eg", fixture, 0.75, "3 of 3 + 1", paper, quantus=quantus)
    heatmap = 3 * inside - one_hot(2, 2) - outside
    scene = on(heatmap)
    paper = formula(partial(papers.pp, heatmap, BOX))
    yield row(scene, "pp", f"{box}; 3 and -1 inside, -1 outside", 0.75, "3 of 3 + 1", paper)
    pair = one_hot(1, 1) + one_hot(1, 2)
    paper = formula(partial(papers.con, pair, pair), "our reading")
    yield row(on(pair, pair), "con", "region: 2 x 1 pixels of equal values", 4.0, "both 1/4 of the width off", paper)
    heatmap = 5 * inside + 4 * one_hot(1, 2) + 3 * one_hot(2, 1) + 2 * outside - 9 * one_hot(3, 3)
    scene = on(heatmap)
    fixture = f"{box}; 5, 4 and 3 inside, 2 and -9 outside"
    quantus = asks(scene, "TopKIntersection", k=4)
    paper = formula(partial(papers.top_k, heatmap, BOX, 4))
    yield row(scene, "class_top20:k=4", fixture, 0.75, "three of the four largest", paper, quantus=quantus)
    upper = one_hot(1, 1) + one_hot(1, 2)
    for heatmap, fixture, metric, true, why, sliced in (
        (BOX, "the map is the region", "wsl", 1.0, "the same box", False),
        (upper, "the map is the region's upper row", "wsl", 0.5, "2 pixels of 4", False),
        (BOX, "the map is the region", "wsl:box=sam", 0.25, "without first row and column 1 pixel of 4", True),
    ):
        paper = formula(partial(papers.box_iou, heatmap, BOX, 0.2, sliced))
        yield row(on(heatmap), metric, f"{box}; {fixture}", true, why, paper)
    scene = Scene(Brightness(), np.full((16, 16), 0.5), method="constant", target=16)
    paper = formula(lambda: float(np.ones((16, 16)).sum() / np.ones((32, 32)).sum()))
    yield row(scene, "grid_pointing", "a constant map on four cells", 0.25, "one cell of four", paper)


def similarities() -> Iterator[Row]:
    def pair(
        metric: str,
        a: Array,
        b: Array,
        fixture: str,
        true: float,
        why: str,
        paper: Callable[[Array, Array], float],
        quantus: str = "",
        differs: str = "",
        plane: bool = False,
    ) -> Row:
        call = partial(_similarity, metric, a, b)
        other = Other(quantus, partial(others.quantus_similarity, quantus, a, b, plane), differs) if quantus else None
        return Row(metric, fixture, true, why, call, formula(lambda: paper(a, b)), None, other)

    m, e = mixed(), np.exp(mixed())
    corner, far = one_hot(0, 0), one_hot(3, 3)
    pearson = lambda a, b: float(np.corrcoef(a.ravel(), b.ravel())[0, 1])  # noqa: E731
    yield pair("spearman", m, e, "h and e^h", 1.0, "the same order", papers.rank_correlation, "correlation_spearman")
    yield pair("spearman", m, -m, "h and -h", -1.0, "opposite order", papers.rank_correlation, "correlation_spearman")
    yield pair("pearson", m, 2 - 3 * m, "h and 2 - 3h", -1.0, "on a falling line", pearson, "correlation_pearson")
    yield pair(
        "cosine",
        corner,
        corner + far,
        "(1, 0) and (1, 1)",
        2**-0.5,
        "45 degrees",
        lambda a, b: 1 - papers.cosine_distance(a, b),
        "cosine",
        "its `cosine` is the distance, 1 - cos",
    )
    one = "1 at one pixel, and at another"
    l1 = lambda a, b: float(np.abs(a - b).sum())  # noqa: E731
    l2 = lambda a, b: float(np.linalg.norm(a - b))  # noqa: E731
    yield pair("l1", corner, far, one, 2.0, "1 + 1", l1, "distance_manhattan")
    yield pair("l2", corner, far, one, 2**0.5, "orthogonal unit vectors", l2, "distance_euclidean")
    light = (2 * 1 * 0.5 + 4e-4) / (1 + 0.25 + 4e-4)
    yield pair(
        "ssim:window=3,scale=none",
        ONES,
        HALF,
        "constant maps, 1 and 1/2",
        light,
        "(2ab + C) / (a² + b² + C), C = (0.01 x 2)², and nothing else differs",
        lambda a, b: float((2 * a.mean() * b.mean() + 4e-4) / (a.mean() ** 2 + b.mean() ** 2 + 4e-4)),
        "ssim",
        "its data range is that of the two maps at hand, 1/2 here, so that C changes from pair to pair",
        plane=True,
    )
    large = np.kron(m, np.ones((2, 2))) + np.arange(64).reshape(8, 8) / 64
    same = lambda a, b: papers.unsigned_gradients(a, b)  # noqa: E731
    yield pair("hog", large, -large, "h and -h", 1.0, "orientations have no sign", same)
    top = (1.0 - np.arange(16) / 16).reshape(4, 4)
    shifted = top.copy()
    shifted.flat[3], shifted.flat[15] = 0.0, 2.0
    share = lambda a, b: len(set(np.argsort(-a.ravel())[:4]) & set(np.argsort(-b.ravel())[:4])) / 4  # noqa: E731
    yield pair("topk_overlap:k=4", top, shifted, "one of the 4 largest is another", 0.75, "3 of 4", share)
    turned = m.copy()
    turned[0] *= -1
    signs = lambda a, b: float((np.sign(a) == np.sign(b)).mean())  # noqa: E731
    yield pair("sign_agreement:k=16", m, turned, "4 of 16 entries change sign", 0.75, "12 of 16", signs)
    a, b = np.zeros((8, 8)), np.zeros((8, 8))
    a[0, 0], b[3, 4] = 1, -2
    apart = lambda a, b: float(np.hypot(*np.subtract(np.argwhere(a), np.argwhere(b))[0]))  # noqa: E731
    yield pair("centre_shift", a, b, "1 at (0, 0), and -2 at (3, 4)", 5.0, "3, 4, 5", apart)


def _similarity(metric: str, a: Array, b: Array) -> float:
    value, reason = compare(parse_call(metric, registry=SIMILARITIES), a.astype(np.float32), b.astype(np.float32))
    if value is None:
        raise SystemExit(f"{metric}: {reason}")
    return value
