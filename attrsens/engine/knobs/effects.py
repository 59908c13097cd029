"""How much a knob and the seed change the map: E = 1 - c* one step away, and E_seed = 1 - r (science 2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attrsens.engine.inference import FEWEST, Interval, mean_interval
from attrsens.engine.inference.intervals import Floats
from attrsens.engine.knobs.bootstrap import ALIKE, EQUAL, FEW, by_mask, intervals, smooth
from attrsens.engine.knobs.profiles import NOBODY, Profile, effects_of, pooled, profiles, reaches
from attrsens.engine.knobs.results import EFFECT, STEPS, KnobEffect, Point, SeedEffect
from attrsens.engine.knobs.study import Cosines


def knob_effects(table: Cosines) -> list[KnobEffect]:
    """The effect of every declared knob, in their order; intervals by image bootstrap of a fixed seed."""
    found = profiles(table)
    ends: list[list[Interval | None]] = [[] for _ in found]
    for places in by_mask([p.images for p in found]).values():
        images = found[places[0]].images
        rows = [_weights(table, found[place]) for place in places]
        weights = np.concatenate(rows)
        if images.sum() < FEWEST or not len(weights):
            continue
        features, f = effects_of(table, weights)
        every = intervals(smooth(features[images], f))
        starts = np.cumsum([0, *(len(row) for row in rows)]).tolist()
        for place, start, stop in zip(places, starts[:-1], starts[1:], strict=True):
            ends[place] = every[start:stop]
    return [_effect(table, profile, own) for profile, own in zip(found, ends, strict=True)]


def _usable(profile: Profile) -> list[int]:
    return [i for i in profile.columns if i not in profile.refused] if profile.images.any() else []


def _weights(table: Cosines, profile: Profile) -> Floats:
    """E first, then the settings that have a c*."""
    units = np.eye(len(table.settings))[_usable(profile)]
    first = np.zeros(len(table.settings)) if profile.effect is None else profile.effect
    return np.concatenate([first[None], units])


def _effect(table: Cosines, profile: Profile, ends: Sequence[Interval | None]) -> KnobEffect:
    knob, n = profile.knob, int(profile.images.sum())
    within = table.within[profile.images].mean(0) if n else np.full(len(table.settings), np.nan)
    cross = table.cross[profile.images].mean(0) if n else within
    e = pooled(within[:, None], cross[:, None], table.home)[:, 0]
    known = _usable(profile)
    ci95 = dict(zip(known, ends[1:], strict=True)) if ends else {}
    order = sorted(profile.columns, key=lambda i: table.settings[i].position or 0.0)
    points = [_point(table, profile, i, within, cross, e, ci95.get(i)) for i in order]
    places = [(p, float(e[i])) for i in known if (p := table.settings[i].position) is not None]
    reach = reaches([p for p, _ in places], [h for _, h in places]) if knob.scale != "nominal" else (None, None, None)
    effect = _sum(profile.effect, e)
    interval = ends[0] if ends and effect is not None else None
    notes = [profile.reason] if profile.reason else []
    if effect is not None and interval is None:
        notes.append(FEW if n < FEWEST else EQUAL)
    t0 = [i for i, s in enumerate(table.settings) if s.knob is None]
    return KnobEffect(
        knob=knob.name,
        scale=knob.scale,
        reference=knob.reference,
        effect=effect,
        ci95=interval,
        down=_sum(profile.down, e),
        up=_sum(profile.up, e),
        full=_sum(profile.full, e),
        half=_sum(profile.half, e),
        tolerance=reach[0],
        tolerance_down=reach[1],
        tolerance_up=reach[2],
        points=points,
        n=n,
        missing=len(table.images) - n,
        reasons=table.lost([*t0, *profile.columns]),
        definition=EFFECT.format(step=STEPS[knob.scale]),
        reason="; ".join(notes) or None,
    )


def _point(
    table: Cosines, profile: Profile, i: int, within: Floats, cross: Floats, e: Floats, ci95: Interval | None
) -> Point:
    setting, r, r0 = table.settings[i], within[i], within[table.home[i]]
    measured = profile.images.any() and i not in profile.refused
    return Point(
        value=setting.value,
        position=setting.position,
        r=_number(r),
        r_low=_number(profile.r_low[i]),
        r_ratio=_number(r / r0) if r0 > 0 else None,
        c=_number(cross[i]),
        g=_number(np.sqrt(r0 * r)) if r0 > 0 and r > 0 else None,
        c_star=_number(1 - e[i]) if measured else None,
        effect=_number(e[i]) if measured else None,
        ci95=ci95,
        reason=profile.refused.get(i) or (None if profile.images.any() else NOBODY),
    )


def seed_effect(table: Cosines) -> SeedEffect:
    """1 - r(t0) over the images that have the draws of t0."""
    t0 = next(i for i, s in enumerate(table.settings) if s.knob is None)
    r = table.within[:, t0]
    r = r[np.isfinite(r)]
    n, missing, lost = len(r), len(table.images) - len(r), table.lost([t0])
    if n == 0:
        return SeedEffect(None, None, 0, missing, lost, reason="not measured: no image has a map of the reference")
    if not table.draws:
        return SeedEffect(0.0, None, n, missing, lost, reason="the method draws nothing")
    interval = mean_interval(1 - r, kind="numbers") if np.ptp(r) > ALIKE else None
    reason = None if interval else FEW if n < FEWEST else EQUAL
    return SeedEffect(float(1 - r.mean()), interval, n, missing, lost, reason=reason)


def _sum(weights: Floats | None, effects: Floats) -> float | None:
    return None if weights is None else float(np.where(weights != 0, weights * effects, 0.0).sum())


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
