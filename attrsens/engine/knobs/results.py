"""What is found of knobs: plain numbers for the report's `effects`, None with a reason where there is none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from attrsens.engine.inference.intervals import Interval
from attrsens.params import Value

SPACE = "cosine of signed maps of unit norm, of different draws, pooled over n images"
EFFECT = (
    "E = 1 - c*, c* = c / sqrt(r(t0) r(t)), c the cosine of maps at t0 and t, r of two maps at one setting; {step}; "
    f"{SPACE}; 0: the same expected map, 1: an unrelated one; interval: studentised bootstrap over images"
)
STEPS = {
    "ratio": "t one octave from t0, mean of halving and doubling, linear in octaves between measured settings",
    "bounded": "t 10 % of the admissible span from t0, mean of both ways, linear between measured settings",
    "nominal": "mean over the other choices",
}
SEED = f"E_seed = 1 - r(t0), r the cosine of two draws at t0; {SPACE}; 0: no draw, or draws without effect"
VERDICT = (
    "difference of the effects of a and b on the same images, p of its studentised bootstrap over images, Holm over "
    "the pairs; one matters more if p_holm <= 0.05 and both mean heights of 1 - c*, over the measured span and over "
    "its inner half (of switches E itself), are in the same order"
)
SHARE = (
    "total index (Jansen 1999) of map-valued outputs (Lamboni et al. 2011), within an image: E||m(x) - m(x')||^2 / 2 "
    "over the total variance, m the expected map, x' with another level of the knob alone; of the seed, the mean "
    "variance of draws over the total; four levels a knob over the practice range; maps of unit norm, products of "
    "different draws; numerators and denominators pooled over images; it follows the range"
)
SHIFT = (
    "D_i = score at t less score at t0 of image i, draws averaged, in units of the score; shift: mean of D_i, positive "
    "where t scores higher; within-image effect: mean of D_i^2 less the seed's variance of D_i, in squared units"
)


@dataclass(frozen=True)
class Point:
    """One setting of a knob, pooled over images.

    Attributes:
        position: octaves, or steps of 10 % of the span, from t0.
        r, r_low: cosine of two draws, and the lower end of its 95 % interval. r_ratio: r(t) / r(t0).
        c, g: cosine with t0, and sqrt(r(t0) r(t)). 1 - c = (1 - g) [draws] + g (1 - c_star) [knob].
        c_star, effect, ci95: c / g, 1 - c_star and its interval; None where r_low is below 0.1.
    """

    value: Value
    position: float | None
    r: float | None
    r_low: float | None
    r_ratio: float | None
    c: float | None
    g: float | None
    c_star: float | None
    effect: float | None
    ci95: Interval | None
    reason: str | None = None


@dataclass(frozen=True)
class Reach:
    """How far from t0 the effect reaches 0.1, in octaves or steps.

    Attributes:
        at: None where it is not reached among the measured settings.
        beyond: then, how far they reach.
    """

    at: float | None
    beyond: float | None
    text: str


@dataclass(frozen=True)
class KnobEffect:
    """E of a knob, with its profile.

    Attributes:
        down, up: the two sides; None where they are not measured or do not exist.
        full, half: mean height of the profile over the measured span, and over its inner half; of switches, E.
        tolerance: of the nearest side. points: by position.
        n, missing, reasons: images, those that lack a map of this knob, and why.
    """

    knob: str
    scale: str
    reference: Value
    effect: float | None
    ci95: Interval | None
    down: float | None
    up: float | None
    full: float | None
    half: float | None
    tolerance: Reach | None
    tolerance_down: Reach | None
    tolerance_up: Reach | None
    points: list[Point]
    n: int
    missing: int
    reasons: dict[str, int]
    definition: str
    reason: str | None = None
    group: dict[str, Any] = field(default_factory=dict)
    kind: Literal["knob_effect"] = "knob_effect"


@dataclass(frozen=True)
class SeedEffect:
    """E of the seed; exactly 0 for a method that does not draw."""

    effect: float | None
    ci95: Interval | None
    n: int
    missing: int
    reasons: dict[str, int]
    definition: str = SEED
    reason: str | None = None
    group: dict[str, Any] = field(default_factory=dict)
    kind: Literal["seed_effect"] = "seed_effect"


@dataclass(frozen=True)
class KnobVerdict:
    """Which of two knobs, or of two methods by their most effective knobs, matters more.

    Attributes:
        verdict: "NAME matters more than NAME", "not separable", or None where an effect is not measured.
        more: the name, if one does. difference, ci95: E_a - E_b. full, half: differences of the mean heights.
        order_survives: the sign of the difference is that of both.
    """

    a: str
    b: str
    verdict: str | None = None
    more: str | None = None
    difference: float | None = None
    ci95: Interval | None = None
    p: float | None = None
    p_holm: float | None = None
    full: float | None = None
    half: float | None = None
    order_survives: bool | None = None
    n: int = 0
    definition: str = VERDICT
    reason: str | None = None
    group: dict[str, Any] = field(default_factory=dict)
    kind: Literal["knob_verdict", "method_verdict"] = "knob_verdict"


@dataclass(frozen=True)
class MethodRank:
    """A method's most effective knob; rank 1 is the method whose effect is largest."""

    method: str
    rank: int | None = None
    knob: str | None = None
    effect: float | None = None
    ci95: Interval | None = None
    n: int = 0
    definition: str = "largest E of the method's knobs, as estimated (so slightly too large where several are close)"
    reason: str | None = None
    group: dict[str, Any] = field(default_factory=dict)
    kind: Literal["method_rank"] = "method_rank"


@dataclass(frozen=True)
class Share:
    """Share of variance of a knob, or of the seed.

    Attributes:
        share, ci95: over the practice ranges. halved, halved_ci95: by knob, the share if that knob's range is halved.
        range, source: the practice range or the choices, and where it comes from.
    """

    knob: str
    share: float | None
    ci95: Interval | None
    halved: dict[str, float | None]
    halved_ci95: dict[str, Interval | None]
    range: list[Value]
    source: str
    n: int
    missing: int
    reasons: dict[str, int]
    definition: str = SHARE
    reason: str | None = None
    group: dict[str, Any] = field(default_factory=dict)
    kind: Literal["share"] = "share"


@dataclass(frozen=True)
class ScoreEffect:
    """What a setting does to a scalar score.

    Attributes:
        shift, shift_ci95: mean of D_i. within, within_ci95: mean of D_i^2 less the seed's variance.
        seed_variance: what was taken off: the variance of D_i over draws, of the mean of the draws.
    """

    quantity: str
    knob: str
    value: Value
    n: int
    missing: int
    shift: float | None = None
    shift_ci95: Interval | None = None
    within: float | None = None
    within_ci95: Interval | None = None
    seed_variance: float | None = None
    definition: str = SHIFT
    reason: str | None = None
    group: dict[str, Any] = field(default_factory=dict)
    kind: Literal["score_effect"] = "score_effect"


@dataclass(frozen=True)
class Stability:
    """SAM's aggregations of a score over the values of a knob, t0 among them; standard deviations divide by the number
    of values, and `definitions` says what each is.

    Attributes:
        mean, mean_std, rms_std: 4.5. marginal, marginal_mean: 4.6, by model and over models.
        hidden, hidden_ci95: by model, mean standard deviation within an image less that of the dataset's means (what
            the means hide). n, missing: images of each model.
    """

    quantity: str
    knob: str
    mean: dict[str, float | None]
    mean_std: dict[str, float | None]
    rms_std: dict[str, float | None]
    marginal: dict[str, float | None]
    marginal_mean: float | None
    hidden: dict[str, float | None]
    hidden_ci95: dict[str, Interval | None]
    n: dict[str, int]
    missing: dict[str, int]
    definitions: dict[str, str]
    note: str
    group: dict[str, Any] = field(default_factory=dict)
    kind: Literal["stability"] = "stability"
