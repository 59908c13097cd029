"""Which of two knobs, or methods, matters more: only where images, ranges and the family of pairs agree (science 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from attrsens.engine.inference import FEWEST, Interval, holm
from attrsens.engine.inference.intervals import Floats
from attrsens.engine.knobs.bootstrap import EQUAL, FEW, by_mask, intervals, p_values, smooth
from attrsens.engine.knobs.effects import knob_effects
from attrsens.engine.knobs.profiles import Profile, effects_of, profiles
from attrsens.engine.knobs.results import KnobVerdict, MethodRank
from attrsens.engine.knobs.study import Cosines

LEVEL = 0.05
PARTS = ("effect", "full", "half")
Kind = Literal["knob_verdict", "method_verdict"]


def knob_verdicts(table: Cosines) -> list[KnobVerdict]:
    """For every pair of the table's knobs, by paired image bootstrap."""
    found = profiles(table)
    return _verdicts(table, [p.knob.name for p in found], found, "knob_verdict")


def method_verdicts(tables: Mapping[str, Cosines]) -> tuple[list[MethodRank], list[KnobVerdict]]:
    """Methods by the largest effect of their knobs, and verdicts on every pair by these, over the images that both
    have; the knob of each method is kept through the resamples."""
    ranks, chosen = [], []
    for name, table in tables.items():
        effects = knob_effects(table)
        best = max(
            (i for i, e in enumerate(effects) if e.effect is not None),
            key=lambda i: effects[i].effect or 0,
            default=None,
        )
        if best is None:
            ranks.append(MethodRank(name, reason="no effect of a knob is measured"))
            continue
        e = effects[best]
        ranks.append(MethodRank(name, None, e.knob, e.effect, e.ci95, e.n, reason=e.reason))
        chosen.append((name, table, profiles(table)[best]))
    ranks.sort(key=lambda r: (r.effect is None, -(r.effect or 0)))
    ranks = [replace(r, rank=None if r.effect is None else i + 1) for i, r in enumerate(ranks)]
    if len(chosen) < 2:
        return ranks, []
    joint, found = _join([t for _, t, _ in chosen], [p for _, _, p in chosen])
    return ranks, _verdicts(joint, [name for name, _, _ in chosen], found, "method_verdict")


def _verdicts(table: Cosines, names: Sequence[str], found: Sequence[Profile], kind: Kind) -> list[KnobVerdict]:
    every = list(combinations(range(len(found)), 2))
    pairs = [(i, j) for i, j in every if _difference(found[i], found[j], "effect") is not None]
    masks = [found[i].images & found[j].images for i, j in pairs]
    rows = [_Row([None] * 3, None, None, 0)] * len(pairs)
    for places in by_mask(masks).values():
        images, n = masks[places[0]], int(masks[places[0]].sum())
        if n == 0:
            continue
        weights = {k: [_difference(found[pairs[k][0]], found[pairs[k][1]], part) for part in PARTS] for k in places}
        for k in places:
            rows[k] = _Row([_value(table, images, w) for w in weights[k]], None, None, n)
        if n >= FEWEST:
            features, f = effects_of(table, np.stack([w for k in places if (w := weights[k][0]) is not None]))
            law = smooth(features[images], f)
            for k, interval, p in zip(places, intervals(law), p_values(law), strict=True):
                rows[k] = _Row(rows[k].values, interval, p, n)
    corrected = holm([row.p for row in rows])
    judged = {pair: (row, p) for pair, row, p in zip(pairs, rows, corrected, strict=True)}
    return [
        _judge(names[i], names[j], *judged[i, j], kind)
        if (i, j) in judged
        else _unmeasured(names[i], names[j], [names[k] for k in (i, j) if found[k].effect is None], kind)
        for i, j in every
    ]


@dataclass(frozen=True)
class _Row:
    """Differences of E and of both mean heights; the interval and p value of the first."""

    values: list[float | None]
    ci95: Interval | None
    p: float | None
    n: int


def _difference(a: Profile, b: Profile, part: str) -> Floats | None:
    left, right = getattr(a, part), getattr(b, part)
    return None if left is None or right is None else np.asarray(left - right, np.float64)


def _value(table: Cosines, images: NDArray[np.bool_], weights: Floats | None) -> float | None:
    if weights is None:
        return None
    features, f = effects_of(table, weights[None])
    return float(f(features[images].mean(0)[:, None])[0, 0])


def _judge(a: str, b: str, row: _Row, p_holm: float | None, kind: Kind) -> KnobVerdict:
    difference, full, half = row.values
    survives = None
    if difference is not None and full is not None and half is not None:
        survives = bool(np.sign(difference) == np.sign(full) == np.sign(half))
    more, reason = None, None
    verdict: str | None = "not separable"
    if difference is None:
        verdict, reason = None, "no image has the maps of both"
    elif p_holm is None:
        reason = FEW if row.n < FEWEST else EQUAL
    elif p_holm > LEVEL:
        reason = "the difference is within what other images could give"
    elif not survives:
        reason = "the order turns with the range"
    else:
        more, less = (a, b) if difference > 0 else (b, a)
        verdict = f"{more} matters more than {less}"
    return KnobVerdict(
        a, b, verdict, more, difference, row.ci95, row.p, p_holm, full, half, survives, row.n, reason=reason, kind=kind
    )


def _unmeasured(a: str, b: str, lacking: Sequence[str], kind: Kind) -> KnobVerdict:
    reason = f"the effect of {' and of '.join(lacking)} is not measured"
    return KnobVerdict(a, b, reason=reason, kind=kind)


def _join(tables: Sequence[Cosines], found: Sequence[Profile]) -> tuple[Cosines, list[Profile]]:
    """One table of all settings of several methods over all of their images, and the profiles in it."""
    images = tuple(dict.fromkeys(image for table in tables for image in table.images))
    row = {image: i for i, image in enumerate(images)}
    total = sum(len(table.settings) for table in tables)
    within, cross = np.full((len(images), total), np.nan), np.full((len(images), total), np.nan)
    homes, out = [], []
    start = 0
    for table, profile in zip(tables, found, strict=True):
        stop = start + len(table.settings)
        rows = [row[image] for image in table.images]
        within[rows, start:stop], cross[rows, start:stop] = table.within, table.cross
        homes.append(table.home + start)
        mask = np.zeros(len(images), bool)
        mask[rows] = profile.images
        effect, full, half = (_padded(part, start, total) for part in (profile.effect, profile.full, profile.half))
        out.append(replace(profile, images=mask, effect=effect, full=full, half=half))
        start = stop
    settings = tuple(s for table in tables for s in table.settings)
    home = np.concatenate(homes).astype(np.intp)
    return Cosines(settings, (), images, within, cross, home, ({},) * len(images), True), out


def _padded(weights: Floats | None, start: int, total: int) -> Floats | None:
    if weights is None:
        return None
    out = np.zeros(total)
    out[start : start + len(weights)] = weights
    return out
