"""What a study of knobs is made of: settings, one Gram matrix an image, and the cosines in them (science 2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from attrsens.engine.inference.intervals import Floats
from attrsens.params import Hyper, Scale, Value

UNIT_NORM = 1e-3  # how far a map's norm may be from 1
STEP = 0.1  # a step of a bounded knob, as a share of its span


@dataclass(frozen=True)
class Setting:
    """One value of one knob, every other knob at its reference.

    Attributes:
        knob: None for the reference setting t0 of all knobs.
        position: steps from t0, as `position` gives them; None for a switch, or where there is none.
    """

    knob: str | None
    value: Value
    position: float | None = None


@dataclass(frozen=True)
class Knob:
    """A hyperparameter that is varied.

    Attributes:
        lowest, highest: admissible positions, in steps from the reference; None without a bound.
    """

    name: str
    scale: Scale
    reference: Value
    lowest: float | None = None
    highest: float | None = None

    @classmethod
    def of(cls, hyper: Hyper, reference: Value | None = None) -> Knob:
        """The knob of a method's hyperparameter; without `reference`, the published one, else the default."""
        t0 = reference_of(hyper) if reference is None else reference
        ends = [None if end is None else position(hyper, t0, end) for end in ends_of(hyper)]
        return cls(hyper.name, hyper.param.scale, t0, *ends)


def reference_of(hyper: Hyper) -> Value:
    """The published reference of a hyperparameter, else its default."""
    return hyper.default if hyper.param.reference is None else hyper.param.reference


def position(hyper: Hyper, reference: Value, value: Value) -> float | None:
    """How many steps `value` is from the reference t0: log2(t / t0) octaves of a ratio knob, (t - t0) / (0.1 span) of a
    bounded one, whose span is from min to max, or `range` where one of them is missing. None for a nominal knob, a
    ratio to or of nothing, and a bounded knob without a span."""
    p = hyper.param
    if p.scale == "nominal" or isinstance(value, (str, bool)) or isinstance(reference, (str, bool)):
        return None
    if p.scale == "ratio":
        return math.log2(value / reference) if value > 0 and reference > 0 else None
    span = span_of(hyper)
    return (value - reference) / (STEP * span) if span else None


def ends_of(hyper: Hyper) -> tuple[float | None, float | None]:
    """Admissible values; an integer has no octaves below 1."""
    p = hyper.param
    whole = p.scale == "ratio" and hyper.type is int
    return (max(1, p.min or 1) if whole else p.min), p.max


def span_of(hyper: Hyper) -> float | None:
    """The admissible span of a bounded hyperparameter, where one end is missing that in use; None without either."""
    p = hyper.param
    ends = (p.min, p.max) if p.min is not None and p.max is not None else p.range
    return ends[1] - ends[0] if ends else None


@dataclass
class ImageGram:
    """The maps of one image, as inner products.

    Attributes:
        gram: (m, m) float64, of signed maps of unit norm; the row and column of a failed map are NaN, or absent.
        rows: (index into the settings, draw) of each row.
        reasons: by setting, why a map of it is missing.
    """

    image: str
    gram: NDArray[np.float64]
    rows: list[tuple[int, int]]
    reasons: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """Knobs of one method in one model.

    Attributes:
        settings: of one of them the knob is None: t0.
        draws: whether the method draws; if so, every setting needs two draws at least.
    """

    settings: Sequence[Setting]
    knobs: Sequence[Knob]
    grams: Sequence[ImageGram]
    draws: bool


@dataclass(frozen=True)
class Cosines:
    """Per image and setting, the mean cosine of different draws; n images, s settings.

    Attributes:
        within: r_i(t), of two draws of the setting, (n, s); 1 for a method that does not draw, NaN where maps lack.
        cross: c_i(t), of a draw of t0 and another of the setting, (n, s).
        home: of each setting, the index of its t0.
        reasons: of each image and setting without a number, why.
    """

    settings: tuple[Setting, ...]
    knobs: tuple[Knob, ...]
    images: tuple[str, ...]
    within: Floats
    cross: Floats
    home: NDArray[np.intp]
    reasons: tuple[Mapping[int, str], ...]
    draws: bool

    def complete(self, columns: Sequence[int]) -> NDArray[np.bool_]:
        """Which images have all of the settings, (n,)."""
        return np.asarray(np.isfinite(self.within[:, columns] + self.cross[:, columns]).all(1))

    def lost(self, columns: Sequence[int]) -> dict[str, int]:
        """Why images lack one of the settings, the first reason of each, counted."""
        counts: dict[str, int] = {}
        for reasons in self.reasons:
            first = next((reasons[c] for c in columns if c in reasons), None)
            if first is not None:
                counts[first] = counts.get(first, 0) + 1
        return counts


def cosines(study: Study) -> Cosines:
    """What the effects are made of, from all Gram matrices. An image has a setting if it has each draw of it that
    another image has; a setting that no image has is left out for all.

    Raises:
        ValueError: not one reference setting; an undeclared knob; two settings of one value, position or image; a
            matrix that does not fit its rows; a map whose norm is not 1; no image.
    """
    settings = tuple(study.settings)
    t0 = _check(settings, study)
    rows = sorted({row for g in study.grams for row in g.rows})
    index = {row: i for i, row in enumerate(rows)}
    owner, draw = np.asarray(rows, np.intp).reshape(-1, 2).T
    member = (owner == np.arange(len(settings))[:, None]).astype(np.float64)
    unlike = (draw[:, None] != draw) if study.draws else np.ones((len(rows), len(rows)), bool)
    pairs_within = ((member @ unlike) * member).sum(1)
    pairs_cross = member @ unlike[:, owner == t0].sum(1)
    n, s = len(study.grams), len(settings)
    within, cross = np.full((n, s), np.nan), np.full((n, s), np.nan)
    reasons: list[dict[int, str]] = []
    for i, g in enumerate(study.grams):
        gram, at, there = placed(g, index)
        absent = np.flatnonzero(member @ ~there > 0)
        known = (pairs_within > 0) & (pairs_cross > 0)
        products = np.zeros((len(rows), len(rows)))
        products[np.ix_(at, at)] = gram
        products *= unlike
        known[absent] = False
        within[i, known] = 1.0
        if study.draws:
            within[i, known] = ((member @ products) * member).sum(1)[known] / pairs_within[known]
        cross[i, known] = (member @ products[:, owner == t0].sum(1))[known] / pairs_cross[known]
        cross[i, t0] = within[i, t0]
        reasons.append({c: _why(g, settings[c], c, c in absent) for c in np.flatnonzero(~known).tolist()})
    images = tuple(g.image for g in study.grams)
    home = np.full(s, t0, np.intp)
    return Cosines(settings, tuple(study.knobs), images, within, cross, home, tuple(reasons), study.draws)


def placed(g: ImageGram, index: Mapping[tuple[int, int], int]) -> tuple[Floats, NDArray[np.intp], NDArray[np.bool_]]:
    """The matrix of the maps that are there, their places among all rows, and which of all rows are there."""
    gram = np.asarray(g.gram, np.float64)
    if gram.shape != (len(g.rows),) * 2 or len(set(g.rows)) < len(g.rows):
        raise ValueError(f"{g.image}: {len(g.rows)} different rows want a square matrix of that side, not {gram.shape}")
    whole = np.isfinite(np.diagonal(gram))
    gram = gram[np.ix_(whole, whole)]
    if not np.isfinite(gram).all() or (np.abs(np.diagonal(gram) - 1) > UNIT_NORM).any():
        raise ValueError(f"{g.image}: inner products of unit-norm maps are finite, and 1 on the diagonal")
    at = np.asarray([index[row] for row in g.rows], np.intp)[whole]
    there = np.zeros(len(index), bool)
    there[at] = True
    return gram, at, there


def _check(settings: Sequence[Setting], study: Study) -> int:
    places = [i for i, s in enumerate(settings) if s.knob is None]
    if len(places) != 1 or not study.grams:
        raise ValueError(f"a study has one reference setting, not {len(places)}, and an image")
    scales = {knob.name: knob.scale for knob in study.knobs}
    seen: set[tuple[str | None, object]] = set()
    for s in settings:
        if s.knob is not None and s.knob not in scales:
            raise ValueError(f"the knob {s.knob!r} is not declared")
        key = repr(s.value) if s.position is None else round(s.position, 9)
        if (s.knob, key) in seen or (s.knob is not None and s.position == 0):
            raise ValueError(f"{s.knob}={s.value}: two settings at one place")
        seen.add((s.knob, key))
    if len({g.image for g in study.grams}) < len(study.grams):
        raise ValueError("one Gram matrix an image")
    return places[0]


def _why(g: ImageGram, setting: Setting, column: int, absent: bool) -> str:
    if column in g.reasons:
        return g.reasons[column]
    name = "the reference" if setting.knob is None else f"{setting.knob}={setting.value}"
    return f"no map of {name}" if absent else f"fewer than two draws of {name}"
