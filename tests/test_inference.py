"""Statistics against scipy, closed forms and enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from attrsens.engine.inference import (
    Studentised,
    claim,
    cluster_bootstrap,
    equivalence,
    holm,
    marginal,
    mean_interval,
    paired,
    rank_biserial,
    sign_flip_p,
    signed_rank_p,
    smallest_detectable,
    wilson,
    within_image,
)
from attrsens.engine.inference.intervals import difference_of_hits
from attrsens.engine.report import Comparison
from attrsens.engine.stats import Sample, comparisons, summary


def draws(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.3, 1, n)


# -- intervals -----------------------------------------------------------------------------------------------------


def test_the_bootstrap_is_that_of_its_definition() -> None:
    data = np.random.default_rng(1).lognormal(size=12)
    law = Studentised.of(data, resamples=99)
    picks = np.random.default_rng(0).integers(12, size=(99, 12))
    spreads = np.maximum(data[picks].std(1), data.std() / 4) / np.sqrt(11)
    t = np.sort((data[picks].mean(1) - data.mean()) / spreads)
    np.testing.assert_allclose(law.t[0], t, rtol=1e-9, atol=1e-12)
    error = stats.sem(data)
    assert law.interval(0.9) == pytest.approx((data.mean() - t[94] * error, data.mean() - t[4] * error))


def test_normal_data_get_students_interval() -> None:
    data = stats.norm.ppf((np.arange(400) + 0.5) / 400)
    student = stats.t.interval(0.95, 399, data.mean(), stats.sem(data))
    assert mean_interval(data) == pytest.approx(student, abs=0.03 * (student[1] - student[0]))


def test_skewed_data_get_a_longer_right_arm_than_bca() -> None:
    data = stats.lognorm.ppf((np.arange(50) + 0.5) / 50, 1)
    low, high = mean_interval(data)
    bca = stats.bootstrap((data,), np.mean, rng=np.random.default_rng(0)).confidence_interval
    assert high - data.mean() > 1.3 * (data.mean() - low)
    assert high > bca.high
    assert abs(low - bca.low) < 0.1 * (bca.high - bca.low)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
@pytest.mark.parametrize("offset", [0, 5])
def test_intervals_move_and_stretch_with_the_data(scale: float, offset: float) -> None:
    data = draws(15)
    low, high = mean_interval(data)
    assert mean_interval((data + offset) * scale) == pytest.approx(((low + offset) * scale, (high + offset) * scale))


def test_ties_and_rare_values_leave_the_interval_finite() -> None:
    rare = [0.0] * 40 + [0.7]
    low, high = mean_interval(rare)
    assert -0.02 < low < np.mean(rare) < high < 7 * np.mean(rare)


def test_0_1_data_get_wilsons_interval() -> None:
    for hits, n in ((3, 10), (10, 10), (0, 8)):
        expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson(hits, n) == pytest.approx((expected.low, expected.high))
        assert mean_interval([1.0] * hits + [0.0] * (n - hits), kind="hits") == wilson(hits, n)
    assert mean_interval([1] * 3 + [0] * 7) == wilson(3, 10)
    assert mean_interval([1] * 3 + [0] * 7, kind="numbers") != wilson(3, 10)


def test_no_interval_for_few_or_equal_numbers() -> None:
    assert mean_interval([1, 2, 3, 4, 5]) is None
    assert mean_interval([1, 2, 3, 4, 5, 6]) is not None
    assert mean_interval([0.1] * 9) is None
    assert mean_interval([1.0] * 9) is None
    with pytest.raises(ValueError, match="0 or 1"):
        mean_interval([0, 0.5, 1, 1, 1, 1], kind="hits")
    with pytest.raises(ValueError, match="finite"):
        mean_interval([1, 2, 3, np.nan, 5, 6])


def test_a_hit_rate_of_one_has_an_interval_and_another_constant_has_none() -> None:
    assert summary("pointing:tolerance=15", {}, [1.0] * 20).ci95 == wilson(20, 20)
    assert summary("ssim", {}, [1.0] * 20).ci95 is None
    assert summary("pointing", {}, [1.0, 0.5] * 10).ci95 == mean_interval([1.0, 0.5] * 10)


# -- tests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [6, 9, 12])
def test_sign_flips_are_enumerated(n: int) -> None:
    data = draws(n)
    every = np.array(list(itertools.product((1, -1), repeat=n))) @ data
    assert sign_flip_p(data) == np.mean(np.abs(every) >= abs(data.sum()) - 1e-12)
    scipys = stats.permutation_test((data, 0 * data), lambda a, b: np.mean(a - b), permutation_type="samples")
    assert sign_flip_p(data) == pytest.approx(scipys.pvalue)


def test_sign_flips_of_large_samples_are_drawn() -> None:
    data = draws(60)
    found = sign_flip_p(data)
    assert found == pytest.approx(stats.ttest_1samp(data, 0).pvalue, rel=0.15)
    assert (found * 100_000) == pytest.approx(round(found * 100_000))
    assert sign_flip_p(data + 5) == 1e-5
    assert sign_flip_p(data) == found


def test_drawn_and_enumerated_flips_agree() -> None:
    from attrsens.engine.inference.significance import sign_flips

    data = draws(14, 3)
    exact = sign_flip_p(data)
    assert abs(sign_flips(data[None])[0] - exact) < 4 * np.sqrt(exact * (1 - exact) / 99_999)


def test_zeros_and_ties_count_as_they_should() -> None:
    assert sign_flip_p([0.0] * 8) == 1
    assert sign_flip_p([1, 1, 1, 1, 1, 1]) == 2 / 2**6
    assert sign_flip_p([1, 1, 1, 1, 1, 1] + [0] * 30) == 2 / 2**6
    assert sign_flip_p([0.1, 0.2, -0.3, 0.1, 0.2, -0.3]) == 1  # all sums but for rounding are at least 0
    assert sign_flip_p([1, 2, 3, 4, 5]) is None
    for up, down in ((9, 2), (5, 5), (11, 0)):  # of 0/1 data it is McNemar's exact test
        assert sign_flip_p([1] * up + [-1] * down) == pytest.approx(stats.binomtest(up, up + down).pvalue)


@pytest.mark.parametrize("n", [6, 13, 20])
def test_ranks_are_wilcoxons(n: int) -> None:
    data = draws(n, 2)
    assert signed_rank_p(data) == pytest.approx(stats.wilcoxon(data, method="exact").pvalue)


def test_ranks_with_ties_and_zeros_are_pratts() -> None:
    data = np.array([0, 0, 1, 1, -1, 2, 3, 3, -2, 4, 5.0])
    scipys = stats.wilcoxon(data, zero_method="pratt", method=stats.PermutationMethod(n_resamples=np.inf))
    assert signed_rank_p(data) == pytest.approx(scipys.pvalue)
    many = draws(80) - 0.15
    assert signed_rank_p(many) == pytest.approx(stats.wilcoxon(many).pvalue, rel=0.1)
    assert signed_rank_p([1, 2, 3]) is None
    assert rank_biserial([1, 2, -3]) == 0
    assert rank_biserial([1, 2, 3, -4]) == pytest.approx(0.2)
    assert rank_biserial([0, 0]) is None


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([None, 0.02, None, 0.9, 0.5]) == [None, pytest.approx(0.06), None, 1.0, 1.0]
    assert holm([]) == []
    assert holm([None]) == [None]


def test_the_smallest_detectable_difference_is_found_with_80_percent_power() -> None:
    for n in (6, 34, 200):
        gap = smallest_detectable(2.0, n) / 2
        df, bound = n - 1, stats.t.ppf(0.975, n - 1)
        power = stats.nct.sf(bound, df, gap * np.sqrt(n)) + stats.nct.cdf(-bound, df, gap * np.sqrt(n))
        assert power == pytest.approx(0.8, abs=1e-6)
    assert 0.485 < smallest_detectable(1.0, 34) < 0.5 < smallest_detectable(1.0, 33)  # d = 0.5 needs 34 pairs (Cohen)
    assert smallest_detectable(1.0, 5) is None
    assert smallest_detectable(0.0, 50) is None
    assert smallest_detectable(1.0, 10_000) == pytest.approx((1.959964 + 0.841621) / 100, rel=1e-3)


# -- pairs ---------------------------------------------------------------------------------------------------------


def test_a_pair_in_closed_form() -> None:
    a, b = draws(30), draws(30, 5)
    found, d = paired(a, b), a - b
    assert found.difference == pytest.approx(d.mean())
    assert found.effect_size == pytest.approx(d.mean() / d.std(ddof=1))
    assert found.p == sign_flip_p(d)
    assert found.ci95 == mean_interval(d)
    assert found.smallest_detectable == smallest_detectable(d.std(ddof=1), 30)
    assert (found.n, found.missing, found.reasons) == (30, 0, {})
    back = paired(b, a)
    assert (back.difference, back.effect_size, back.p) == pytest.approx(
        (-found.difference, -found.effect_size, found.p)
    )
    ranked = paired(a, b, ranks=True)
    assert (ranked.p, ranked.effect_size) == (signed_rank_p(d), rank_biserial(d))
    assert "d_z" in found.definition
    assert "rank-biserial" in ranked.definition


def test_missing_values_go_in_pairs_and_are_counted() -> None:
    a = [1.0, None, 3.0, 4.0, 9.0, 6.0, 7.0, float("nan"), None, 1.5]
    b = [0.0, 1.0, 2.5, None, 5.0, 5.5, 6.0, 1.0, None, 1.0]
    found = paired(a, b, reasons=[None, "empty map", *[None] * 8])
    assert found.n == 6
    assert found.missing == 4
    assert found.reasons == {"empty map": 1, "no value in b": 1, "no value in a": 1, "no value in both": 1}
    np.testing.assert_allclose(found.differences, [1, 0.5, 4, 0.5, 1, 0.5])
    with pytest.raises(ValueError, match="not 2 and 1"):
        paired([1, 2], [1])
    with pytest.raises(ValueError, match="infinite"):
        paired([np.inf], [1])


def test_degenerate_pairs() -> None:
    same = paired(draws(8), draws(8))
    assert (same.difference, same.effect_size, same.p, same.ci95, same.smallest_detectable) == (0, 0, 1, None, None)
    shifted = paired(draws(8) + 0.1, draws(8))  # equal but for rounding
    assert shifted.difference == pytest.approx(0.1)
    assert (shifted.effect_size, shifted.ci95, shifted.smallest_detectable) == (None, None, None)
    assert shifted.p == 2 / 2**8
    x = draws(40)
    assert paired(x, x + 0.1 - 0.1).p == 1  # what rounding leaves is no difference
    few = paired([1, 2, 3], [0, 0, 1])
    assert (few.n, few.p, few.ci95) == (3, None, None)
    none = paired([None], [1])
    assert (none.n, none.difference, none.effect_size, none.p) == (0, None, None, None)


def test_pairs_of_hits_get_bonett_and_prices_interval() -> None:
    a = [1.0] * 20 + [0.0] * 20
    b = [1.0] * 12 + [0.0] * 8 + [1.0] * 3 + [0.0] * 17
    ours = paired(a, b).ci95
    up, down, n = 9 / 42, 4 / 42, 42  # 8 and 3 disagreements, one more each
    half = 1.959964 * np.sqrt((up + down - (up - down) ** 2) / n)
    assert ours == pytest.approx((up - down - half, up - down + half), abs=1e-6)
    assert difference_of_hits(np.ones(6))[1] == 1
    agreeing = paired(a, a).ci95
    assert agreeing[0] == -agreeing[1] < 0


def test_rows_of_a_table_are_corrected_together() -> None:
    images = [f"image {i}" for i in range(30)]
    groups = [
        Sample("ssim", {"model": name}, dict(zip(images, (draws(30, i) + shift).tolist(), strict=True)))
        for i, (name, shift) in enumerate([("x", 0.0), ("y", 0.6), ("z", 1.2)])
    ]
    groups[0].values["image 3"] = None
    groups[0].reasons["image 3"] = "flat map"
    del groups[1].values["image 4"]
    rows = comparisons(itertools.combinations(groups, 2))
    assert all(isinstance(row, Comparison) for row in rows)
    assert [(r.a["model"], r.b["model"]) for r in rows] == [("x", "y"), ("x", "z"), ("y", "z")]
    assert [row.p_holm for row in rows] == holm([row.p for row in rows])
    assert (rows[0].n, rows[0].missing, rows[0].reasons) == (28, 2, {"flat map": 1, "no value in b": 1})
    x, z = ([g.values[i] for i in images if i != "image 3"] for g in (groups[0], groups[2]))
    assert rows[1].difference == pytest.approx(np.mean(x) - np.mean(z))
    with pytest.raises(ValueError, match="two quantities"):
        comparisons([(groups[0], Sample("hog", {}, {}))])


# -- verdicts ------------------------------------------------------------------------------------------------------


def test_equivalence_is_two_one_sided_tests() -> None:
    data = draws(300) - 0.3
    for margin in (0.05, 0.1, 0.15, 0.3):
        found = equivalence(data, margin)
        above = stats.ttest_1samp(data, -margin, alternative="greater").pvalue
        below = stats.ttest_1samp(data, margin, alternative="less").pvalue
        assert found.p == pytest.approx(max(above, below), abs=0.01)
        assert (found.verdict == "equivalent") == (found.p <= 0.05)
        assert found.ci95[0] < found.ci90[0] < found.mean < found.ci90[1] < found.ci95[1]


@pytest.mark.parametrize(
    ("mean", "margin", "verdict", "differs"),
    [
        (0.0, 0.1, "equivalent", False),
        (0.05, 0.1, "equivalent", True),
        (0.3, 0.1, "moved", True),
        (-0.3, 0.1, "moved", True),
        (0.1, 0.1, "cannot tell", True),
        (0.0, 0.005, "cannot tell", False),
        (0.3, 0.0, "moved", True),
        (0.0, 0.0, "cannot tell", False),
    ],
)
def test_a_change_is_moved_equivalent_or_unknown(mean: float, margin: float, verdict: str, differs: bool) -> None:
    data = 0.1 * stats.norm.ppf((np.arange(100) + 0.5) / 100) + mean
    found = equivalence(data, margin)
    assert (found.verdict, found.differs) == (verdict, differs)
    assert bool(found.reason) == (verdict == "cannot tell")


def test_equivalence_of_degenerate_differences() -> None:
    unchanged = equivalence([0.0] * 10, 0.0)
    assert (unchanged.verdict, unchanged.ci90, unchanged.differs) == ("equivalent", (0, 0), False)
    assert equivalence([0.2] * 10, 0.1).verdict == "moved"
    assert equivalence([0.1] * 10, 0.1).verdict == "equivalent"
    few = equivalence([0.0, 0.0, None], 1)
    assert (few.verdict, few.n, few.missing, few.reason) == ("cannot tell", 2, 1, "fewer than six images")
    hits = equivalence([0.0] * 50, 0.1, hits=True)
    assert hits.verdict == "equivalent"
    assert hits.p < 0.05
    assert equivalence([0.0] * 20, 0.1, hits=True).verdict == "cannot tell"
    flips = equivalence([-1.0] * 30 + [0.0] * 20, 0.1, hits=True)
    assert flips.verdict == "moved"
    with pytest.raises(ValueError, match="margin"):
        equivalence([0.0] * 8, -1)
    with pytest.raises(ValueError, match="-1, 0 or 1"):
        equivalence([0.5] * 8, 1, hits=True)


@pytest.mark.parametrize(
    ("interval", "published", "verdict"),
    [
        ((0.1, 0.5), 0.3, "holds"),
        ((-0.5, -0.1), -0.3, "holds"),
        ((0.1, 0.5), 0.6, "in direction"),
        ((0.1, 0.5), 0.05, "in direction"),
        ((-0.5, -0.1), 0.3, "does not hold"),
        ((-0.1, 0.1), 0.3, "does not hold"),
        ((-0.2, 0.1), 0.3, "inconclusive"),
        ((-0.1, 0.2), 0.3, "inconclusive"),
        ((0.0, 0.5), 0.3, "inconclusive"),
        (None, 0.3, "cannot be tested here"),
    ],
)
def test_published_claims(interval: tuple[float, float] | None, published: float, verdict: str) -> None:
    assert claim(interval, published) == verdict


def test_claims_of_a_direction_alone() -> None:
    assert claim((0.1, 0.2), None, direction=1) == "in direction"
    assert claim((0.1, 0.2), None, direction=-1) == "does not hold"
    assert claim((-0.1, 0.2), None, direction=-1) == "inconclusive"
    with pytest.raises(ValueError, match="has a sign"):
        claim((0.1, 0.2), 0.0)
    with pytest.raises(ValueError, match="has a sign"):
        claim((0.1, 0.2), None)


# -- seeds and sweeps ----------------------------------------------------------------------------------------------


def test_seeds_are_the_unit_whatever_the_number_of_images() -> None:
    generator = np.random.default_rng(0)
    nets = generator.normal(0, 1, (4, 1)) + generator.normal(0, 0.1, (4, 2000))
    found = cluster_bootstrap(nets)
    means = nets.mean(1)
    student = stats.t.interval(0.95, 3, means.mean(), stats.sem(means))
    assert found.estimate == pytest.approx(nets.mean())
    assert found.ci95[1] - found.ci95[0] == pytest.approx(student[1] - student[0], rel=0.25)
    assert found.seed_difference == pytest.approx(np.mean([abs(a - b) for a, b in itertools.combinations(means, 2)]))
    assert found.beyond_seeds is None


def test_images_are_the_unit_where_seeds_agree() -> None:
    images = np.tile(draws(40), (5, 1))
    found = cluster_bootstrap(images)
    z = 1.959964 * stats.sem(images[0])
    assert found.ci95 == pytest.approx((images.mean() - z, images.mean() + z), abs=0.15 * z)
    assert found.seed_difference == 0


def test_two_regimes_differ_more_than_their_seeds_or_not() -> None:
    generator = np.random.default_rng(3)
    image = generator.normal(0, 1, (1, 50))

    def regime(mean: float, sd: float) -> np.ndarray:
        return mean + image + generator.normal(0, sd, (5, 1)) + generator.normal(0, 0.1, (5, 50))

    clear = cluster_bootstrap(regime(1, 0.1), regime(0, 0.1))
    assert clear.beyond_seeds is True
    assert clear.ci95[0] < 1 < clear.ci95[1]
    assert clear.ci95[1] - clear.ci95[0] < 0.6  # images are shared, so their spread is not in it
    unclear = cluster_bootstrap(regime(0.3, 1), regime(0, 1))
    assert unclear.beyond_seeds is False
    many = 0.8 * np.array([[1.0], [0.0]])[:, None] + np.tile(generator.normal(0, 1, (1, 30, 1)), (1, 1, 50))
    sure = cluster_bootstrap(*many)  # a difference in the mean, yet smaller than that of two seeds
    assert sure.ci95[0] > 0
    assert sure.beyond_seeds is False
    assert clear.seeds == (5, 5)


def test_skewed_seeds_of_the_second_regime_count_against_it() -> None:
    images = np.linspace(-0.01, 0.01, 8)
    skewed = np.asarray([0.0, 0.0, 0.0, 10.0])[:, None] + images
    low, high = cluster_bootstrap(np.zeros((4, 8)).tolist(), skewed.tolist()).ci95
    assert -2.5 - low > 1.3 * (high + 2.5)  # the long arm is on the side of the seed that stands out
    other, above = cluster_bootstrap(skewed.tolist(), np.zeros((4, 8)).tolist()).ci95
    assert (low, high) == pytest.approx((-above, -other), abs=0.2)


def test_too_few_seeds_or_images_have_no_interval() -> None:
    rows = draws(40).reshape(4, 10).tolist()
    assert cluster_bootstrap(rows[:2]).reason == "fewer than 3 training seeds"
    assert cluster_bootstrap(rows, rows[:1]).ci95 is None
    assert cluster_bootstrap([row[:5] for row in rows]).reason == "fewer than 6 images"
    assert cluster_bootstrap([[1.0] * 8] * 4).reason == "all numbers are equal"
    rows[1][2] = None
    found = cluster_bootstrap(rows)
    assert (found.n, found.missing) == (9, 1)
    assert found.estimate == pytest.approx(np.mean(np.delete(draws(40).reshape(4, 10), 2, 1)))
    nothing = cluster_bootstrap([[None]])
    assert (nothing.estimate, nothing.ci95) == (None, None)
    with pytest.raises(ValueError, match="one row a seed"):
        cluster_bootstrap([[1.0], [1.0, 2.0]])
    with pytest.raises(ValueError, match="same images"):
        cluster_bootstrap([[1.0]], [[1.0, 2.0]])


def test_sams_two_aggregations() -> None:
    scores = [[0.0, 2.0], [1.0, 5.0], [3.0, None]]
    found = within_image(scores)
    assert (found.mean, found.mean_std, found.rms_std) == (2, 1.5, pytest.approx(np.sqrt(2.5)))
    assert (found.n, found.missing) == (2, 1)
    np.testing.assert_array_equal(found.std, [1, 2])
    opposite = {"x": [[0.0, 2.0], [2.0, 0.0]], "y": [[0.0, 2.0], [0.0, 4.0]]}
    both = marginal(opposite)  # averages over images hide what each image does
    assert both.by_classifier == {"x": 0, "y": 1.5}
    assert both.std == 0.75
    assert within_image(opposite["x"]).mean_std == 1
    assert "1 / sqrt(n)" in both.note
    empty = marginal({"x": [[None, 1.0]], "y": [[1.0, 2.0]]})
    assert (empty.std, empty.by_classifier, empty.missing) == (None, {"x": None, "y": 0.5}, {"x": 1, "y": 0})
    assert within_image([]).mean is None
    with pytest.raises(ValueError, match="one score for every variant"):
        within_image([[1.0], [1.0, 2.0]])


def test_a_seeds_marginal_spread_falls_with_the_number_of_images() -> None:
    generator = np.random.default_rng(0)
    small, large = (
        np.mean([marginal({"x": generator.normal(size=(n, 5))}).std for _ in range(200)]) for n in (10, 160)
    )
    assert small / large == pytest.approx(4, rel=0.1)
