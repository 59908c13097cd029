"""Attacks without a target: away from the clean map, its top out of the top, its centre of mass elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrsens.attacks._settings import (
    PASSES,
    Beta,
    ColourEps,
    Decay,
    Eps,
    FlowEps,
    K,
    LearningRate,
    Perturbation,
    PredictionWeight,
    Regulariser,
    Restarts,
    Seed,
    Steps,
    settings,
    top_count,
)
from attrsens.spec import ATTACKS

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.attacks._case import Case, Outcome


ROUGHNESS = 0.00125  # default weight: manipulate's 0.05 for a map's weight of 40; 0.05 itself lets no pixel flow


@ATTACKS(
    "untargeted",
    version=2,
    budget=True,
    differentiable=True,
    cost=PASSES,
    source="Ghorbani et al. 2019, in spirit; methods 5",
)
def untargeted(
    cases: Sequence[Case],
    *,
    perturbation: Perturbation = "delta",
    eps: Eps = 8 / 255,
    flow_eps: FlowEps = 0.05,
    colour_eps: ColourEps = 0.06,
    steps: Steps = 200,
    learning_rate: LearningRate = 0.0,
    decay: Decay = 0.4,
    prediction_weight: PredictionWeight = 1.0,
    regulariser: Regulariser = ROUGHNESS,
    beta: Beta = 100.0,
    restarts: Restarts = 1,
    seed: Seed = 0,
) -> list[Outcome]:
    """A perturbation that takes the map as far from the clean one as it gets, while the prediction stays.

    min cos(h(x'), h(x)) + prediction_weight ||p(x') - p(x)||^2 + regulariser L(perturbation), h as in manipulate. The
    first step goes to a random place, up to half of the way to delta's bound and a fiftieth to the others', since the
    clean image itself has no slope. Ghorbani et al. 2019 in spirit; methods 5.
    """
    from attrsens.attacks._case import clean_shares, cosine_distance
    from attrsens.attacks._optimiser import optimise

    given = locals()
    before = clean_shares(cases)

    def objective(maps: Tensor) -> Tensor:
        return 1 - cosine_distance(maps, before.to(maps))

    return optimise(cases, objective, settings(given, start=0.5))


@ATTACKS(
    "topk",
    version=2,
    aim="top_share",
    budget=True,
    differentiable=True,
    cost=PASSES,
    source="Ghorbani et al. 2019, top-k attack; methods 5",
)
def top_out(
    cases: Sequence[Case],
    *,
    k: K = 1000,
    perturbation: Perturbation = "delta",
    eps: Eps = 8 / 255,
    flow_eps: FlowEps = 0.05,
    colour_eps: ColourEps = 0.06,
    steps: Steps = 200,
    learning_rate: LearningRate = 0.0,
    decay: Decay = 0.4,
    prediction_weight: PredictionWeight = 1.0,
    regulariser: Regulariser = ROUGHNESS,
    beta: Beta = 100.0,
    restarts: Restarts = 1,
    seed: Seed = 0,
) -> list[Outcome]:
    """A perturbation that pushes the map's largest pixels out of its top, while the prediction stays.

    min of the share of the map that lies on the k largest pixels of the clean map, + the other terms of untargeted.
    Ghorbani et al. 2019, top-k attack; methods 5. A k of more than half of the pixels is cut to half.
    """
    import torch

    from attrsens.attacks._case import clean_shares
    from attrsens.attacks._optimiser import optimise

    given = locals()
    flat = clean_shares(cases).flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)[:, : top_count(k, flat.shape[1])]
    top = torch.zeros_like(flat).scatter_(1, order, 1.0)

    def objective(maps: Tensor) -> Tensor:
        return (maps.flatten(1) * top.to(maps)).sum(1) / maps[0].numel()

    return optimise(cases, objective, settings(given))


@ATTACKS(
    "centre",
    version=2,
    aim="centre_distance",
    budget=True,
    differentiable=True,
    cost=PASSES,
    source="Ghorbani et al. 2019, mass-centre attack; methods 5",
)
def centre_away(
    cases: Sequence[Case],
    *,
    perturbation: Perturbation = "delta",
    eps: Eps = 8 / 255,
    flow_eps: FlowEps = 0.05,
    colour_eps: ColourEps = 0.06,
    steps: Steps = 200,
    learning_rate: LearningRate = 0.0,
    decay: Decay = 0.4,
    prediction_weight: PredictionWeight = 1.0,
    regulariser: Regulariser = ROUGHNESS,
    beta: Beta = 100.0,
    restarts: Restarts = 1,
    seed: Seed = 0,
) -> list[Outcome]:
    """A perturbation that moves the map's centre of mass away, while the prediction stays.

    max of the distance between the centres of mass of h(x') and h(x), in units of the image's diagonal, - the other
    terms of untargeted, and a random place first as there. Ghorbani et al. 2019, mass-centre attack; methods 5.
    """
    import torch

    from attrsens.attacks._case import clean_shares
    from attrsens.attacks._optimiser import optimise

    given = locals()
    before = clean_shares(cases)
    height, width = before.shape[1:]
    rows = torch.arange(height, device=before.device, dtype=torch.float32)[:, None]
    columns = torch.arange(width, device=before.device, dtype=torch.float32)[None]

    def centre(maps: Tensor) -> Tensor:
        total = maps.flatten(1).sum(1).clamp(min=1e-30)
        found: Tensor = torch.stack([(maps * axis).flatten(1).sum(1) / total for axis in (rows, columns)], 1)
        return found

    home, diagonal = centre(before), (height**2 + width**2) ** 0.5

    def objective(maps: Tensor) -> Tensor:
        away: Tensor = (centre(maps) - home.to(maps)).square().sum(1).add(1e-12).sqrt() / -diagonal
        return away

    return optimise(cases, objective, settings(given, start=0.5))
