"""LIME: a linear model of the score over superpixels that are hidden at random, fitted by the lime package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from attrsens.methods._segments import Algorithm, Compactness, Fill, SegmentBlur, Segments, Superpixels
from attrsens.methods._settings import Notes, Points, classes_of, one, price
from attrsens.spec import METHODS, Param

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.models.classifier import Classifier


def _settings(
    f: Classifier, x: Tensor, targets: Sequence[int], points: Points
) -> Iterator[Tensor | tuple[Tensor, Notes]]:
    """Models of the same scores: over the first n rows, by another kernel, of another class."""
    counts = [point["n"] for point in points]
    if f.dry:
        yield from price(f, x, counts)
        return
    from attrsens.models.batches import Rows

    parts, classes = Superpixels.of(f, x, points[0]), classes_of(targets)
    shown = rows(max(counts), parts.count, points[0]["seed"])
    scores = Rows(parts.scores(shown, classes))
    for target, point in zip(targets, points, strict=True):
        seen = scores.first(point["n"])[:, classes.index(target)].double().cpu().numpy()
        values, intercept, r2 = fit(shown[: len(seen)], seen, point["kernel_width"])
        yield parts.paint(values), {"intercept": intercept, "r2": r2, "segments": float(parts.count)}


@METHODS(
    "lime",
    version=1,
    output="prob",
    gradient=False,
    cost="n F",
    draws="seed",
    counts="n",
    over=("n", "kernel_width", "target"),
    settings=_settings,
)
def lime(
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    n: Annotated[
        int,
        Param(
            "images with superpixels hidden, the clean one among them",
            min=2,
            max=100_000,
            sweep=(500, 1000),
            reference=1000,
            scale="ratio",
            range=(100, 4000),
            source="SAM code; 500 is presumed",
        ),
    ] = 1000,
    segments: Segments = 50,
    algorithm: Algorithm = "slic",
    compactness: Compactness = 30.0,
    segment_blur: SegmentBlur = 3.0,
    fill: Fill = "black",
    kernel_width: Annotated[
        float,
        Param(
            "width of the kernel on cosine distance to the clean image",
            min=0.01,
            scale="ratio",
            range=(0.1, 1),
            source="the lime package",
        ),
    ] = 0.25,
    seed: Annotated[
        int,
        Param(
            "seed of the draws, the same rows for every image with as many superpixels",
            min=0,
            max=2**32 - 1,
            sweep=(0, 1, 2, 3, 4),
            reference=0,
            source="SAM 4.4",
        ),
    ] = 0,
) -> Tensor | tuple[Tensor, Notes]:
    """Coefficients of a local linear model of the score over superpixels that are shown or hidden.

    argmin_{w, b} sum_i pi_i (f(x_i) - b - w.z_i)^2 + |w|^2, z_i ~ Bernoulli(1/2) but z_1 = 1, pi_i = sqrt(exp(-d_i^2 /
    kernel_width^2)), d_i = 1 - cos(z_i, 1). Ribeiro et al. 2016, eq. 1 and 2; methods 2.13. n passes forward.

    Draws, distances, kernel and ridge are those of `lime_image.LimeImageExplainer(random_state=seed)` with every
    superpixel kept in the model, so its coefficients are these; it carries its generator from image to image, where
    every image here starts afresh. Hidden means black; the package's own default is fill=segment.
    """
    found: tuple[Tensor, Notes] = one(
        _settings,
        f,
        x,
        target,
        n=n,
        segments=segments,
        algorithm=algorithm,
        compactness=compactness,
        segment_blur=segment_blur,
        fill=fill,
        kernel_width=kernel_width,
        seed=seed,
    )
    return found


def rows(n: int, count: int, seed: int) -> Any:
    """Which superpixels are shown, (n, count) of 0 and 1, as lime_image draws them; the first rows are the same for
    every n."""
    import numpy as np

    draws = np.random.RandomState(seed)  # the generator of the lime package
    draws.randint(0, 1000)  # it draws a seed for the segmentation first
    shown = draws.randint(0, 2, n * count).reshape(n, count)
    shown[0] = 1
    return shown


def fit(shown: Any, scores: Any, kernel_width: float) -> tuple[Any, float, float]:
    """(coefficients, intercept, weighted R^2) of the local linear model."""
    import numpy as np
    from lime.lime_base import LimeBase  # type: ignore[import-untyped]
    from sklearn.metrics import pairwise_distances  # type: ignore[import-untyped]

    distances = pairwise_distances(shown, shown[:1], metric="cosine").ravel()
    # the generator is for solvers that draw, which ridge does not use; given, so that no global one is touched
    base = LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / kernel_width**2)), random_state=0)
    count = shown.shape[1]
    intercept, pairs, r2, _ = base.explain_instance_with_data(shown, scores[:, None], distances, 0, count, "none")
    values = np.zeros(count)
    for feature, value in pairs:
        values[feature] = value
    return values, float(intercept), float(r2)
