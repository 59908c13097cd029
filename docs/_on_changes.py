"""Fixtures of scores that explain changed images and changed networks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import _others as others
import _papers as papers
import numpy as np
from _others import asks
from _scenes import ONES, RAMP, Other, Row, Scene, bowl, exponential, formula, hinge, linear, mixed, one_hot, row

RELATIVE = "it divides by the length of the map instead of bringing both maps to unit length"


def sensitivity() -> Iterator[Row]:
    for metric, library in (("max_sensitivity", "MaxSensitivity"), ("mean_sensitivity", "AvgSensitivity")):
        scene = Scene(linear(mixed()), RAMP)
        moves = scene.moves()
        summary = np.max if metric.startswith("max") else np.mean
        captum = Other("sensitivity_max", partial(others.captum_sensitivity, scene, moves))
        yield row(
            scene,
            metric,
            "f = w.x, its gradient",
            0.0,
            "the gradient is w everywhere",
            formula(lambda s=scene, m=moves, g=summary: float(g(papers.changes(s, m, "hse")))),
            captum if summary is np.max else None,
            asks(scene, library, moves=moves),
        )
        scene = Scene(bowl(ONES), RAMP)
        lengths = np.linalg.norm(moves, axis=(1, 2)) / np.linalg.norm(RAMP)
        captum = Other("sensitivity_max", partial(others.captum_sensitivity, scene, moves))
        yield row(
            scene,
            f"{metric}:definition=yeh",
            "f = ‖x‖², its gradient",
            float(summary(lengths)),
            f"{'largest' if summary is np.max else 'mean'} ‖u‖ / ‖x‖ of the copies drawn, since the gradient is 2x",
            formula(lambda s=scene, m=moves, g=summary: float(g(papers.changes(s, m, "yeh")))),
            captum if summary is np.max else None,
            asks(scene, library, moves=moves),
        )
    scene = Scene(bowl(one_hot()), one_hot(value=0.0625))
    moves = scene.moves()
    yield row(
        scene,
        "max_sensitivity",
        "f = square of one pixel, which is 1/16; its gradient",
        2.0,
        "some copies turn the only slope around, and opposite unit vectors are 2 apart",
        formula(lambda: float(papers.changes(scene, moves, "hse").max())),
        Other("sensitivity_max", partial(others.captum_sensitivity, scene, moves), RELATIVE),
        asks(scene, "MaxSensitivity", RELATIVE, moves),
    )
    cup = Scene(bowl(ONES), RAMP)
    normal = cup.moves(ball="gaussian")
    plain = partial(papers.changes, cup, normal, "plain")
    norm = float(np.linalg.norm(2 * RAMP))
    yield row(
        cup,
        "max_sensitivity:definition=smo",
        "f = ‖x‖², its gradient",
        float(np.linalg.norm(normal, axis=(1, 2)).max() / np.linalg.norm(RAMP)),
        "largest ‖u‖ / ‖x‖ of the normal copies drawn",
        Other(
            "SMO's code",
            lambda: papers.running(plain(), norm),
            "it divides what was largest so far by the norm in every round, so that the last rounds rule",
        ),
        Other("sensitivity_max", partial(others.captum_sensitivity, cup, normal)),
        asks(cup, "MaxSensitivity", moves=normal),
    )
    scene = Scene(linear(RAMP, 1.0), RAMP)
    moves = scene.moves()
    score = float((RAMP**2).sum() + 1)
    yield row(
        scene,
        "prediction_sensitivity",
        "f = w.x + 1",
        float(np.abs((moves * RAMP).sum((1, 2))).max() / score),
        "largest |w.u| / |f(x)| of the copies drawn",
        formula(lambda: float(papers.falls(scene, moves).max())),
    )
    peak = Scene(exponential(one_hot()), RAMP)
    drawn = peak.moves()
    yield row(
        peak,
        "sensitivity_ratio",
        "f = e to the value of one pixel, its gradient",
        1.0,
        "f is its own derivative, so both move by the same share",
        formula(
            lambda: float(papers.changes(peak, drawn, "yeh").max() / papers.falls(peak, drawn).max()),
        ),
    )
    yield row(
        cup,
        "lipschitz",
        "f = ‖x‖², its gradient",
        2.0,
        "the gradient 2x moves twice as far as x",
        formula(lambda: float((papers.changes(cup, drawn, "plain") / np.linalg.norm(drawn, axis=(1, 2))).max())),
        quantus=asks(cup, "LocalLipschitzEstimate", moves=drawn),
    )

    bent = Scene(hinge(np.abs(mixed())), RAMP, method="grad+softplus:beta=1")
    z = float((np.abs(mixed()) * RAMP).sum())
    slope = np.abs(mixed())
    for form, true, why in (
        ("yeh", 1 / (1 + np.exp(z)), "softplus has the slope 1 / (1 + e^-z) where ReLU has 1"),
        ("hse", 0.0, "softplus scales the gradient of one hidden unit, and unit length forgets that"),
    ):
        gentle = slope / (1 + np.exp(-z))
        yield row(
            bent,
            f"deviation:definition={form}",
            f"f = max(0, z), z = w.x = {z:.4g}; gradient with softplus of beta 1",
            float(true),
            why,
            formula(
                lambda g=gentle, f=form: float(
                    np.linalg.norm(g - slope) / np.linalg.norm(slope)
                    if f == "yeh"
                    else np.linalg.norm(g / np.linalg.norm(g) - slope / np.linalg.norm(slope))
                )
            ),
        )


def stability() -> Iterator[Row]:
    cup, peak, hill = (
        Scene(bowl(ONES), RAMP),
        Scene(exponential(one_hot()), RAMP),
        Scene(exponential(ONES), RAMP),
    )
    moves = cup.moves()
    for form in ("printed", "norm"):
        yield row(
            cup,
            f"ris:form={form}",
            "f = ‖x‖², its gradient",
            1.0,
            "the gradient 2x changes by the same share as x",
            formula(lambda f=form: papers.stability(cup, moves, "image", f)),
            quantus=asks(cup, "RelativeInputStability", moves=moves),
        )
    value = float(RAMP[1, 1])
    printed = "it has the printed form only, whose change of the logits is not relative"
    for form, true, why in (
        ("printed", float(np.exp(-value)), "map and logit change by the same amount; one of the two is divided by e^x"),
        ("norm", 1.0, "map and logit change by the same share"),
    ):
        yield row(
            peak,
            f"ros:form={form}",
            f"f = e to the value of one pixel, which is {value:g}; its gradient",
            true,
            why,
            formula(lambda f=form: papers.stability(peak, moves, "logits", f)),
            quantus=asks(peak, "RelativeOutputStability", printed if form == "norm" else "", moves),
        )
    every = "without layer_names it strings the outputs of all layers together, the flattened image and the logits too"
    for options, differs in (({"layer_names": ["1"]}, ""), ({}, every)):
        yield row(
            hill,
            "rrs",
            "f = sum of e^x, its gradient; features e^x",
            1.0,
            "the gradient e^x is what the last layer is given",
            formula(lambda: papers.stability(hill, moves, "features")),
            quantus=asks(hill, "RelativeRepresentationStability", differs, moves, **options),
        )
    flat = Scene(linear(mixed(), 9.0), RAMP)
    yield row(
        flat,
        "stability_rate",
        "f = w.x + 9, its gradient",
        1.0,
        "the gradient is w everywhere, and so is the class",
        formula(lambda: float(np.mean([papers.cosine_distance(flat.phi(RAMP + u), flat.phi()) < 0.1 for u in moves]))),
    )


def networks() -> Iterator[Row]:
    scene = Scene(exponential(mixed()), RAMP, method="edges")
    fixed = Scene(scene.net, RAMP, map=RAMP)
    paper = formula(lambda: papers.rank_correlation(RAMP, RAMP))
    quantus = Other("MPRT", partial(others.quantus_mprt, fixed))
    why = "no weight enters the map, so no new weight changes it"
    yield row(scene, "cascade", "a map of edges, whatever the network", 1.0, why, paper, quantus=quantus)
    flat = Scene(linear(mixed(), 1.0), RAMP)
    paper = formula(lambda: papers.cosine_distance(mixed(), mixed() - 0 * mixed()))
    yield row(flat, "alignment", "f = w.x + 1, its gradient", 0.0, "the boundary's normal is w, too", paper)
