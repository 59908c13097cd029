"""Fixtures of scores that ask what the network says of changed images."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import _others as others
import _papers as papers
import numpy as np
from _others import asks
from _scenes import COUNT, HALF, ONES, RAMP, SIDE, Other, Row, Scene, bowl, formula, linear, mixed, one_hot, row

from attrsens.seeds import Stream


def curves() -> Iterator[Row]:
    pixel = Scene(linear(one_hot()), HALF)
    p = float(1 / (1 + np.exp(-0.5)))
    left_out = "its curve starts after the first step, and a step is 1 wide instead of its share of the pixels"
    one = "f = value of one pixel, 1/2, its gradient"
    yield row(
        pixel,
        "insertion:fill=black,step=1",
        one,
        p - (p - 0.5) / 32,
        "probability 1/2 while it is black, then 1 / (1 + e^-0.5); the first of 16 steps is half of each",
        formula(lambda: papers.area(papers.curve(pixel, True, True))),
    )
    for more, true, why in (
        ("output=logit", 0.5 / 32, "it goes first, and half of one step in 16 sees it"),
        ("output=logit,auc=norm", 1 / 32, "the same, over the curve's largest value"),
    ):
        yield row(
            pixel,
            f"deletion:fill=black,step=1,{more}",
            one,
            true,
            why,
            formula(lambda n="norm" in more: papers.area(papers.curve(pixel, False, False)) / (0.5 if n else 1)),
            quantus=asks(pixel, "PixelFlipping", left_out, perturb_baseline=0.0, return_auc_per_sample=True),
        )
    fair = Scene(linear(ONES), HALF, map=RAMP)
    yield row(
        fair,
        "deletion:fill=black,step=1,output=logit",
        "f = sum of x, x = 1/2; any order",
        4.0,
        "a straight line from 8 to 0",
        formula(lambda: papers.area(papers.curve(fair, False, False))),
        quantus=asks(fair, "PixelFlipping", left_out, perturb_baseline=0.0, return_auc_per_sample=True),
    )
    yield row(
        pixel,
        "srg:fill=black,step=1,output=logit",
        one,
        0.5 * (1 - 1 / 16),
        "it goes last less it goes first: all but one step in 16",
        formula(
            lambda: papers.area(papers.curve(pixel, True, False)) - papers.area(papers.curve(pixel, False, False)),
        ),
    )


def infidelity() -> Iterator[Row]:
    scene = Scene(linear(ONES), HALF, map=one_hot(0, 0))
    every = papers.squares(2, 1, HALF.shape)
    off = every * HALF
    base = "infidelity:n=0,side_min=0.5,side_max=0.5,fill=black"
    fixture = "f = sum of x, x = 1/2; the map is 1 in a corner; all 2 x 2 squares go black"
    for more, true, why, free, share in (
        ("", 32 / 9, "each of 9 squares takes 2 off, one holds the corner: (1 - 1/9) 2²", True, False),
        (",scaling=none", 33 / 9, "(2 - 1)² once and 2² eight times", False, False),
        (",normalize=true", 8 / 9, "the share of squares that the map does not know of", True, True),
    ):
        yield row(
            scene,
            base + more,
            fixture,
            true,
            why,
            formula(
                lambda free=free, share=share: (
                    papers.infidelity(scene, off, every, free)[0]
                    / (papers.infidelity(scene, off, every, free)[1] if share else 1)
                )
            ),
            Other(
                f"infidelity(normalize={free})",
                partial(others.captum_infidelity, scene, off, every, free),
                "its normalize means the free factor; it does not divide by E[df²]" if share else "",
            ),
        )
    apart = papers.squares(2, 2, HALF.shape)
    yield row(
        scene,
        base + ",stride=2,times_x=true,scaling=none",
        "the same, 2 x 2 squares that do not overlap; the map counts times what is removed",
        (1.5**2 + 3 * 2**2) / 4,
        "(2 - 1/2)² once and 2² three times",
        formula(lambda: papers.infidelity(scene, apart * HALF, apart * HALF, False)[0]),
        Other(
            "infidelity(normalize=False)", partial(others.captum_infidelity, scene, apart * HALF, apart * HALF, False)
        ),
        asks(
            scene,
            "Infidelity",
            "it goes on from the image that the square before left, so that the perturbations pile up, up to all black",
            perturb_baseline=0.0,
            perturb_patch_sizes=[2],
            n_perturb_samples=1,
        ),
    )
    slope = Scene(linear(mixed()), RAMP)
    noise = Stream(0, "docs", "noise").normal(range(100), RAMP.shape).astype(np.float64)
    drawn = np.clip(RAMP + 0.2 * noise, RAMP - 1, RAMP)
    yield row(
        slope,
        "infidelity:perturbation=gaussian,scaling=none",
        "f = w.x, its gradient; noise",
        0.0,
        "f(x) - f(x - I) is w.I",
        formula(lambda: papers.infidelity(slope, drawn, drawn, False)[0]),
        Other("infidelity(normalize=False)", partial(others.captum_infidelity, slope, drawn, drawn, False)),
    )


def faithfulness() -> Iterator[Row]:
    scene = Scene(linear(mixed()), RAMP)
    u = Stream(0, "docs", "subsets").uniform(range(200), (2, COUNT)).astype(np.float64)
    subsets = (u[:, 0].argsort(1).argsort(1) < 4).astype(np.float64).reshape(-1, SIDE, SIDE)
    off = np.clip(u[:, 1].reshape(-1, SIDE, SIDE) - 0.5, RAMP - 1, RAMP)
    yield row(
        scene,
        "faithfulness:share=0.25",
        "f = w.x, its gradient",
        1.0,
        "f(x) - f(x - e) is sum e w",
        formula(lambda: papers.faithfulness(scene, subsets, off, True)),
        quantus=Other(
            "FaithfulnessCorrelation(perturb_baseline=0.0)",
            partial(others.quantus_faithfulness, scene, subsets, 0.0),
            "it makes pixels black and sums the map without weighing it by what was taken off each",
        ),
    )
    product = Scene(linear(mixed()), RAMP, map=mixed() * RAMP)
    darkest = "its black is the smallest value of the image itself, 1/32 here"
    for baseline, differs in ((0.0, ""), ("black", darkest)):
        yield row(
            product,
            "faithfulness:share=0.25,perturbation=zero",
            "f = w.x; the map is w x",
            1.0,
            "what black pixels take off is the sum of w x there",
            formula(lambda: papers.faithfulness(product, subsets, RAMP, False)),
            quantus=Other(
                f"FaithfulnessCorrelation(perturb_baseline={baseline})",
                partial(others.quantus_faithfulness, product, subsets, baseline),
                differs,
            ),
        )
    total = float((RAMP**2).sum())
    boolean = "it answers whether the two sides are the same float32 number"
    for rule, true, why, kept in (
        ("trapezoid", 0.0, "trapezoids are exact, since the slope 2tx is linear in t", 1.0),
        ("left", total / 4, "four left ends give 3/4 of the integral of 2t", 0.75),
    ):
        path = Scene(bowl(ONES), RAMP, method=f"ig:output=logit,rule={rule},steps=4")
        same = Scene(bowl(ONES), RAMP, map=kept * RAMP**2)
        yield row(
            path,
            "completeness",
            f"f = ‖x‖² = {total:.6g}; integrated gradients, {rule}, 4 steps",
            true,
            why,
            formula(lambda s=same: float(abs(s.phi().sum() - s.f(np.stack([RAMP, 0 * RAMP])) @ [1, -1]))),
            quantus=asks(same, "Completeness", boolean, perturb_baseline=0.0),
        )
