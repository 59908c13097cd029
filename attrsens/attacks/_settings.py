"""Hyperparameters that attacks share, declared once."""

from __future__ import annotations

from typing import Annotated, Any

from attrsens.spec import Param

PERTURBATIONS = ("delta", "stadv", "recolor", "delta-stadv", "delta-recolor", "stadv-recolor", "delta-stadv-recolor")

Perturbation = Annotated[
    str,
    Param(
        "what is done to the image: delta adds, stadv moves pixels, recolor maps colours; several are found jointly",
        choices=PERTURBATIONS,
        source="SMO 5; methods 5.2 to 5.5",
    ),
]
Eps = Annotated[
    float,
    Param(
        "budget of delta: the largest change of a channel, pixels in [0, 1]; A,B,... gives a curve",
        min=0,
        max=1,
        scale="ratio",
        sweep=(2 / 255, 4 / 255, 8 / 255, 16 / 255),
        source="methods 5.2",
    ),
]
FlowEps = Annotated[
    float,
    Param(
        "budget of stadv: the largest shift along an axis, where the image spans 2",
        min=0,
        max=2,
        scale="ratio",
        source="methods 5.3",
    ),
]
ColourEps = Annotated[
    float,
    Param(
        "budget of recolor: the largest shift of a colour, each CIELUV axis spanning 1",
        min=0,
        max=1,
        scale="ratio",
        source="methods 5.4",
    ),
]
Steps = Annotated[
    int,
    Param("iterations", min=0, max=1_000_000, scale="ratio", range=(50, 2000), source="SMO: 1500, CIFAR 1000"),
]
LearningRate = Annotated[
    float,
    Param(
        "step of Adam, in the units of each perturbation; 0: the published one, 0.001 for delta alone, else 0.0004",
        min=0,
        max=1,
        scale="ratio",
        source="methods 5.1",
    ),
]
Decay = Annotated[float, Param("factor on the step from half of the iterations on", min=0, max=1, source="SMO code")]
PredictionWeight = Annotated[
    float,
    Param(
        "weight of the squared change of the class probabilities, summed over classes",
        min=0,
        scale="ratio",
        source="SMO eq. 1: 1e5 / classes at 224 px, 1e2 / classes on CIFAR",
    ),
]
Regulariser = Annotated[
    float, Param("weight of the smoothness of flow and colours", min=0, scale="ratio", source="SMO eq. 1")
]
Beta = Annotated[
    float,
    Param(
        "sharpness of the softplus that stands for ReLUs while the map is optimised, not when it is measured",
        min=1e-3,
        max=1e6,
        scale="ratio",
        source="SMO 5; its code also 10",
    ),
]
Restarts = Annotated[int, Param("runs from random starts; the best counts", min=1, max=1000)]
Seed = Annotated[int, Param("seed of the starts and of the methods' draws while optimising", min=0)]
K = Annotated[
    int, Param("pixels of the clean map that count as its top", min=1, scale="ratio", source="Ghorbani 5.7", pixels=2)
]

PASSES = "(steps + 1) restarts (2 map + 1) F, the same B"


def top_count(k: int, pixels: int) -> int:
    """How many pixels count as a map's top: k, and at most half of them."""
    return max(1, min(k, pixels // 2))


def settings(values: dict[str, Any], map_weight: float = 1.0, start: float = 0.0) -> Any:
    """The optimiser's settings among a function's local names."""
    from dataclasses import fields

    from attrsens.attacks._optimiser import Settings

    known = {"map_weight": map_weight, "start": start} | values
    known["learning_rate"] = values["learning_rate"] or (1e-3 if values["perturbation"] == "delta" else 4e-4)
    return Settings(**{field.name: known[field.name] for field in fields(Settings)})
