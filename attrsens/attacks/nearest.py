"""The nearest decision boundary: how far an image is from another class, stage by stage of the search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from attrsens.attacks._settings import Seed
from attrsens.spec import ATTACKS, Param

if TYPE_CHECKING:
    from attrsens.attacks._case import Case, Outcome


@ATTACKS(
    "boundary",
    version=2,
    maps=False,
    rows=True,
    cost="search; with the default 1,314 F + 1,048 B",
    source="BND (Wang et al. 2022); methods 5.6",
)
def boundary(
    cases: Sequence[Case],
    *,
    search: Annotated[
        str,
        Param(
            "attacks of the search in order, each a stage; the closest point of all is kept",
            choices=("pgd", "cw", "apgd", "pgd-cw", "pgd-cw-apgd"),
            source="methods 5.6; BND runs all",
        ),
    ] = "pgd-cw-apgd",
    steps: Annotated[
        int, Param("iterations of each attack", min=1, max=10_000, scale="ratio", source="BND: 100; its code 40")
    ] = 40,
    doublings: Annotated[
        int,
        Param(
            "how often PGD's list of radii (0.14 to 1.1, pixel L2) is doubled and goes on, for robust networks",
            min=0,
            max=10,
            source="methods 5.6",
        ),
    ] = 2,
    learning_rate: Annotated[
        float, Param("step of CW's Adam", min=1e-6, max=10, scale="ratio", source="BND: ImageNet 0.01, robust 0.05")
    ] = 0.01,
    eps: Annotated[
        float,
        Param("radius of AutoPGD, pixel L2", min=1e-6, scale="ratio", source="BND: ImageNet 1.15, robust 6"),
    ] = 1.15,
    bisect: Annotated[
        int, Param("halvings that put the point on the boundary (0: it stays where the attack left it)", min=0, max=60)
    ] = 10,
    polish: Annotated[
        int, Param("moves to the foot of the boundary's tangent plane (none if bisect is 0)", min=0, max=100)
    ] = 2,
    seed: Seed = 0,
) -> list[Outcome]:
    """The closest image, in pixel L2, that the network gives another class, and how far each stage of the search got.

    argmin ||x' - x||_2 with F(x') != F(x). Wang et al. 2022 (BND), table of PGDs, + CW, + AutoPGD; methods 5.6. A
    stage's distance is the least of all attacks up to it, before the point is moved onto the boundary.
    """
    import torch

    from attrsens.attacks._case import Outcome, split
    from attrsens.boundary import Search, nearest_boundary
    from attrsens.models.batches import Passes

    f = cases[0].explainer.view()
    named = tuple(search.split("-"))
    how = Search(named, steps=steps, doublings=doublings, learning_rate=learning_rate, eps=eps, seed=seed)
    how = Search(**(vars(how) | {"bisect": bisect, "polish": polish}))
    pixels = torch.stack([case.pixels for case in cases])
    images = [case.explainer.image for case in cases]
    near = nearest_boundary(f, pixels, [case.own for case in cases], how, images)
    passes = split(f.passes, len(cases))  # of every image the same
    out = []
    for i in range(len(cases)):
        success, radius = bool(near.success[i]), float(near.radius[i])
        stages: list[tuple[str, float | None]] = []
        for k, stage in enumerate(near.stages):
            name = "on the boundary" if stage.name == "bisect" else " + ".join(named[: k + 1])
            stages.append((name, float(stage.distance[i]) if bool(stage.success[i]) else None))
        notes: dict[str, float | None] = {
            "distance": float(near.distance[i]),
            "success": float(success),
            "other_class": float(near.other[i]),
            "radius": radius if radius == radius else None,
        }
        own = Passes(passes.forward, passes.backward)
        out.append(Outcome(near.points[i].cpu(), stages=stages, notes=notes, passes=own))
    return out
