"""How far an explanation moves when its image is perturbed a little."""

from __future__ import annotations

import math
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Annotated

from attrsens.scores._case import Answers, Beside, Case, Finding, NoValue
from attrsens.scores._pool import (
    BALL,
    COPIES,
    COPIES_DRAWN,
    DRAWS,
    DRAWS_OR_ALONE,
    OWN_DRAWS,
    RADIUS,
    SEED,
    SPACE,
    Pool,
    changes_of,
    distances,
    given_map,
)
from attrsens.spec import SCORES, Param, write_expression

if TYPE_CHECKING:
    from torch import Tensor

DEFINITION = Param(
    "distance of two maps: hse: of both at unit length; yeh: over the length of the image's; smo: so too, of normal "
    "copies; plain: as it is",
    choices=("hse", "yeh", "smo", "plain"),
    source="HSE 4; Yeh et al. 2019; SMO; science C-3, C-5",
)
OUTPUT = Param("scalar that is predicted", choices=("logit", "prob"), source="methods 4.8")
DISTANCES = (
    "definition {definition} of D: hse ||Phi(y)/||Phi(y)|| - Phi(x)/||Phi(x)||||, yeh and smo ||Phi(y) - Phi(x)|| / "
    "||Phi(x)||, plain ||Phi(y) - Phi(x)||, L2 over all entries; y = x + u, u uniform in +-{radius} (smo: normal, sd "
    "{radius}), {space} units, not clipped, seed {seed}"
)
SMOOTHING = ("smooth", "softplus")  # wrappers that leave what is explained as it is, and smooth how


@SCORES(
    "max_sensitivity",
    version=1,
    formula="largest D(Phi(y), Phi(x)) of {n} copies y, a lower bound of the maximum over the ball; "
    f"{DISTANCES}; {OWN_DRAWS}",
    direction="lower",
    range=(0.0, None),
    source="HSE Def. 2.1; Yeh et al. 2019; SMO; methods 4.7; science C-3, C-5, C-6",
    cost="n x method",
    judges="pool",
    floor="shuffle",
    reduce="none",
)
def max_sensitivity(
    case: Case,
    *,
    definition: Annotated[str, DEFINITION] = "hse",
    n: Annotated[int, COPIES] = 50,
    radius: Annotated[float, RADIUS] = 0.1,
    space: Annotated[str, SPACE] = "pixel",
    draws: Annotated[str, DRAWS_OR_ALONE] = "common",
    seed: Annotated[int, SEED] = 0,
) -> Answers:
    """Largest change of the map among copies of the image with a little noise.

    max_i D(Phi(x + u_i), Phi(x)); with definition=hse from 0 to 2, sqrt 2 for maps that have nothing in common. The
    largest of n draws is a lower bound of the maximum, and grows with n. draws=alone is what the method's own draws do
    to the map of the image itself, 0 for a method without. HSE Def. 2.1; Yeh et al. 2019; SMO (without its running
    maximum that is divided in every round, science C-5); methods 4.7. n times the method.

    Raises:
        NoValue: the map, or with definition=hse a copy's, is zero.
    """
    pool = Pool(case, n, radius, "gaussian" if definition == "smo" else "linf", space, seed, draws)
    changes = yield from changes_of(pool, definition)
    return _largest(changes)


@SCORES(
    "mean_sensitivity",
    version=1,
    formula=f"mean D(Phi(y), Phi(x)) over {{n}} copies y; {DISTANCES}; {OWN_DRAWS}",
    direction="lower",
    range=(0.0, None),
    source="HSE Def. 2.2; methods 4.7; science C-3, C-6",
    cost="n x method",
    judges="pool",
    floor="shuffle",
    reduce="none",
)
def mean_sensitivity(
    case: Case,
    *,
    definition: Annotated[str, DEFINITION] = "hse",
    n: Annotated[int, COPIES] = 50,
    radius: Annotated[float, RADIUS] = 0.1,
    space: Annotated[str, SPACE] = "pixel",
    draws: Annotated[str, DRAWS_OR_ALONE] = "common",
    seed: Annotated[int, SEED] = 0,
) -> Answers:
    """Mean change of the map over copies of the image with a little noise.

    mean_i D(Phi(x + u_i), Phi(x)), from the pool of max_sensitivity, in its definitions and units. HSE Def. 2.2;
    methods 4.7. n times the method.

    Raises:
        NoValue: the map, or with definition=hse a copy's, is zero.
    """
    pool = Pool(case, n, radius, "gaussian" if definition == "smo" else "linf", space, seed, draws)
    changes = yield from changes_of(pool, definition)
    return Finding(fmean(changes), changes, {"sd": stdev(changes) if n > 1 else None})


@SCORES(
    "prediction_sensitivity",
    version=1,
    formula="largest |f(y) - f(x)| / |f(x)| of {n} copies y, f the {output} of the explained class; " + COPIES_DRAWN,
    direction="none",
    range=(0.0, None),
    source="HSE Def. 2.3; methods 4.8",
    cost="n F",
    judges="none",
)
def prediction_sensitivity(
    case: Case,
    *,
    n: Annotated[int, COPIES] = 50,
    radius: Annotated[float, RADIUS] = 0.1,
    ball: Annotated[str, BALL] = "linf",
    space: Annotated[str, SPACE] = "pixel",
    output: Annotated[str, OUTPUT] = "logit",
    seed: Annotated[int, SEED] = 0,
) -> Answers:
    """Largest relative change of the class's score among copies of the image with a little noise.

    max_i |f(x + u_i) - f(x)| / |f(x)|, over the copies of max_sensitivity; the detail `mean` is the mean over them. It
    is a fact about network and image, whatever the method. HSE Def. 2.3; methods 4.8. n passes forward.

    Raises:
        NoValue: the score is 0.
    """
    logits = yield from Pool(case, n, radius, ball, space, seed).logits()
    return _largest(_falls(case, logits, output))


@SCORES(
    "sensitivity_ratio",
    version=1,
    formula="(largest ||Phi(y) - Phi(x)|| / ||Phi(x)||) / (largest |f(y) - f(x)| / |f(x)|) of {n} copies y, L2 over "
    f"all entries, f the {{output}} of the explained class; {COPIES_DRAWN}; {OWN_DRAWS}",
    direction="lower",
    range=(0.0, None),
    source="HSE Prop. 2.1, Fig. 1; methods 4.8",
    cost="n x method + n F",
    judges="pool",
    floor="shuffle",
    reduce="none",
)
def sensitivity_ratio(
    case: Case,
    *,
    n: Annotated[int, COPIES] = 50,
    radius: Annotated[float, RADIUS] = 0.1,
    ball: Annotated[str, BALL] = "linf",
    space: Annotated[str, SPACE] = "pixel",
    output: Annotated[str, OUTPUT] = "logit",
    draws: Annotated[str, DRAWS] = "common",
    seed: Annotated[int, SEED] = 0,
) -> Answers:
    """How many times further the map moves than the class's score, both relative, at their furthest.

    R = S / P, S the max_sensitivity of definition yeh and P the prediction_sensitivity of the same copies. `witness` is
    the copy for which `quotient`, its own change of the map over its own change of the score, is largest; it is at
    least R (HSE Prop. 2.1), and null where that score did not change at all. `mean_ratio` is the ratio of the means.
    Methods 4.8. n times the method and n passes forward.

    Raises:
        NoValue: the map or the score is zero, or no copy changes the score.
    """
    pool = Pool(case, n, radius, ball, space, seed, draws)
    changes = yield from changes_of(pool, "yeh")
    logits = yield from pool.logits()
    falls = _falls(case, logits, output)
    if not any(falls):
        raise NoValue("the score does not change")
    quotients = [c / f if f else math.inf if c else 0.0 for c, f in zip(changes, falls, strict=True)]
    at = max(range(n), key=quotients.__getitem__)
    details = {
        "explanation": max(changes),
        "prediction": max(falls),
        "mean_ratio": fmean(changes) / fmean(falls),
        "witness": at,
        "quotient": quotients[at],
        "witness_explanation": changes[at],
        "witness_prediction": falls[at],
    }
    return Finding(max(changes) / max(falls), None, details)


@SCORES(
    "lipschitz",
    version=1,
    formula="largest ||Phi(y) - Phi(x)|| / ||y - x|| of {n} copies y, L2 over all entries, a lower bound of the local "
    "Lipschitz constant; Phi in the method's space, x and y in {space} units; "
    f"{COPIES_DRAWN}; {OWN_DRAWS}",
    direction="lower",
    range=(0.0, None),
    source="Alvarez-Melis and Jaakkola 2018; HSE Def. 2.4; science 1",
    cost="n x method",
    judges="pool",
    floor="shuffle",
    reduce="none",
)
def lipschitz(
    case: Case,
    *,
    n: Annotated[int, COPIES] = 50,
    radius: Annotated[float, RADIUS] = 0.1,
    ball: Annotated[str, BALL] = "linf",
    space: Annotated[str, SPACE] = "pixel",
    draws: Annotated[str, DRAWS] = "common",
    seed: Annotated[int, SEED] = 0,
) -> Answers:
    """Largest change of the map for each unit that the image moves.

    max_i ||Phi(x + u_i) - Phi(x)||_2 / ||u_i||_2, from the pool of max_sensitivity. For a gradient it is a lower bound
    of the largest curvature nearby, ||A|| for f = x'Ax/2. HSE Def. 2.4 with both distances L2; science 1. n times the
    method.

    Raises:
        NoValue: the radius is 0.
    """
    if radius == 0:
        raise NoValue("with radius 0 the image does not move")
    pool = Pool(case, n, radius, ball, space, seed, draws)
    changes = yield from changes_of(pool, "plain")
    return _largest([c / float(pool.moves(range(i, i + 1)).double().norm()) for i, c in enumerate(changes)])


@SCORES(
    "deviation",
    version=1,
    formula="D(smoothed, base), definition {definition} of D: hse both at unit length, yeh over the base's length, "
    "plain as it is, L2 over all entries; smoothed is the map and base the same call without its smoothing wrapper; "
    f"without one, smoothed is the mean map of {{n}} copies y and base the map; {COPIES_DRAWN}",
    direction="lower",
    range=(0.0, None),
    source="HSE eq. 2; science 5 (hse-radius)",
    cost="the base, or n x method",
    judges="map",
    floor="shuffle",
    reduce="none",
)
def deviation(
    case: Case,
    *,
    definition: Annotated[
        str,
        Param(
            "distance of two maps: hse: of both at unit length; yeh: over the base's length; plain: as it is",
            choices=("hse", "yeh", "plain"),
            source="HSE 4; science C-3",
        ),
    ] = "hse",
    n: Annotated[int, COPIES] = 50,
    radius: Annotated[float, RADIUS] = 0.1,
    ball: Annotated[str, BALL] = "linf",
    space: Annotated[str, SPACE] = "pixel",
    seed: Annotated[int, SEED] = 0,
) -> Answers:
    """How far smoothing takes a map from what it smooths.

    D(Phi', Phi), what HSE eq. 2 bounds by K: Phi' the map of a call with +smooth or +softplus, Phi that of the call
    without. For any other call Phi is its map and Phi' the mean over the pool of max_sensitivity, which is what +smooth
    would make of it. HSE eq. 2, 3. The base once, or n times the method.

    Raises:
        NoValue: a map is zero.
    """
    e = case.explainer
    rest = [(spec, p) for spec, p in e.wrappers if spec.name not in SMOOTHING]
    if len(rest) < len(e.wrappers):
        calls = [(e.spec, e.complete()), *((spec, spec.complete(p)) for spec, p in rest)]
        base, _ = yield Beside("+".join(write_expression(spec.name, p) for spec, p in calls))
        smoothed = case.map
    else:
        given_map(case)
        base, pool = case.map, Pool(case, n, radius, ball, space, seed)
        smoothed = (yield from pool.maps()).double().mean(0)
    return distances([smoothed], base, definition)[0]


def _falls(case: Case, logits: Tensor, output: str) -> list[float]:
    """The relative change of the target's score for each copy.

    Raises:
        NoValue: the score is 0.
    """
    clean = case.clean[output]
    if clean == 0:
        raise NoValue(f"the {output} is 0")
    wide = logits.double()
    scores = (wide if output == "logit" else wide.softmax(1))[:, case.target]
    return [abs(v - clean) / abs(clean) for v in scores.tolist()]


def _largest(values: list[float]) -> Finding:
    at = max(range(len(values)), key=values.__getitem__)
    return Finding(values[at], values, {"witness": at, "mean": fmean(values)})
