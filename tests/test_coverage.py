"""What docs/statistics.md says of intervals and tests holds, on fewer samples; every draw is seeded."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    sys.path.insert(0, str(DOCS))
    try:
        import simulations

        yield simulations
    finally:
        sys.path.remove(str(DOCS))


LAWS = {  # where the coverage of 50 images must lie: the page's value and three standard errors of 600 samples
    "normal": (0.92, 0.98),
    "lognormal, sigma 1": (0.90, 0.96),
    "lognormal, sigma 0.5": (0.92, 0.98),
    "bounded: beta(8, 2)": (0.92, 0.98),
    "bounded: beta(0.5, 5)": (0.92, 0.98),
    "bounded: beta(0.5, 0.5)": (0.92, 0.98),
    "0 on 70 %, else beta(2, 5)": (0.93, 0.99),
    "heavy tails: t(3)": (0.90, 0.96),
}


def law(script: ModuleType, name: str) -> object:
    return next(law for law in script.NUMBERS if law.name == name)


@pytest.mark.parametrize("name", LAWS)
def test_intervals_cover_what_they_say(script: ModuleType, name: str) -> None:
    low, high = LAWS[name]
    assert low < script.coverage(law(script, name), 50, trials=600, resamples=999)[0] < high


def test_students_and_bca_cover_less_on_skewed_data(script: ModuleType) -> None:
    skewed = law(script, "lognormal, sigma 1")
    ours = script.coverage(skewed, 50, trials=600, resamples=999)[0]
    assert all(ours > other + 0.01 for other in script.peers(skewed, 50, trials=600))


def test_the_peer_is_bca(script: ModuleType) -> None:
    data = np.random.default_rng(0).lognormal(size=(1, 30))
    expected = stats.bootstrap(data, np.mean, rng=np.random.default_rng(1), n_resamples=20_000).confidence_interval
    width = expected.high - expected.low
    np.testing.assert_allclose(script.bca(data, 20_000)[0], expected, atol=0.03 * width)


def test_laws_have_the_mean_and_spread_they_say(script: ModuleType) -> None:
    for one in script.NUMBERS:
        rows = np.concatenate(list(script.samples(one, 100, trials=2000)))
        assert abs(rows.mean() - one.mean) < 5 * one.sd / np.sqrt(rows.size)
        if one.name not in ("heavy tails: t(3)", "lognormal, sigma 1"):
            assert rows.std() == pytest.approx(one.sd, rel=0.02)


def test_0_1_data_are_covered(script: ModuleType) -> None:
    assert all(script.exact_wilson(share, n) > 0.92 for share in script.SHARES for n in (20, 50, 100))
    assert script.exact_wilson(0.5, 6) == pytest.approx(1 - 2 / 64)  # only none and all miss
    assert all(script.exact_pairs(*shares, 20) > 0.94 for shares in script.PAIRED)


def test_tests_do_not_find_what_is_not_there(script: ModuleType) -> None:
    for name in ("normal", "bounded: beta(8, 2)"):
        flips, intervals = script.false_positives(law(script, name), 50, trials=600, flips=999)
        assert 0.023 < flips < 0.08
        assert 0.023 < intervals < 0.08


def test_the_smallest_detectable_difference_is_found_as_often_as_said(script: ModuleType) -> None:
    assert 0.75 < script.power(law(script, "normal"), 50, trials=600, flips=999) < 0.85


def test_verdicts_err_as_rarely_as_said(script: ModuleType) -> None:
    normal = law(script, "normal")
    moved, equivalent, _ = script.verdicts(normal, 50, 0.5, 0.5, trials=600, resamples=999)
    assert 0 < moved < 0.045
    assert 0.02 < equivalent < 0.08
    moved, equivalent, _ = script.verdicts(normal, 50, 0.0, 0.5, trials=600, resamples=999)
    assert moved == 0
    assert equivalent > 0.88
    assert script.verdicts(normal, 50, 1.2, 0.5, trials=600, resamples=999)[0] > 0.97


def test_few_training_seeds_are_covered(script: ModuleType) -> None:
    apart = (1.0, 0.5, 0.5)
    assert 0.90 < script.seeds(3, apart, two=False, trials=400) < 0.98
    assert 0.92 < script.seeds(5, apart, two=True, trials=400) < 0.99
    assert script.plain(3, apart, trials=400) < 0.85


def test_the_page_is_the_scripts(script: ModuleType) -> None:
    written = (DOCS / "statistics.md").read_text(encoding="utf-8")
    fixed = re.split(r"\{\w+\}", script.TEXT)
    assert all(part in written for part in fixed)
    assert all(f"| {one.name} |" in written for one in script.NUMBERS)
    wilson = [[str(s), *(script.percent(script.exact_wilson(s, n)) for n in script.SIZES)] for s in script.SHARES]
    assert script.table(["share of 1", *(f"n = {n}" for n in script.SIZES)], wilson) in written
