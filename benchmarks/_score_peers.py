"""The best peers of every row of `score.py`: Captum's and Quantus' metrics, RISE's loop, SciPy and scikit-image.

All of them judge attrsens' own map of the same picture and class, on the network as loaded. Captum's defaults pass all
copies in one batch (`max_examples_per_batch=None`). Quantus passes one copy at a time, which is no setting of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, count
from typing import Any

import numpy as np
import torch
from _judged import RADIUS, SIDES, SIMILAR, Judged, Task
from _loops import causal_curve
from _peers import Peer
from _sides import Subject
from _works import SPREAD
from torch import Tensor


def score_peers(s: Subject, task: Task, own: Judged) -> list[Peer]:
    """Every peer of a row that has passes."""
    make = {
        **dict.fromkeys(("curves", "coarse"), _curves),
        "maps": _apart,
        **dict.fromkeys(("sensitivity", "sensitivity-sg"), _sensitivity),
        "infidelity": _infidelity,
        "faithfulness": _faithfulness,
    }
    return make[task.name](s, task, own)


def _curves(s: Subject, task: Task, own: Judged) -> list[Peer]:
    x = s.pixels[None]
    hidden = s.plain.mean.expand_as(x)
    order = torch.argsort(own.map.mean(0).flatten(), descending=True, stable=True)

    def run(b: int) -> Tensor:
        both = (hidden, x), (x, hidden)
        return torch.tensor([causal_curve(s.plain, a, z, order, task.size, s.target) for a, z in both])

    return [Peer("RISE's loop", run, s.plain, same=True)]


def _apart(s: Subject, task: Task, own: Judged) -> list[Peer]:
    return [Peer("attrsens, map after map", lambda b: torch.tensor(own.apart()), s.plain, same=True, own=True)]


def _sensitivity(s: Subject, task: Task, own: Judged) -> list[Peer]:
    import quantus
    from captum.attr import NoiseTunnel, Saliency
    from captum.metrics import sensitivity_max

    x, saliency, draws = s.pixels[None], Saliency(s.plain), task.forward // task.size
    tunnel = NoiseTunnel(saliency)

    def map_of(images: Tensor, target: Any) -> Tensor:
        images = images.requires_grad_()
        if task.name == "sensitivity":
            return saliency.attribute(images, target=target, abs=False)
        sd = SPREAD * float(images.detach().max() - images.detach().min())  # of the copies, which reach beyond [0, 1]
        return tunnel.attribute(images, target=target, abs=False, nt_type="smoothgrad", nt_samples=draws, stdevs=sd)

    def captums(**batch: int) -> Tensor:
        calls = count()

        def explain(images: tuple[Tensor], target: int) -> tuple[Tensor]:
            if next(calls) == 0:  # the image itself, whose map is given
                return (own.map[None],)
            return (map_of(images[0], target),)

        more: dict[str, Any] = {"perturb_radius": RADIUS, "n_perturb_samples": task.size, **batch}
        return sensitivity_max(explain, x, target=s.target, **more)

    def explain_func(model: Any, inputs: Any, targets: Any, **_: Any) -> Any:
        return map_of(torch.as_tensor(inputs, dtype=torch.float32), torch.as_tensor(targets)).detach().numpy()

    metric = quantus.MaxSensitivity(nr_samples=task.size, lower_bound=RADIUS, disable_warnings=True)
    return [
        Peer("Captum", lambda b: captums(max_examples_per_batch=b), s.plain, tune=True),
        Peer("Captum's defaults", lambda b: captums(), s.plain),
        Peer("Quantus", _quantus(s, own, metric, explain_func=explain_func), s.plain),
    ]


def _infidelity(s: Subject, task: Task, own: Judged) -> list[Peer]:
    import quantus
    from captum.metrics import infidelity

    x, height, width = s.pixels[None], *s.pixels.shape[-2:]
    rows, columns = torch.arange(height).reshape(1, -1, 1), torch.arange(width).reshape(1, 1, -1)

    def squares(images: Tensor) -> tuple[Tensor, Tensor]:
        """Captum's `perturb_func`: the indicators of random squares, and the images with these filled."""
        each = len(images), 1, 1
        side = torch.randint(SIDES[0], SIDES[1] + 1, each)
        top = (torch.rand(each) * (height - side + 1)).long()
        left = (torch.rand(each) * (width - side + 1)).long()
        inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
        removed = inside[:, None].expand_as(images)
        return removed.to(images), torch.where(removed, s.plain.mean, images)

    def captums(**batch: int) -> Tensor:
        return infidelity(
            s.plain, squares, x, own.map[None], target=s.target, n_perturb_samples=task.size, normalize=True, **batch
        )

    side = _side(height, task.size)
    metric = quantus.Infidelity(perturb_patch_sizes=[side], n_perturb_samples=1, disable_warnings=True)
    return [
        Peer("Captum", lambda b: captums(max_examples_per_batch=b), s.plain, tune=True),
        Peer("Captum's defaults", lambda b: captums(), s.plain),
        Peer(f"Quantus, a grid of {side} px", _quantus(s, own, metric), s.plain, scaled=True),
    ]


def _side(height: int, wanted: int) -> int:
    """The side of the grid's squares that are about as many as the random ones."""
    return min((d for d in range(4, height + 1) if height % d == 0), key=lambda d: abs((height // d) ** 2 - wanted))


def _faithfulness(s: Subject, task: Task, own: Judged) -> list[Peer]:
    import quantus

    metric = quantus.FaithfulnessCorrelation(
        nr_runs=task.size,
        subset_size=round(0.15 * s.pixels.numel()),
        perturb_baseline="black",
        normalise=False,
        return_aggregate=False,
        disable_warnings=True,
    )
    return [Peer("Quantus", _quantus(s, own, metric), s.plain)]


def _quantus(s: Subject, own: Judged, metric: Any, **more: Any) -> Callable[[int], Tensor]:
    """One call of a metric, as Quantus' documentation shows."""
    given = {"x_batch": s.pixels[None].numpy(), "y_batch": np.array([s.target]), "a_batch": own.map[None].numpy()}

    def run(b: int) -> Tensor:
        found = metric(model=s.plain, **given, device="cpu", channel_first=True, softmax=False, **more)
        return torch.tensor(np.asarray(found, float).reshape(-1))

    return run


def pairwise(name: str, maps: Tensor, few: int) -> tuple[str, list[tuple[int, int]], Callable[[], list[float]]]:
    """SciPy or scikit-image, one pair after another: its name, the first `few` pairs, and what compares them."""
    from scipy.stats import spearmanr
    from skimage.feature import hog
    from skimage.metrics import structural_similarity

    def vector(heatmap: Any) -> Any:
        return hog(heatmap, orientations=9, pixels_per_cell=(16, 16), cells_per_block=(3, 3), block_norm="L2-Hys")

    compare: dict[str, Callable[[Any, Any], float]] = {
        "spearman": lambda a, b: spearmanr(a.ravel(), b.ravel()).statistic,
        "hog": lambda a, b: np.corrcoef(vector(a), vector(b))[0, 1],
        "ssim": lambda a, b: structural_similarity(a, b, win_size=5, data_range=2.0),
    }
    assert set(compare) == set(SIMILAR)
    numbers, pairs = maps.numpy(), list(combinations(range(len(maps)), 2))[:few]
    title = "SciPy" if name == "spearman" else "scikit-image"
    return title, pairs, lambda: [float(compare[name](numbers[i], numbers[j])) for i, j in pairs]
