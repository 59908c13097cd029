"""Meaningful perturbation: the smallest smooth mask whose blur takes the target's score away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated

from attrsens.errors import AttrsensError
from attrsens.methods._descent import SEARCH_BLUR, Common, Problem, advance
from attrsens.methods._settings import Notes, Points
from attrsens.spec import METHODS, Param

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.models.census import Facts
    from attrsens.models.classifier import Classifier

MAX_BLUR = 1000  # pixels
BESIDE = ("blur_radius", "init", "seed")
Result = tuple["Tensor", Notes]


def together(
    f: Classifier,
    xs: Sequence[Tensor] | Tensor,
    targets: Sequence[int],
    images: Sequence[str],
    zooms: Sequence[tuple[float, float]],
    points: Sequence[Points],
    *,
    width: int,
) -> list[list[Result]]:
    """The results of `mp` on images (C, H, W) of one size, which advance in one batch; equal to the single ones but
    for float noise. The optimiser amplifies it: on lite0, maps from batches of two shapes are 1e-3 apart after 10 steps
    and correlate at .95 to .99 after 300, so whoever compares runs keeps to one `width` and one `--batch`.

    Args:
        xs: those that are one tensor share the search for their discs.
        images: the hash of each image, which keys its draws.
        zooms: of each image, its pixels a pixel of the picture before resizing, down and across.
        points: of each image, its settings, which differ in `steps`; they are snapshots of one course. The images'
            settings differ in `blur_radius`, `init` and `seed`, too.
        width: the batch is filled up to a multiple of this by copies, so that a result does not depend, to the bit,
            on how many others there are.

    Raises:
        AttrsensError: a blur in original pixels is wider than MAX_BLUR pixels of the crop.
    """
    first = points[0][0]
    if first["blur_space"] == "crop":
        zooms = [(1.0, 1.0)] * len(images)
    for (point, *_), zoom in zip(points, zooms, strict=True):
        radius, wide = max(point["blur_radius"], SEARCH_BLUR), max(zoom)
        if radius * wide > MAX_BLUR:
            raise AttrsensError(
                f"mp: a blur of {radius:g} original pixels is one of {radius * wide:,.0f} pixels after resizing; "
                f"at most {MAX_BLUR:,}"
            )
    problems = [
        Problem(x, target, image, zoom=zoom, **{name: own[0][name] for name in BESIDE})
        for x, target, image, zoom, own in zip(xs, targets, images, zooms, points, strict=True)
    ]
    common = Common(**{field.name: first[field.name] for field in fields(Common)})
    counts = sorted({point["steps"] for own in points for point in own})
    courses = advance(f, problems, counts, common, width)
    return [
        [(course.maps[point["steps"]], course.notes[point["steps"]]) for point in own]
        for course, own in zip(courses, points, strict=True)
    ]


def _unmoved(facts: Facts) -> str | None:
    """Where no gradient arrives, the penalties alone move the mask."""
    return "its mask would learn nothing: every gradient is zero" if facts.gradients.state == "zero" else None


@METHODS(
    "mp",
    version=1,
    output="prob",
    gradient=True,
    cost="steps F + steps B; circle: 36 F more",
    together=together,
    still=lambda p: p["init"] != "random" and p["jitter"] <= 1,
    over=("steps",),
    beside=BESIDE,
    unfit=_unmoved,
)
def meaningful_perturbation(
    f: Classifier,
    x: Tensor,
    target: int,
    *,
    steps: Annotated[
        int,
        Param(
            "iterations of Adam (0: the first mask)",
            min=0,
            max=100_000,
            sweep=(10, 150, 300, 450),
            reference=300,
            scale="ratio",
            range=(10, 450),
            source="SAM 4.3",
        ),
    ] = 300,
    blur_radius: Annotated[
        float,
        Param(
            "sd of the Gaussian blur, pixels of blur_space",
            min=0,
            max=MAX_BLUR,
            sweep=(5, 10, 30),
            reference=10,
            scale="ratio",
            range=(5, 30),
            source="SAM 4.3",
            pixels=1,
        ),
    ] = 10.0,
    blur_space: Annotated[
        str,
        Param(
            "whose pixels: the crop's; original: the picture's before resizing (Fong, SAM), so the larger the file the "
            "weaker the blur",
            choices=("crop", "original"),
            source="methods 2.14",
        ),
    ] = "crop",
    init: Annotated[
        str,
        Param(
            "first mask: the smallest soft disc that hides the target; ones: nothing hidden; random: uniform noise",
            choices=("circle", "ones", "random"),
            sweep=("circle", "ones", "random"),
            reference="circle",
            source="SAM 4.3",
        ),
    ] = "circle",
    seed: Annotated[
        int,
        Param("seed of jitter and random first mask", min=0, sweep=(0, 1, 2, 3, 4), reference=0, source="SAM 4.3"),
    ] = 0,
    circle_at: Annotated[
        str,
        Param(
            "where discs are drawn: input, then shrunk (Fong); mask: on the mask's grid, where they hide everything "
            "from radius 20 on (SAM code)",
            choices=("input", "mask"),
            source="methods 1.12",
        ),
    ] = "input",
    mask_side: Annotated[
        int,
        Param(
            "cells a side of the mask; no more than the image has pixels",
            min=1,
            max=4096,
            scale="ratio",
            range=(14, 224),
            source="SAM code",
        ),
    ] = 28,
    mask_blur: Annotated[
        float,
        Param(
            "sd of a blur of the enlarged mask, pixels (Fong: 5)",
            min=0,
            max=1000,
            scale="ratio",
            source="SAM code",
            pixels=1,
        ),
    ] = 0.0,
    jitter: Annotated[
        int,
        Param(
            "places a side that the crop is drawn from at every step",
            min=0,
            max=224,
            scale="ratio",
            source="Fong",
            pixels=1,
        ),
    ] = 4,
    l1_weight: Annotated[float, Param("weight of the hidden area, cells", min=0, scale="ratio", source="Fong")] = 1e-4,
    tv_weight: Annotated[float, Param("weight of the total variation", min=0, scale="ratio", source="Fong")] = 1e-2,
    tv_power: Annotated[float, Param("power of the total variation", min=1, scale="ratio", source="Fong")] = 3.0,
    tv: Annotated[
        str,
        Param(
            "aniso: |dy|^power + |dx|^power (SAM code); iso: (dy^2 + dx^2)^(power/2) (Fong)",
            choices=("aniso", "iso"),
            source="methods 2.14",
        ),
    ] = "aniso",
    learning_rate: Annotated[float, Param("step of Adam", min=0, scale="ratio", source="Fong")] = 0.1,
    output_blur: Annotated[
        float, Param("sd of the blur of the map, pixels", min=0, max=1000, scale="ratio", source="SAM code", pixels=1)
    ] = 1.0,
    quantize: Annotated[bool, Param("cut the map to 256 levels before and after its blur", source="SAM code")] = False,
) -> Result:
    """How strongly each place has to be blurred for the target's score to fall.

    1 - blur(M), M the enlarged mask m (1: keep, 0: blur) that minimises
    f(M x + (1 - M) blur(x)) + l1_weight sum |1 - m| + tv_weight TV(m), by Adam (0.9, 0.999), m cut to [0, 1] after each
    step. Fong & Vedaldi 2017; methods 2.14. One pass forward and back a step; init=circle adds 36 passes forward.

    A method is given the crop alone, so jitter and blur differ from the reference's, which take them from the picture
    before its crop: here the crop is continued by its mirror image (jitter/2 pixels each way), blurred, and cut anew at
    each step. A Gaussian commutes with resizing, so blur_space=original multiplies its sd, and that of the 10 pixels
    that discs are tried with, by each axis's resize factor (1 for a classifier that was handed the pixels as they are).
    The blur is a true Gaussian, not Pillow's boxes, and nothing is rounded to 8 bits unless `quantize` says so. Noted:
    the loss and its terms as the last step saw them, before its update (`score` is the target's score on the perturbed
    image), and the cells a side.
    """
    own = {
        "steps": steps,
        "blur_radius": blur_radius,
        "blur_space": blur_space,
        "init": init,
        "seed": seed,
        "circle_at": circle_at,
        "mask_side": mask_side,
        "mask_blur": mask_blur,
        "jitter": jitter,
        "l1_weight": l1_weight,
        "tv_weight": tv_weight,
        "tv_power": tv_power,
        "tv": tv,
        "learning_rate": learning_rate,
        "output_blur": output_blur,
        "quantize": quantize,
    }
    ((result,),) = together(f, x[None], [target], [f.image], [f.zoom], [[own]], width=1)
    return result
