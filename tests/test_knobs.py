"""Which knob matters, against models whose maps are known functions of their knobs, plus noise of a known size."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import pytest
from scipy import stats

from attrsens.engine.inference import paired
from attrsens.engine.knobs import (
    ImageGram,
    Knob,
    KnobEffect,
    PracticeRange,
    Scores,
    Setting,
    Study,
    cosines,
    knob_effects,
    knob_verdicts,
    krippendorff_alpha,
    method_verdicts,
    metric_agreement,
    position,
    radial_design,
    rank_stability,
    score_effect,
    seed_effect,
    specification_curves,
    stability,
    tau_b,
    variance_shares,
)
from attrsens.engine.knobs.bootstrap import intervals, p_values, smooth
from attrsens.engine.knobs.profiles import pooled, reaches
from attrsens.params import Hyper, Param, Value

T0 = Setting(None, "t0")
DIM = 400


def gram(maps: np.ndarray) -> np.ndarray:
    unit = maps / np.linalg.norm(maps, axis=1, keepdims=True)
    return unit @ unit.T


def study(
    angle: Callable[[Setting], float],
    settings: Sequence[Setting],
    knobs: Sequence[Knob],
    *,
    images: int = 30,
    noise: float | Callable[[Setting], float] = 0.0,
    draws: int = 2,
    spread: float = 0.3,
    seed: int = 0,
) -> Study:
    """Expected maps turn by an angle (times a number of each image around 1) in a plane of their image; draws add noise
    whose norm is `noise` times the map's."""
    rng = np.random.default_rng(seed)
    grams = []
    for i, scale in enumerate(rng.uniform(1 - spread, 1 + spread, images)):
        maps, rows = [], []
        for place, s in enumerate(settings):
            turn = 0.0 if s.knob is None else angle(s) * scale
            size = noise(s) if callable(noise) else noise
            for draw in range(draws):
                m = np.zeros(DIM)
                m[:2] = np.cos(turn), np.sin(turn)
                maps.append(m + size / np.sqrt(DIM) * rng.normal(size=DIM))
                rows.append((place, draw))
        grams.append(ImageGram(f"image{i}", gram(np.stack(maps)), rows))
    return Study(settings, knobs, grams, draws > 1)


def octaves(name: str, *positions: float) -> list[Setting]:
    return [Setting(name, float(2.0**p), p) for p in positions]


def effect_of(s: Study, name: str | None = None) -> KnobEffect:
    return next(e for e in knob_effects(cosines(s)) if name is None or e.knob == name)


RATIO = Knob("n", "ratio", 1.0)
BOTH = [T0, *octaves("n", -1, 1)]


# -- effects -------------------------------------------------------------------------------------------------------


def test_a_known_effect_is_within_its_interval() -> None:
    angles = {-1.0: 0.3, 1.0: 0.8}
    s = study(lambda t: angles[t.position or 0], BOTH, [RATIO], images=60, noise=0.7, draws=3)
    found = effect_of(s)
    u = np.random.default_rng(1).uniform(0.7, 1.3, 100_000)
    down, up = (1 - np.cos(angle * u).mean() for angle in (0.3, 0.8))
    assert found.ci95 is not None
    assert found.ci95[0] < (down + up) / 2 < found.ci95[1]
    assert found.effect == pytest.approx((down + up) / 2, abs=0.03)
    assert (found.down, found.up) == (pytest.approx(down, abs=0.03), pytest.approx(up, abs=0.03))
    assert (found.n, found.missing, found.reasons, found.reason) == (60, 0, {}, None)


def test_c_star_does_not_follow_the_noise_where_the_raw_cosine_does() -> None:
    stars, raws = [], []
    for n in (20, 50, 200):
        s = study(lambda t: 0.3, BOTH, [RATIO], images=60, noise=8 / np.sqrt(n), draws=8, spread=0)
        point = effect_of(s).points[1]
        stars.append(point.c_star)
        raws.append(point.c)
    assert stars == pytest.approx([np.cos(0.3)] * 3, abs=0.02)
    assert raws[0] == pytest.approx(np.cos(0.3) / (1 + 64 / 20), abs=0.02)
    assert raws[2] > 0.7


def test_the_change_is_split_into_draws_and_knob() -> None:
    s = study(lambda t: 0.6, BOTH, [RATIO], noise=lambda t: 0.5 if t.knob is None else 1.0)
    for p in effect_of(s).points:
        assert 1 - p.c == pytest.approx((1 - p.g) + p.g * (1 - p.c_star), abs=1e-12)
        assert p.r_ratio == pytest.approx((1 / 2) / (1 / 1.25), abs=0.05)


def test_the_seed_of_a_deterministic_method_is_exactly_0() -> None:
    table = cosines(study(lambda t: 0.5, BOTH, [RATIO], draws=1))
    assert seed_effect(table).effect == 0.0
    assert seed_effect(table).reason == "the method draws nothing"
    e = knob_effects(table)[0]
    assert e.points[0].r == e.points[0].g == 1.0
    assert e.effect == pytest.approx(e.points[0].effect, abs=1e-9)


def test_the_effect_of_the_seed_is_that_of_the_noise() -> None:
    found = seed_effect(cosines(study(lambda t: 0.5, BOTH, [RATIO], noise=0.5, images=60)))
    assert found.ci95 is not None
    assert found.ci95[0] < 1 - 1 / 1.25 < found.ci95[1]


def test_different_draws_are_compared_only() -> None:
    """The same draw at t0 and t shares its noise; the cosine of such a pair says nothing of the knob."""
    rng = np.random.default_rng(0)
    grams = []
    for i in range(10):
        noise = rng.normal(size=(2, DIM)) / np.sqrt(DIM)
        base = np.eye(DIM)[0]
        maps = np.stack([base + noise[a] for _ in range(2) for a in range(2)])
        grams.append(ImageGram(str(i), gram(maps), [(s, a) for s in range(2) for a in range(2)]))
    s = Study([T0, *octaves("n", 1)], [Knob("n", "ratio", 1.0, lowest=0.0)], grams, True)
    point = effect_of(s).points[0]
    assert point.c == pytest.approx(point.r)
    assert point.effect == pytest.approx(0, abs=1e-12)


def test_a_doubled_range_changes_no_effect() -> None:
    narrow, wide = (-1.0, 1.0), (-2.0, -1.0, 1.0, 2.0)
    found = []
    for positions in (narrow, wide):
        settings = [T0, *octaves("n", *positions)]
        found.append(effect_of(study(lambda t: 0.4 * (t.position or 0), settings, [RATIO], draws=1)))
    assert found[0].effect == pytest.approx(found[1].effect, abs=1e-12)
    assert found[0].ci95 == pytest.approx(found[1].ci95, abs=1e-9)
    assert found[1].full > found[0].full
    assert found[1].half == pytest.approx(found[0].full)


def test_an_octave_is_interpolated_through_t0_on_the_log_axis() -> None:
    settings = [T0, *octaves("n", -2, 0.5, 1.5)]
    e = effect_of(study(lambda t: 0.3 * abs(t.position or 0), settings, [RATIO], draws=1, spread=0))
    height = {p: 1 - np.cos(0.3 * p) for p in (2, 0.5, 1.5)}
    assert e.down == pytest.approx(height[2] / 2)
    assert e.up == pytest.approx((height[0.5] + height[1.5]) / 2)
    assert e.effect == pytest.approx((e.down + e.up) / 2)


def test_heights_are_means_of_the_interpolated_profile() -> None:
    settings = [T0, *octaves("n", -2, 0.5, 1.5)]
    e = effect_of(study(lambda t: 0.3 * abs(t.position or 0), settings, [RATIO], draws=1, spread=0))
    knots, heights = [-2, 0, 0.5, 1.5], [1 - np.cos(0.3 * p) for p in (2, 0, 0.5, 1.5)]
    for low, high, found in ((-2, 1.5, e.full), (-1, 0.75, e.half)):
        assert found == pytest.approx(np.interp(np.linspace(low, high, 100_001), knots, heights).mean(), rel=1e-4)


def test_what_is_not_bracketed_is_not_measured() -> None:
    settings = [T0, *octaves("n", -1, 0.8)]
    e = effect_of(study(lambda t: 0.5, settings, [RATIO]))
    assert (e.effect, e.ci95, e.up) == (None, None, None)
    assert e.reason == "not measured: one step up is not bracketed"
    assert e.down is not None
    assert e.full is not None


def test_a_side_that_does_not_exist_leaves_the_other() -> None:
    settings = [T0, *octaves("n", 1)]
    e = effect_of(study(lambda t: 0.5, settings, [Knob("n", "ratio", 1, lowest=0.0)]))
    assert e.effect == e.up
    assert e.down is None
    assert e.reason == "one step down is not admissible: the effect is that of the other side"


def test_bounded_and_nominal_knobs() -> None:
    settings = [
        T0,
        Setting("keep", 0.4, -1.0),
        Setting("keep", 0.6, 1.0),
        Setting("fill", "white"),
        Setting("fill", "grey"),
    ]
    angles = {0.4: 0.2, 0.6: 0.4, "white": 0.6, "grey": 0.8}
    knobs = [Knob("keep", "bounded", 0.5), Knob("fill", "nominal", "black")]
    keep, fill = knob_effects(cosines(study(lambda t: angles[t.value], settings, knobs, draws=1, spread=0)))
    assert keep.effect == pytest.approx(1 - (np.cos(0.2) + np.cos(0.4)) / 2)
    assert fill.effect == pytest.approx(1 - (np.cos(0.6) + np.cos(0.8)) / 2) == pytest.approx(fill.full)
    assert fill.tolerance is None
    assert "10 %" in keep.definition
    assert "choices" in fill.definition
    assert keep.reason == "the same on every image: no interval"


def test_noise_that_hides_the_map_is_refused() -> None:
    e = effect_of(study(lambda t: 0.3, BOTH, [RATIO], noise=lambda t: 8.0 if t.position == 1 else 0.3))
    down, up = e.points
    assert down.c_star is not None
    assert (up.c_star, up.effect, up.ci95) == (None, None, None)
    assert "draws hide the expected map" in up.reason
    assert "n=2.0" in up.reason
    assert e.effect is None
    assert e.down is not None
    assert "not bracketed" in e.reason
    everything = effect_of(study(lambda t: 0.3, BOTH, [RATIO], noise=lambda t: 0.3 if t.knob else 8.0))
    assert everything.effect is None
    assert "at t0" in everything.reason


def test_tolerances() -> None:
    nearest, down, up = reaches([-2.0, -1.0, 1.0, 2.0], [0.3, 0.05, 0.02, 0.04])
    assert down.at == pytest.approx(1.2) == pytest.approx(nearest.at)
    assert (up.at, up.beyond, up.text) == (None, 2.0, "> 2")
    assert reaches([-1.5, 2.3], [0.05, 0.01])[0].text == "> 1.5"
    assert reaches([2.3], [0.01])[0].text == "> 2.3"
    assert reaches([-2.0, 1.0], [0.2, 0.01])[0].at == 1.0
    doubt = reaches([-2.0, 0.5], [0.2, 0.01])[0]
    assert (doubt.at, doubt.text) == (None, "0.5 to 1")
    assert reaches([], []) == (None, None, None)


def test_few_images_have_no_interval() -> None:
    table = cosines(study(lambda t: 0.5, BOTH, [RATIO], images=5, noise=0.5))
    e, seed = knob_effects(table)[0], seed_effect(table)
    assert e.effect is not None
    assert seed.effect is not None
    assert (e.ci95, seed.ci95) == (None, None)
    assert e.reason == seed.reason == "fewer than 6 images: no interval"


def test_a_missing_map_takes_its_image_out_of_that_knob_only() -> None:
    settings = [*BOTH, *octaves("k", -1, 1)]
    s = study(lambda t: 0.5, settings, [RATIO, Knob("k", "ratio", 1.0)], noise=0.3)
    lost, cut, told = s.grams[0], s.grams[1], s.grams[2]
    lost.gram[2, :] = lost.gram[:, 2] = np.nan
    cut.gram, cut.rows = cut.gram[:-1, :-1], cut.rows[:-1]
    told.gram[4:6] = told.gram[:, 4:6] = np.nan
    told.reasons = {2: "out of memory"}
    n, k = knob_effects(cosines(s))
    assert (n.n, n.missing, n.reasons) == (28, 2, {"no map of n=0.5": 1, "out of memory": 1})
    assert (k.n, k.missing, k.reasons) == (29, 1, {"no map of k=2.0": 1})
    assert seed_effect(cosines(s)).n == 30
    (verdict,) = knob_verdicts(cosines(s))
    assert verdict.n == 27


def test_one_draw_of_a_method_that_draws_is_not_enough() -> None:
    s = study(lambda t: 0.5, BOTH, [RATIO], draws=1)
    e = effect_of(Study(s.settings, s.knobs, s.grams, draws=True))
    assert e.effect is None
    assert e.n == 0
    assert e.reason == "not measured: no image has all maps of the knob"
    assert e.reasons == {"fewer than two draws of the reference": 30}
    assert seed_effect(cosines(Study(s.settings, s.knobs, s.grams, draws=True))).effect is None


def test_what_is_no_study_is_refused() -> None:
    s = study(lambda t: 0.5, BOTH, [RATIO], images=2)
    for settings, knobs, grams, message in [
        (s.settings[1:], s.knobs, s.grams, "one reference"),
        (s.settings, [], s.grams, "not declared"),
        ([*s.settings, s.settings[1]], s.knobs, s.grams, "two settings"),
        (s.settings, s.knobs, [s.grams[0]] * 2, "one Gram"),
        (s.settings, s.knobs, [ImageGram("x", np.eye(3), [(0, 0)])], "square"),
        (s.settings, s.knobs, [ImageGram("x", 2 * np.eye(1), [(0, 0)])], "1 on the diagonal"),
    ]:
        with pytest.raises(ValueError, match=message):
            cosines(Study(settings, knobs, grams, True))


def population(rng: np.random.Generator, n: int, law: str) -> np.ndarray:
    """r(t0), r(t), r(t0) and c of images whose effects follow a law."""
    e = rng.beta(2, 5, n) if law == "beta" else np.minimum(rng.lognormal(-3, 1, n), 1)
    r0 = rng.beta(4, 3, n)
    r = r0 * rng.uniform(0.6, 1, n)
    return np.stack([r0, r, r0, np.sqrt(r0 * r) * (1 - e)], 1) + rng.normal(0, 0.02, (n, 4))


@pytest.mark.parametrize(("law", "n", "low"), [("beta", 20, 0.925), ("beta", 60, 0.925), ("lognormal", 20, 0.90)])
def test_intervals_of_an_effect_cover_what_they_say(law: str, n: int, low: float) -> None:
    rng = np.random.default_rng(n)

    def f(means: np.ndarray) -> np.ndarray:
        return pooled(means[:2], means[2:], np.zeros(2, int))[1:]

    truth = f(population(rng, 1_000_000, law).mean(0)[:, None])[0, 0]
    ends = [intervals(smooth(population(rng, n, law), f, resamples=599))[0] for _ in range(600)]
    assert low < np.mean([low <= truth <= high for low, high in ends]) < 0.98


def test_the_bootstrap_of_a_mean_is_that_of_the_package() -> None:
    data = np.random.default_rng(0).normal(0.3, 1, 40)
    law = smooth(data[:, None], lambda means: means, resamples=9999)
    found = paired(data.tolist(), [0.0] * 40)
    assert intervals(law)[0] == pytest.approx(found.ci95, rel=1e-6)
    assert p_values(law)[0] == pytest.approx(found.p, abs=0.02)
    assert intervals(smooth(np.ones((9, 1)), lambda means: means)) == [None]


def test_2000_images_take_seconds() -> None:
    rng = np.random.default_rng(0)
    names = "abcdef"
    settings = [T0, *itertools.chain.from_iterable(octaves(k, -2, -1, -0.5, 1, 2) for k in names)]
    m, n = len(settings), 2000
    angles = np.concatenate([[0.0], np.concatenate([np.abs([-2, -1, -0.5, 1, 2]) * 0.05 * (i + 1) for i in range(6)])])
    turn = np.repeat(angles, 2) * rng.uniform(0.5, 1.5, (n, 1))
    cos = np.cos(turn[:, :, None] - turn[:, None, :]) * 0.8
    cos[:, np.arange(2 * m), np.arange(2 * m)] = 1
    rows = [(i, d) for i in range(m) for d in range(2)]
    s = Study(
        settings, [Knob(k, "ratio", 1.0) for k in names], [ImageGram(str(i), c, rows) for i, c in enumerate(cos)], True
    )
    start = time.perf_counter()
    table = cosines(s)
    effects, verdicts = knob_effects(table), knob_verdicts(table)
    seconds = time.perf_counter() - start
    assert [e.effect for e in effects] == sorted(e.effect for e in effects)
    assert all(v.more == v.b for v in verdicts)
    assert seconds < 30


# -- verdicts ------------------------------------------------------------------------------------------------------


def two_knobs(a: Callable[[float], float], b: Callable[[float], float], **options: object) -> Study:
    settings = [T0, *octaves("a", -2, -1, 1, 2), *octaves("b", -2, -1, 1, 2)]
    angle = {"a": a, "b": b}
    knobs = [Knob("a", "ratio", 1.0), Knob("b", "ratio", 1.0)]
    return study(lambda t: angle[t.knob or ""](abs(t.position or 0)), settings, knobs, noise=0.3, **options)


def test_separable_knobs_get_a_verdict() -> None:
    (v,) = knob_verdicts(cosines(two_knobs(lambda p: 0.2 * p, lambda p: 0.5 * p)))
    assert v.verdict == "b matters more than a"
    assert v.more == "b"
    assert v.difference < 0
    assert v.ci95[1] < 0
    assert v.p_holm <= 0.05
    assert v.order_survives
    assert v.reason is None


def test_alike_knobs_are_not_separable() -> None:
    (v,) = knob_verdicts(cosines(two_knobs(lambda p: 0.4 * p, lambda p: 0.4 * p)))
    assert (v.verdict, v.more) == ("not separable", None)
    assert v.ci95[0] < 0 < v.ci95[1]


def test_an_order_that_turns_with_the_range_is_no_order() -> None:
    (v,) = knob_verdicts(cosines(two_knobs(lambda p: 0.5 if p == 1 else 0.55, lambda p: 0.3 if p == 1 else 1.5)))
    assert v.p_holm <= 0.05
    assert v.order_survives is False
    assert (v.verdict, v.reason) == ("not separable", "the order turns with the range")


def test_holm_is_over_the_pairs_that_are_measured() -> None:
    settings = [T0, *octaves("a", -1, 1), *octaves("b", -1, 1), *octaves("c", -1), Setting("d", "x")]
    knobs = [*(Knob(k, "ratio", 1.0) for k in "abc"), Knob("d", "nominal", "y")]
    angles = {"a": 0.2, "b": 0.4, "c": 0.4, "d": 0.4}
    found = {(v.a, v.b): v for v in knob_verdicts(cosines(study(lambda t: angles[t.knob], settings, knobs, noise=0.2)))}
    assert len(found) == 6
    assert found["a", "c"].verdict is None
    assert found["a", "c"].reason == "the effect of c is not measured"
    assert found["a", "b"].p_holm == pytest.approx(3 * found["a", "b"].p)
    assert found["a", "d"].more == "d"
    assert found["b", "d"].more is None


def test_methods_are_ranked_by_their_largest_effect() -> None:
    calm = two_knobs(lambda p: 0.05 * p, lambda p: 0.2 * p)
    wild = two_knobs(lambda p: 0.6 * p, lambda p: 0.2 * p, images=40, seed=1)
    mute = study(lambda t: 0.1, [T0, *octaves("n", -1)], [RATIO])
    ranks, (v,) = method_verdicts({name: cosines(s) for name, s in {"calm": calm, "mute": mute, "wild": wild}.items()})
    assert [(r.method, r.rank, r.knob) for r in ranks] == [("wild", 1, "a"), ("calm", 2, "b"), ("mute", None, None)]
    assert (v.a, v.b, v.more, v.n, v.kind) == ("calm", "wild", "wild", 30, "method_verdict")
    assert v.difference < 0


def test_few_images_give_no_verdict() -> None:
    (v,) = knob_verdicts(cosines(two_knobs(lambda p: 0.2 * p, lambda p: 0.5 * p, images=5)))
    assert (v.verdict, v.p, v.reason) == ("not separable", None, "fewer than 6 images: no interval")


# -- shares --------------------------------------------------------------------------------------------------------

A = PracticeRange("a", "ratio", 1.0, 16.0, source="made up")
B = PracticeRange("b", "bounded", 0.0, 1.0)
C = PracticeRange("c", "nominal", choices=("x", "y", "z"))


def cells(
    ranges: Sequence[PracticeRange],
    phases: Callable[[dict[str, Value]], np.ndarray],
    *,
    noise: float = 0.0,
    images: int = 60,
    bases: int = 4,
) -> list:
    """Maps are unit vectors of complex phases, one plane a phase; noise turns their share noise^2 into other planes."""
    rng = np.random.default_rng(0)
    designs = [radial_design(ranges, bases, image=str(i)) for i in range(images)]
    grams = []
    for i, d in enumerate(designs):
        maps, rows = [], []
        for c, values in enumerate(d.cells):
            for draw in range(2 if noise else 1):
                z = np.exp(1j * phases(values))
                m = np.concatenate([z.real, z.imag]) / np.sqrt(len(z))
                u = rng.normal(size=DIM) if noise else np.ones(1)
                maps.append(np.concatenate([np.sqrt(1 - noise**2) * m, noise * u / np.linalg.norm(u)]))
                rows.append((c, draw))
        grams.append(ImageGram(str(i), gram(np.stack(maps)), rows))
    return variance_shares(designs, grams, draws=noise > 0)


def coherence(r: PracticeRange, phase: Callable[[Value], float]) -> float:
    """|E exp(i phase)| over the levels."""
    return float(abs(np.mean([np.exp(1j * phase(v)) for v in r.levels()])))


def of_a(value: Value) -> float:
    return 0.5 * float(np.log2(value))


def of_b(value: Value) -> float:
    return 2.0 * float(value)


def of_c(value: Value) -> float:
    return {"x": 0.0, "y": 0.7, "z": 1.4}[str(value)]


def test_levels_are_midpoints_of_quarters() -> None:
    np.testing.assert_allclose(A.levels(), 2 ** np.array([0.5, 1.5, 2.5, 3.5]))
    assert B.levels() == (0.125, 0.375, 0.625, 0.875)
    assert PracticeRange("k", "bounded", 1, 3, integer=True).levels() == (1, 2, 2, 3)
    halved = PracticeRange("a", "ratio", 2.0, 8.0)  # the inner two are the midpoints of the halves of its half
    np.testing.assert_allclose(A.levels()[1:3], 2 * (8 / 2) ** np.array([0.25, 0.75]))
    assert halved.low == A.low * (A.high / A.low) ** 0.25


def test_designs_are_those_of_their_seed() -> None:
    d = radial_design([A, B, C], 5, seed=1, image="x")
    assert d == radial_design([A, B, C], 5, seed=1, image="x") != radial_design([A, B, C], 5, seed=1, image="y")
    assert len(d.cells) <= 5 * 4
    assert len({repr(c) for c in d.cells}) == len(d.cells)
    for base, new in zip(d.bases, d.replaced, strict=True):
        for k, cell in enumerate(new):
            apart = [name for name in "abc" if d.cells[base][name] != d.cells[cell][name]]
            assert apart == ["abc"[k]]


def test_additive_maps_have_their_shares() -> None:
    def phases(v: dict[str, Value]) -> np.ndarray:
        return np.array([of_a(v["a"]), of_b(v["b"]), of_c(v["c"])])

    parts = [1 - coherence(r, f) ** 2 for r, f in ((A, of_a), (B, of_b), (C, of_c))]
    *found, seed = cells([A, B, C], phases, noise=0.5)
    signal = 0.75 * sum(parts) / 3  # what is left of the squared norm, of which a third is in every plane
    noise = 0.25
    for share, part in zip(found, parts, strict=True):
        truth = 0.75 * part / 3 / (signal + noise)
        assert share.ci95[0] < truth < share.ci95[1]
        assert share.share == pytest.approx(truth, abs=0.05)
    assert seed.knob == "seed"
    assert seed.share == pytest.approx(noise / (signal + noise), abs=0.05)
    assert sum(s.share for s in found) + seed.share == pytest.approx(1, abs=0.1)


def test_interacting_maps_have_their_total_indices() -> None:
    def phases(v: dict[str, Value]) -> np.ndarray:
        return np.array([of_a(v["a"]) + of_b(v["b"])])

    a, b, seed = cells([A, B], phases, images=600)
    x, y = coherence(A, of_a) ** 2, coherence(B, of_b) ** 2
    assert a.share == pytest.approx((1 - x) / (1 - x * y), abs=0.03)
    assert b.share == pytest.approx((1 - y) / (1 - x * y), abs=0.03)
    assert a.share + b.share > 1.05
    assert seed.share == 0.0


def test_halved_ranges_come_from_the_same_cells() -> None:
    def phases(v: dict[str, Value]) -> np.ndarray:
        return np.array([of_a(v["a"]) + of_b(v["b"])])

    a, b, seed = cells([A, B], phases, images=600)
    y = coherence(B, of_b) ** 2
    x = abs(np.mean([np.exp(1j * of_a(v)) for v in A.levels()[1:3]])) ** 2
    assert a.halved["a"] == pytest.approx((1 - x) / (1 - x * y), abs=0.05)
    assert b.halved["a"] == pytest.approx((1 - y) / (1 - x * y), abs=0.05)
    assert a.halved["a"] < a.share
    assert a.halved_ci95["a"][0] < a.halved["a"] < a.halved_ci95["a"][1]
    assert set(a.halved) == set(seed.halved) == {"a", "b"}


def test_shares_follow_the_range() -> None:
    """A response that is linear in octaves, beside a knob whose variance is that of sqrt(32) octaves: w^2 / (w^2 + 32)
    over w octaves, .03 / .11 / .33 / .53, the table of the specification."""
    for w in (1, 2, 4, 6):
        r = PracticeRange("a", "ratio", 1.0, 2.0**w)

        def phases(v: dict[str, Value]) -> np.ndarray:
            return 0.05 * np.array([float(np.log2(v["a"])), np.sqrt(32) * float(v["b"])])

        a, b, _ = cells([r, B], phases, images=300)
        assert a.share == pytest.approx(w**2 / (w**2 + 32), abs=0.03)
        assert a.share + b.share == pytest.approx(1, abs=0.05)


def test_integers_that_are_one_value_make_no_difference() -> None:
    one = PracticeRange("k", "bounded", 0.9, 1.4, integer=True)
    k, b, _ = cells([one, B], lambda v: np.array([of_b(v["b"])]), images=10)
    assert k.share == pytest.approx(0, abs=1e-12)
    assert b.share == pytest.approx(1, abs=0.3)


def test_shares_that_cannot_be_told() -> None:
    still = cells([A, B], lambda v: np.zeros(1), images=8)
    assert all(s.share is None and s.reason == "all maps are the same" for s in still)
    few = cells([A, B], lambda v: np.array([of_a(v["a"])]), images=5)
    assert few[0].share is not None
    assert few[0].ci95 is None
    assert "fewer than 6" in few[0].reason
    design = radial_design([A], 2)
    maps = ImageGram("x", np.eye(len(design.cells) - 1), [(i, 0) for i in range(len(design.cells) - 1)])
    (lost, _) = variance_shares([design], [maps], draws=False)
    assert (lost.share, lost.n, lost.missing) == (None, 0, 1)
    assert "no map of a=" in next(iter(lost.reasons))
    with pytest.raises(ValueError, match="two choices"):
        radial_design([PracticeRange("c", "nominal", choices=("x",))])


# -- scores --------------------------------------------------------------------------------------------------------


def test_shift_and_effect_of_a_score() -> None:
    rng = np.random.default_rng(0)
    d = rng.normal(0.2, 0.5, 400)
    base = rng.normal(size=400)[:, None]
    t0, t = (base + m[:, None] + rng.normal(0, 0.8, (400, 4)) for m in (np.zeros(400), d))
    e = score_effect("deletion", "n", 100, t0, t)
    assert e.shift_ci95[0] < 0.2 < e.shift_ci95[1]
    assert e.within_ci95[0] < 0.2**2 + 0.5**2 < e.within_ci95[1]
    assert e.seed_variance == pytest.approx(2 * 0.8**2 / 4, rel=0.1)


def test_a_score_that_only_the_seed_moves_has_no_effect() -> None:
    rng = np.random.default_rng(1)
    e = score_effect("deletion", "n", 100, *(rng.normal(size=(400, 3)) for _ in range(2)))
    assert e.within_ci95[0] < 0 < e.within_ci95[1]


def test_scores_by_hand() -> None:
    e = score_effect("q", "n", 1, [[1.0], [2.0], [None]], [[2.0], [0.0], [1.0]], draws=False)
    assert (e.shift, e.within, e.seed_variance, e.n, e.missing) == (-0.5, 2.5, 0.0, 2, 1)
    one = score_effect("q", "n", 1, [[1.0]], [[2.0]])
    assert (one.shift, one.within) == (1.0, None)
    assert "one draw" in one.reason


def test_sams_aggregations_by_hand() -> None:
    scores = {"x": [[0.0, 2.0], [2.0, 0.0], [1.0, None]], "y": [[1.0, 3.0], [1.0, 1.0]]}
    s = stability("ssim", "n", scores)
    assert s.mean == {"x": 1.0, "y": 1.5}
    assert s.mean_std == {"x": 1.0, "y": 0.5}
    assert s.rms_std == {"x": 1.0, "y": pytest.approx(np.sqrt(0.5))}
    assert s.marginal == {"x": 0.0, "y": 0.5}
    assert s.marginal_mean == 0.25
    assert s.hidden == {"x": 1.0, "y": 0.0}
    assert s.hidden_ci95 == {"x": None, "y": None}
    assert (s.n, s.missing) == ({"x": 2, "y": 2}, {"x": 1, "y": 0})
    assert "1 / sqrt(n)" in s.note


def test_means_hide_what_images_show() -> None:
    rng = np.random.default_rng(0)
    s = stability("ssim", "n", {"x": rng.normal(size=(50, 5)).tolist()})
    assert 0 < s.hidden_ci95["x"][0] < s.hidden["x"] < s.hidden_ci95["x"][1]


# -- ranks ---------------------------------------------------------------------------------------------------------


def test_tau_is_scipys_with_ties() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = rng.integers(0, 4, (2, 9))
        assert tau_b(a, b) == pytest.approx(stats.kendalltau(a, b).statistic)
    assert tau_b([1, 1, 1], [1, 2, 3]) is None


def test_rankings_under_two_conventions() -> None:
    rng = np.random.default_rng(0)
    quality = np.arange(5.0)
    a = Scores("deletion", -(quality + rng.normal(0, 0.1, (20, 5))), "lower")
    b = Scores("insertion", quality + rng.normal(0, 3, (20, 5)), "higher")
    same, other = rank_stability(a, Scores("twin", a.values * 2, "lower")), rank_stability(a, b)
    assert [same.of_means, same.of_mean_ranks, same.per_image] == pytest.approx([1.0] * 3)
    assert same.ci95 is None
    assert 0 < other.ci95[0] < other.per_image < other.of_means
    flipped = rank_stability(a, Scores("wrong", a.values, "higher"))
    assert flipped.of_means == pytest.approx(-1)


def test_krippendorffs_own_example() -> None:
    """Krippendorff 2011, C and D: four observers, twelve units, missing data; interval metric: .849."""
    n = np.nan
    data = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, n, n, n],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, n, 3],
        [n, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, n],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, n],
    ]
    assert krippendorff_alpha(data) == pytest.approx(0.849, abs=5e-4)
    assert krippendorff_alpha([[1, 1], [1, 1]]) is None


def test_metrics_as_raters() -> None:
    rng = np.random.default_rng(0)
    quality = np.arange(4.0)
    names = ["p", "q", "r", "s"]

    def metric(name: str, noise: float, direction: str) -> Scores:
        return Scores(name, (quality + rng.normal(0, noise, (30, 4))) * (1 if direction == "higher" else -1), direction)

    agreed = metric_agreement([metric("a", 0.1, "higher"), metric("b", 0.1, "lower")], names)
    noisy = metric_agreement([metric("a", 50, "higher"), metric("b", 50, "lower"), metric("c", 50, "lower")], names)
    assert agreed.alpha > 0.95
    assert agreed.n == 30
    assert noisy.ci95[0] < 0 < noisy.ci95[1]
    gone = Scores("d", [[None] * 4] * 30, "higher")
    assert metric_agreement([gone, gone], names).reason == "no image is rated by two metrics"


def test_a_claim_holds_in_so_many_conventions() -> None:
    rng = np.random.default_rng(0)
    gaps = {"up": (1.0, "higher"), "down": (-1.0, "lower"), "against": (-1.0, "higher"), "unsure": (0.01, "higher")}
    conventions = [
        Scores(name, np.stack([gap + rng.normal(0, 0.5, 20), np.zeros(20)], 1), direction)
        for name, (gap, direction) in gaps.items()
    ]
    conventions.append(Scores("none", [[None, 1.0]] * 20, "higher"))
    (curve,) = specification_curves(conventions, ["sg", "grad"])
    assert (curve.of, curve.surely, curve.surely_not) == (4, 2, 1)
    assert curve.text == f"sg better than grad: holds in {curve.holds} of 4 conventions"
    assert [c.name for c in curve.conventions][3:] == ["against", "none"]
    assert curve.conventions[-1].better_by is None


# -- declarations and the report -----------------------------------------------------------------------------------


def hyper(kind: type, default: Value, **options: object) -> Hyper:
    return Hyper("k", kind, default, Param("", **options))


def test_positions_and_steps_of_declared_parameters() -> None:
    patch = hyper(int, 29, min=1, scale="ratio", reference=29)
    assert position(patch, 29, 58) == 1.0
    one = hyper(int, 1, min=1, scale="ratio")
    assert Knob.of(one).lowest == 0.0
    keep = hyper(float, 0.5, min=0, max=1, scale="bounded", range=(0.1, 0.9))
    assert position(keep, 0.5, 0.7) == pytest.approx(2)
    assert Knob.of(keep) == Knob("k", "bounded", 0.5, -5.0, 5.0)
    fill = hyper(str, "black", choices=("black", "white", "grey"))
    assert position(fill, "black", "white") is None
    assert position(hyper(float, 0.0, scale="ratio"), 0.0, 1.0) is None
    assert PracticeRange.of(keep) == PracticeRange("k", "bounded", 0.1, 0.9)
    assert PracticeRange.of(patch) is None


def test_results_are_plain_json() -> None:
    table = cosines(two_knobs(lambda p: 0.2 * p, lambda p: 0.5 * p))
    ranks, verdicts = method_verdicts({"x": table, "y": table})
    rng = np.random.default_rng(0)
    metrics = [Scores(name, rng.normal(size=(9, 3)), "higher") for name in "ab"]
    found = [
        *knob_effects(table),
        seed_effect(table),
        *knob_verdicts(table),
        *ranks,
        *verdicts,
        *cells([A, C], lambda v: np.array([of_a(v["a"])]), images=8),
        score_effect("q", "n", 1, rng.normal(size=(9, 2)), rng.normal(size=(9, 2))),
        stability("ssim", "n", {"x": rng.normal(size=(9, 3)).tolist()}),
        rank_stability(*metrics),
        metric_agreement(metrics, ["p", "q", "r"]),
        *specification_curves(metrics, ["p", "q", "r"]),
    ]
    rows = msgspec.json.decode(msgspec.json.encode(found))
    kinds = "knob_effect seed_effect knob_verdict method_rank method_verdict share score_effect stability"
    kinds += " rank_stability metric_agreement specification_curve"
    assert list(dict.fromkeys(row["kind"] for row in rows)) == kinds.split()
    assert all({"definition", "definitions"} & set(row) for row in rows)
    for one in {type(one): one for one in found}.values():
        assert msgspec.convert(msgspec.to_builtins(one), type(one)) == one


def test_the_same_study_gives_the_same_numbers() -> None:
    tables = [cosines(two_knobs(lambda p: 0.2 * p, lambda p: 0.5 * p)) for _ in range(2)]
    assert knob_effects(tables[0]) == knob_effects(tables[1])
    assert knob_verdicts(tables[0]) == knob_verdicts(tables[1])


# -- refusals ------------------------------------------------------------------------------------------------------


def reliable(values: Sequence[float]) -> Study:
    """Two settings whose draws have these cosines, image by image; draws of t0 and t agree alike."""
    grams = []
    for i, r in enumerate(values):
        products = np.full((4, 4), r)
        np.fill_diagonal(products, 1.0)
        grams.append(ImageGram(f"image{i}", products, [(0, 0), (0, 1), (1, 0), (1, 1)]))
    return Study([T0, Setting("n", 2.0, 1.0)], [RATIO], grams, True)


def test_an_effect_is_refused_by_the_lower_bound_of_r_not_by_its_estimate() -> None:
    sure = knob_effects(cosines(reliable([0.13, 0.14] * 6)))[0].points[0]
    unsure = knob_effects(cosines(reliable([0.02, 0.25] * 6)))[0].points[0]
    assert sure.r == unsure.r == pytest.approx(0.135)
    assert sure.c_star == pytest.approx(1)
    assert sure.r_low is not None
    assert sure.r_low > 0.1
    assert unsure.r_low is not None
    assert unsure.r_low < 0.1
    assert unsure.c_star is None
    assert "below 0.1" in (unsure.reason or "")


def test_where_the_lower_bound_of_r_is_below_a_tenth_nothing_is_said() -> None:
    for r, told in ((0.095, False), (0.105, True)):
        values = [r - 1e-4, r + 1e-4] * 6
        assert (knob_effects(cosines(reliable(values)))[0].points[0].c_star is not None) is told
