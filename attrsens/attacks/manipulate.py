"""Manipulation: the map becomes another one, while the prediction stays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from attrsens.attacks._settings import (
    PASSES,
    Beta,
    ColourEps,
    Decay,
    Eps,
    FlowEps,
    LearningRate,
    Perturbation,
    PredictionWeight,
    Regulariser,
    Restarts,
    Seed,
    Steps,
    settings,
)
from attrsens.spec import ATTACKS, Param

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.attacks._case import Case, Outcome

SHAPES = ("none", "disc", "square", "ring", "cross", "frame")


@ATTACKS(
    "manipulate",
    version=2,
    target=True,
    differentiable=True,
    cost=PASSES,
    source="Dombrowski et al. 2019; SMO equation 1; methods 5.1",
)
def manipulate(
    cases: Sequence[Case],
    *,
    target_image: Annotated[Path, Param("picture whose map, by the same method, for its own class, is the goal")] = (
        Path()
    ),
    target_map: Annotated[Path, Param("the goal as a .npy array (H, W) of the input's size")] = Path(),
    target_shape: Annotated[str, Param("the goal as a shape", choices=SHAPES)] = "none",
    perturbation: Perturbation = "delta",
    eps: Eps = 0.03,
    flow_eps: FlowEps = 0.05,
    colour_eps: ColourEps = 0.06,
    steps: Steps = 200,
    learning_rate: LearningRate = 0.0,
    decay: Decay = 0.4,
    map_weight: Annotated[
        float,
        Param(
            "weight of the mean squared error of maps, each of mean 1",
            min=0,
            scale="ratio",
            source="SMO eq. 1: 1e11 / (224 x 224)^2 = 40; CIFAR 1e7 / (32 x 32)^2 = 9.5",
        ),
    ] = 40.0,
    prediction_weight: PredictionWeight = 100.0,
    regulariser: Regulariser = 0.05,
    beta: Beta = 100.0,
    restarts: Restarts = 1,
    seed: Seed = 0,
) -> list[Outcome]:
    """A perturbation that turns the map into a target map while the prediction stays.

    min map_weight mse(h(x'), h_t) + prediction_weight ||p(x') - p(x)||^2 + regulariser L(perturbation), h = magnitudes
    of the map summed over channels, of mean 1. Dombrowski et al. 2019; SMO eq. 1; methods 5.1. By Adam, of whose
    iterates the best that keeps the class is taken; the second-order signal comes from softplus in place of ReLUs.
    Without a target, the next image's map is the goal, of a single image that of another packaged picture.
    """
    import torch

    from attrsens.attacks._optimiser import optimise

    given = locals()
    goal = torch.stack([case.pixels[0] if case.goal is None else case.goal for case in cases])  # None: a dry run

    def objective(maps: Tensor) -> Tensor:
        return (maps - goal.to(maps) * goal[0].numel()).square().flatten(1).mean(1)

    return optimise(cases, objective, settings(given))
