"""Boundary attribution of the smoothed network: SmoothGrad at the point where most noisy copies change class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from attrsens.spec import METHODS, Param

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.models.classifier import Classifier


@METHODS("bsg", version=1, gradient=True, cost="n (search_steps + 1) F + n (search_steps + 1) B + 1 F", draws="seed")
def boundary_smoothgrad(
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    n: Annotated[
        int,
        Param("noisy copies, one bank for all images", min=1, max=1000, scale="ratio", range=(10, 200), source="BND"),
    ] = 50,
    sigma: Annotated[
        float, Param("sd of the noise, pixels in [0, 1] (lost in BND)", min=0, scale="ratio", range=(0.05, 0.5))
    ] = 0.15,
    search_steps: Annotated[int, Param("iterations of the search at most", min=0, max=10_000, source="BND: 40")] = 40,
    eps: Annotated[
        float, Param("radius of the search, pixel L2 (lost in BND)", min=1e-6, scale="ratio", range=(1, 10))
    ] = 4.4,
    keep: Annotated[
        float,
        Param("the search stops where fewer of the copies than this share keep the class", min=0, source="BND"),
    ] = 0.1,
    seed: Annotated[int, Param("seed of the bank of noise", min=0)] = 0,
) -> tuple[Tensor, dict[str, float | None]]:
    """SmoothGrad at the nearest point where few noisy copies keep the class, with one bank of noise throughout.

    (1/n) sum_i g(x' + e_i), e_i ~ N(0, sigma^2) from a bank that all images share; x' by normalised steps of
    2 eps / search_steps up the copies' mean cross-entropy, until less than `keep` of them are of the class that the
    network predicts on x. Wang et al. 2022; methods 2.19. A search that has stopped is carried along, so that the cost
    is fixed. Distance, success and the share that kept the class are noted.
    """
    import torch
    import torch.nn.functional as F

    from attrsens.boundary import pixel_view, predictions, to_pixels
    from attrsens.boundary.losses import odds
    from attrsens.models.batches import Stack
    from attrsens.seeds import Stream

    own = predictions(f, x[None])
    view, image = pixel_view(f), to_pixels(f, x)
    low, high = image.clamp(max=0), image.clamp(min=1)
    bank = sigma * torch.from_numpy(Stream(seed, "", "bsg noise").normal(range(n), tuple(x.shape))).to(x)

    def copies(indices: range) -> Tensor:
        return point + bank[indices.start : indices.stop]

    def entropy(logits: Tensor, places: Tensor) -> Tensor:
        return F.softplus(odds(logits, own.expand(len(logits))))

    def score(logits: Tensor, places: Tensor) -> Tensor:
        return (logits if f.output == "logit" else logits.softmax(1))[:, target]

    def pool(parts: list[tuple[Tensor, ...]]) -> tuple[Tensor, float]:
        """The mean gradient, and the share of copies that keep the class."""
        if f.dry:
            return torch.zeros_like(x), 0.0
        mean = sum((gradients.sum(0) for _, _, gradients in parts), torch.zeros_like(x)) / n
        return mean, sum(int((logits.argmax(1) == own).sum()) for logits, _, _ in parts) / n

    point = image
    for _ in range(search_steps):
        mean, kept = pool(list(view.loss_gradients(Stack(n, copies, like=x), entropy)))
        if kept >= keep and not f.dry:
            step = point + mean / mean.norm().clamp(min=1e-30) * (2 * eps / search_steps) - image
            step = step * (eps / step.norm().clamp(min=1e-30)).clamp(max=1)
            point = torch.minimum(torch.maximum(image + step, low), high)
    noisy = Stack(n, lambda indices: f.encode(copies(indices)), like=x)
    heatmap, kept = pool(list(f.loss_gradients(noisy, score)))
    return heatmap, {
        "distance": float((point - image).norm()),
        "success": float(kept < keep),
        "class": float(own[0]),
        "kept": kept,
    }
