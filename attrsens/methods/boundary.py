"""Boundary attribution: gradients at, and along the way to, the nearest point of another class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from attrsens.methods._settings import Points
from attrsens.methods.integrated import RULES, quadrature
from attrsens.spec import METHODS, Param

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.boundary import Boundary, Search
    from attrsens.models.classifier import Classifier

    Result = tuple[Tensor, dict[str, float | None]]

Attacks = Annotated[
    str,
    Param(
        "attacks of the search; the closest point of all is kept",
        choices=("pgd", "cw", "apgd", "pgd-cw", "pgd-cw-apgd"),
        source="methods 5.6; BND runs all",
    ),
]
Steps = Annotated[
    int,
    Param(
        "iterations of each attack", min=1, max=10_000, scale="ratio", range=(20, 200), source="BND code; the paper 100"
    ),
]
Doublings = Annotated[
    int,
    Param(
        "how often PGD's list of radii (0.14 to 1.1, pixel L2) is doubled and goes on, for robust networks",
        min=0,
        max=10,
        source="methods 5.6",
    ),
]
LearningRate = Annotated[
    float, Param("step of CW's Adam", min=1e-6, max=10, scale="ratio", source="BND: ImageNet 0.01, robust 0.05")
]
Eps = Annotated[
    float, Param("radius of AutoPGD, pixel L2", min=1e-6, scale="ratio", source="BND: ImageNet 1.15, robust 6")
]
Bisect = Annotated[
    int, Param("halvings that put the point on the boundary (0: it stays where the attack left it)", min=0, max=60)
]
Polish = Annotated[
    int, Param("moves to the foot of the boundary's tangent plane (none if bisect is 0)", min=0, max=100)
]
Seed = Annotated[int, Param("seed of the random starts", min=0)]

COST = "search + {}; with the default search {}"


def bsm_together(
    f: Classifier,
    xs: Sequence[Tensor] | Tensor,
    targets: Sequence[int],
    images: Sequence[str],
    zooms: Sequence[tuple[float, float]],
    points: Sequence[Points],
    *,
    width: int,
) -> list[list[Result]]:
    """The results of `bsm` on images of one size, which advance in one batch and have one setting in common; the
    hashes `images` key the draws, `zooms` and `width` play no part."""
    import torch

    parameters = dict(points[0][0])
    normal = parameters.pop("normal")
    near, own, notes = _find(f, xs, images, **parameters)
    goals = torch.tensor(targets, device=own.device)

    def height(logits: Tensor, places: Tensor) -> Tensor:
        scores = logits if f.output == "logit" else logits.softmax(1)
        if normal == "fc":
            return scores.gather(1, goals[places, None])[:, 0]
        both = scores.gather(1, torch.stack([own, near.other], 1)[places])
        return both[:, 0] - both[:, 1]

    maps = torch.cat([gradients for _, _, gradients in f.loss_gradients(f.encode(near.points), height)])
    return [[(heatmap, note)] * len(own) for heatmap, note, own in zip(maps, notes, points, strict=True)]


@METHODS(
    "bsm",
    version=1,
    gradient=True,
    cost=COST.format("2 F + 1 B", "210 F + 163 B"),
    together=bsm_together,
    over=(),
    beside=(),
)
def boundary_saliency(
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    normal: Annotated[
        str,
        Param(
            "fc: gradient of the class's score, as published; diff: the normal, of the prediction's less the other's",
            choices=("fc", "diff"),
            source="methods 2.16, science C-7",
        ),
    ] = "fc",
    search: Attacks = "pgd",
    search_steps: Steps = 40,
    doublings: Doublings = 2,
    learning_rate: LearningRate = 0.01,
    eps: Eps = 1.15,
    bisect: Bisect = 10,
    polish: Polish = 2,
    seed: Seed = 0,
) -> tuple[Tensor, dict[str, float | None]]:
    """Gradient of the score at the nearest point of another class.

    g(x'), x' = argmin ||x' - x||_2 with F(x') != F(x). Wang et al. 2022; methods 2.16, 5.6. The search leaves the class
    that the network predicts; the score is that of the class that was asked for, which is the same for top1. Noted:
    distance (pixel L2) and success, class and other class, and the radius at which PGD first succeeded; after a failure
    x' is where the first attack ended.

    The search costs, by S = search_steps: pgd r (S + 1) F + r S B, where r = 4 is log2 of the length of the list; cw
    9 S (F + B); apgd 2 (S + 1) (F + B); then bisect F for each attack and once more, and (2 + bisect) F + 1 B a polish.
    """
    named = locals()
    points = [[_parameters("bsm", named)]]
    ((result,),) = bsm_together(f, x[None], [target], [f.image], [f.zoom], points, width=1)
    return result


def big_together(
    f: Classifier,
    xs: Sequence[Tensor] | Tensor,
    targets: Sequence[int],
    images: Sequence[str],
    zooms: Sequence[tuple[float, float]],
    points: Sequence[Points],
    *,
    width: int,
) -> list[list[Result]]:
    """The results of `big` on images of one size, which advance in one batch and have one setting in common; the
    hashes `images` key the draws, `zooms` and `width` play no part."""
    import torch

    from attrsens.models.batches import Stack

    parameters = dict(points[0][0])
    rule, steps = parameters.pop("rule"), parameters.pop("steps")
    near, _, notes = _find(f, xs, images, **parameters)
    x = torch.stack(list(xs))
    start = f.encode(near.points)
    nodes, weights = (torch.tensor(v, dtype=torch.float32, device=x.device) for v in quadrature(rule, steps))
    count = len(nodes)

    def path(indices: range) -> Tensor:
        at = torch.tensor(list(indices), device=x.device)
        image, t = at // count, nodes[at % count].reshape(-1, 1, 1, 1)
        return start[image] + t * (x[image] - start[image])

    total, scores, seen = torch.zeros_like(x), [], 0
    owners = [target for target in targets for _ in range(count)]
    for gradients, score in f.gradients(Stack(len(x) * count, path, like=x[0]), owners):
        at = torch.arange(seen, seen + len(gradients), device=x.device)
        seen += len(gradients)
        scores.append(score)
        if not f.dry:
            total.index_add_(0, at // count, gradients * weights[at % count].reshape(-1, 1, 1, 1))
    if nodes[0] == 0 and nodes[-1] == 1:
        along = torch.cat(scores).reshape(len(x), count)
        rise = along[:, -1] - along[:, 0]
    else:
        ends = f.score(torch.cat([x, start]), [*targets, *targets])
        rise = ends[: len(x)] - ends[len(x) :]
    maps = (x - start) * total
    gaps = (maps.flatten(1).sum(1) - rise).abs().tolist()
    for note, gap in zip(notes, gaps, strict=True):
        note["completeness_gap"] = None if f.sign == "abs_sample" else gap  # magnitudes complete nothing
    return [[(heatmap, note)] * len(own) for heatmap, note, own in zip(maps, notes, points, strict=True)]


@METHODS(
    "big",
    version=1,
    gradient=True,
    cost=COST.format("1 + points F + points B", "229 F + 182 B"),
    together=big_together,
    over=(),
    beside=(),
)
def boundary_integrated_gradients(
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    steps: Annotated[
        int,
        Param(
            "points of the path; for trapezoid, intervals (one point more)",
            min=2,
            max=100_000,
            scale="ratio",
            range=(10, 200),
            source="BND: 20",
        ),
    ] = 20,
    rule: Annotated[
        str, Param("quadrature", choices=RULES, source="methods 1.12: Captum's, as BND's figures")
    ] = "captum_trapezoid",
    search: Attacks = "pgd",
    search_steps: Steps = 40,
    doublings: Doublings = 2,
    learning_rate: LearningRate = 0.01,
    eps: Eps = 1.15,
    bisect: Bisect = 10,
    polish: Polish = 2,
    seed: Seed = 0,
) -> tuple[Tensor, dict[str, float | None]]:
    """Integrated gradients from the nearest point of another class.

    (x - x') * integral_0^1 g(x' + t (x - x')) dt, x' as in bsm. Wang et al. 2022; methods 2.17. The published rule's
    weights sum to (steps - 1)/steps. Distance, success and the completeness gap |sum of the map - (f(x) - f(x'))| are
    noted; rules without both end points add two passes forward.
    """
    named = locals()
    points = [[_parameters("big", named)]]
    ((result,),) = big_together(f, x[None], [target], [f.image], [f.zoom], points, width=1)
    return result


def _parameters(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """A method's own parameters among its local names."""
    return {hyper.name: values[hyper.name] for hyper in METHODS[name].own()}


def _find(
    f: Classifier, xs: Sequence[Tensor] | Tensor, images: Sequence[str], **settings: Any
) -> tuple[Boundary, Tensor, list[dict[str, float | None]]]:
    """The nearest boundary of every image in the view's space, the classes it leaves, and notes."""
    import torch

    from attrsens.boundary import nearest_boundary, predictions, to_pixels

    x = torch.stack(list(xs))
    own = predictions(f, x)
    near = nearest_boundary(f, to_pixels(f, x), own, _settings(**settings), images)
    notes: list[dict[str, float | None]] = []
    for i in range(len(x)):
        radius = float(near.radius[i])
        notes.append(
            {
                "distance": float(near.distance[i]),
                "success": float(near.success[i]),
                "class": float(own[i]),
                "other_class": float(near.other[i]),
                "radius": radius if radius == radius else None,  # the smallest at which PGD succeeded
            }
        )
    return near, own, notes


def _settings(search: str, search_steps: int, **same: Any) -> Search:
    from attrsens.boundary import Search

    return Search(attacks=tuple(search.split("-")), steps=search_steps, **same)
