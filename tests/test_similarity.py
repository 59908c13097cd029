"""Similarities against SciPy and scikit-image, against numbers that are known, and against themselves."""

from __future__ import annotations

import itertools
import os
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from skimage.feature import hog as skimage_hog
from skimage.metrics import structural_similarity
from toys import draw, small, uniform

import attrsens
from attrsens.errors import AttrsensError
from attrsens.seeds import Stream
from attrsens.similarity import _pairs, flat, places, structure, why_not
from attrsens.spec import SIMILARITIES

NAMES = "centre_shift cosine hog l1 l2 pearson sign_agreement spearman ssim topk_overlap".split()
FREE_OF_SCALE = [n for n in NAMES if n not in ("l1", "l2")]  # by their formulas; l1, l2 by their default scaling
IDEAL = {"centre_shift": 0.0, "l1": 0.0, "l2": 0.0}  # of a map and itself; else 1


def similarity(name: str, a: Any, b: Any = None, **parameters: object) -> np.ndarray:
    spec = SIMILARITIES[name]
    return spec.function(a, a if b is None else b, **spec.complete(parameters))


def normal(n: int, *shape: int, name: str = "maps") -> np.ndarray:
    return Stream(0, "", name).normal(range(n), shape)


def tied(n: int, side: int, cells: int = 7) -> np.ndarray:
    """Piecewise constant maps, as of lime: few values, some of them equal, some zero."""
    values = np.round(normal(n, cells, cells, name="tied") * 4) / 4
    size = -(-side // cells)
    return np.repeat(np.repeat(values, size, 1), size, 2)[:, :side, :side]


@pytest.fixture(scope="module")
def real() -> np.ndarray:
    """Maps of a network: gradients, smoothed gradients, a sliding patch, superpixels, at 16 x 16, magnified to 64."""
    f, x = small(), uniform(3, 16, 16, seed=3)
    found = []
    for method, more in (("grad", {}), ("sg", {"n": 4}), ("ig", {"steps": 4}), ("sp", {"patch_size": 5, "stride": 3})):
        spec = attrsens.METHODS[method]
        raw = attrsens.Explainer(f, spec, 0, spec.complete(more), image="real")(x)
        found.append(raw.mean(0) if raw.ndim == 3 else raw)
    return torch.nn.functional.interpolate(torch.stack(found)[:, None], 64, mode="bilinear")[:, 0].numpy()


@pytest.fixture(scope="module")
def maps(real: np.ndarray) -> np.ndarray:
    """Noise, noise of heavy tails, superpixels and a network's maps, all 64 x 64, of very unlike sizes."""
    heavy = np.stack(
        [normal(1, 64, 64, name=f"t{i}")[0] / np.abs(normal(1, 64, 64, name=f"u{i}")[0]) for i in range(2)]
    )
    sizes = np.float32([1, 1e-6, 1e4, 1, 1, 1e-3, 1, 1, 1, 1e5])[:, None, None]
    return np.concatenate([normal(2, 64, 64), heavy, tied(2, 64), real]).astype(np.float32) * sizes


def test_every_name_of_the_design_is_registered_and_says_what_it_is(maps: np.ndarray) -> None:
    assert list(SIMILARITIES) == NAMES
    for name in NAMES:
        spec = SIMILARITIES[name]
        text = spec.traits["formula"].format(**spec.complete())
        assert "{" not in text
        assert "\n" not in text
        assert spec.traits["direction"] == ("lower" if IDEAL.get(name) == 0.0 else "higher")
        low, high = spec.traits["range"]
        found = similarity(name, maps)
        assert low is None or found.min() >= low - 1e-12
        assert high is None or found.max() <= high + 1e-12
        assert spec.summary


# against others


def pairwise(function: Any, a: np.ndarray) -> np.ndarray:
    return np.array([[function(x, y) for y in a] for x in a])


def test_spearman_is_scipys(maps: np.ndarray) -> None:
    want = pairwise(lambda x, y: stats.spearmanr(x.ravel(), y.ravel()).statistic, maps)
    assert np.abs(similarity("spearman", maps) - want).max() < 1e-12


def test_pearson_is_scipys(maps: np.ndarray) -> None:
    want = pairwise(lambda x, y: stats.pearsonr(x.ravel(), y.ravel()).statistic, maps.astype(np.float64))
    assert np.abs(similarity("pearson", maps) - want).max() < 1e-12
    offset = normal(3, 64, 64) + np.float32(1000)  # the naive sum of squares loses every digit here
    want = pairwise(lambda x, y: stats.pearsonr(x.ravel(), y.ravel()).statistic, offset.astype(np.float64))
    assert np.abs(similarity("pearson", offset) - want).max() < 1e-12


@pytest.mark.parametrize("window", [3, 5, 7, 11])
def test_ssim_is_scikit_images(maps: np.ndarray, window: int) -> None:
    scaled = maps.astype(np.float64) / np.abs(maps.astype(np.float64)).max((1, 2), keepdims=True)
    want = pairwise(lambda x, y: structural_similarity(x, y, win_size=window, data_range=2.0), scaled)
    assert np.abs(similarity("ssim", maps, window=window) - want).max() < 1e-12


def test_ssim_on_shapes_and_ranges_of_all_sorts() -> None:
    for shape in ((28, 28), (5, 9), (9, 5), (33, 61), (224, 224), (21, 7)):
        a = np.concatenate([normal(2, *shape), np.full((1, *shape), 0.7, np.float32)])
        for scale, data_range in (("none", 1.0), ("none", 255.0), ("unit", 2.0)):
            wide = a.astype(np.float64)
            if scale == "unit":
                wide /= np.sqrt(np.square(wide).sum((1, 2), keepdims=True))
            want = pairwise(lambda x, y: structural_similarity(x, y, win_size=5, data_range=data_range), wide)  # noqa: B023
            got = similarity("ssim", a, scale=scale, data_range=data_range)
            assert np.abs(got - want).max() < 1e-12, (shape, scale)


def test_hog_is_scikit_images(maps: np.ndarray) -> None:
    def vector(x: np.ndarray, cell: int = 16) -> np.ndarray:
        x = x.astype(np.float64) / np.abs(x.astype(np.float64)).max()
        return skimage_hog(x, 9, (cell, cell), (3, 3), block_norm="L2-Hys")

    want = pairwise(lambda x, y: stats.pearsonr(vector(x), vector(y)).statistic, maps)
    assert np.abs(similarity("hog", maps) - want).max() < 1e-12
    assert vector(np.zeros((224, 224)) + np.eye(224)).size == 11664  # the length that methods.md gives
    for side, cell in ((28, 2), (32, 2), (47, 3), (48, 16)):
        a = normal(3, side, side)
        want = pairwise(lambda x, y: stats.pearsonr(vector(x, cell), vector(y, cell)).statistic, a)  # noqa: B023
        assert np.abs(similarity("hog", a) - want).max() < 1e-12, side


def test_distances_from_their_formulas(maps: np.ndarray) -> None:
    wide = maps.astype(np.float64).reshape(len(maps), -1)
    peak = np.abs(wide).max(1, keepdims=True)
    norm = np.sqrt(np.square(wide).sum(1, keepdims=True))
    high = np.percentile(np.abs(wide), 99.9, axis=1, keepdims=True)
    scaled = {"none": wide, "max": wide / peak, "unit": wide / norm, "p99.9": np.clip(wide / high, -1, 1)}
    for scale, m in scaled.items():
        l1, l2 = pairwise(lambda x, y: np.abs(x - y).sum(), m), pairwise(lambda x, y: np.linalg.norm(x - y), m)
        assert np.allclose(similarity("l1", maps, scale=scale), l1, rtol=1e-12, atol=1e-12)
        assert np.allclose(similarity("l1", maps, scale=scale, average=True), l1 / 4096, rtol=1e-12, atol=1e-15)
        assert np.allclose(similarity("l2", maps, scale=scale), l2, rtol=1e-12, atol=1e-12)
    cosine = pairwise(lambda x, y: x @ y, scaled["unit"])
    assert np.abs(similarity("cosine", maps) - cosine).max() < 1e-12
    # at unit norm, HSE's distance and the cosine are one thing; but no map of nearly equal ones loses its digits
    assert np.allclose(np.square(similarity("l2", maps)), 2 - 2 * cosine, atol=1e-12)
    near = np.stack([np.ones((64, 64)), np.ones((64, 64))])
    near[1, 0, 0] += 1e-9
    assert abs(similarity("l2", near, scale="none")[0, 1] / 1e-9 - 1) < 1e-6


def test_top_k_from_sorting(maps: np.ndarray) -> None:
    free = maps[[0, 1, 2, 3]]  # without ties

    def top(x: np.ndarray, k: int) -> set[int]:
        return set(np.argsort(np.abs(x.ravel()))[-k:].tolist())

    for k in (1, 50, 1000, 4096):
        want = pairwise(lambda x, y: len(top(x, k) & top(y, k)) / k, free)  # noqa: B023
        assert (similarity("topk_overlap", free, k=k) == want).all()

        def agree(x: np.ndarray, y: np.ndarray) -> float:
            both = np.array(sorted(top(x, k) & top(y, k)), int)  # noqa: B023
            return (np.sign(x.ravel()[both]) == np.sign(y.ravel()[both])).sum() / k  # noqa: B023

        assert (similarity("sign_agreement", free, k=k) == pairwise(agree, free)).all()
    for name in ("topk_overlap", "sign_agreement"):
        a = normal(2, 224, 224)
        assert similarity(name, a)[0, 1] == similarity(name, a, k=1000)[0, 1]
        assert similarity(name, a[:, :28, :28])[0, 1] == similarity(name, a[:, :28, :28], k=16)[0, 1]


def test_ties_belong_to_the_top_in_part() -> None:
    """Taking the first of the tied pixels would make maps agree on pixels that neither of them prefers."""
    a, b = np.zeros((2, 1, 4, 10), np.float32)
    a[0, 0], b[0, 1] = 1, 1  # ten pixels each, disjoint; k takes fifteen, five of thirty zeros: a sixth of each
    # pixels on top of one map have weight 1 there and 1/6 in the other: 20 / 6; of the other 20, 1/6 in both
    assert similarity("topk_overlap", a, b, k=15)[0, 0] == pytest.approx((20 / 6 + 20 / 6) / 15)
    assert similarity("topk_overlap", a, b, k=5)[0, 0] == 0
    half = np.zeros((1, 4, 10), np.float32)
    half[0, 0, :4] = 1
    assert similarity("topk_overlap", a, half, k=2)[0, 0] == pytest.approx(4 * 0.2 / 2)
    assert similarity("topk_overlap", half, a, k=2)[0, 0] == pytest.approx(4 * 0.2 / 2)
    # signs: a top pixel of one map is zero in the other; only where both are zero do they agree
    assert similarity("sign_agreement", a, b, k=15)[0, 0] == pytest.approx((20 / 6) / 15)
    assert similarity("sign_agreement", a, -a, k=10)[0, 0] == 0
    lime = tied(4, 64)
    for name in ("topk_overlap", "sign_agreement"):
        assert np.allclose(np.diag(similarity(name, lime, k=300)), 1, atol=1e-12)
        turned = similarity(name, lime[:, ::-1, ::-1].copy(), k=300)  # the order of the pixels does not matter
        assert np.allclose(turned, similarity(name, lime, k=300), atol=1e-12)


def test_centre_shift_of_known_centres() -> None:
    a = np.zeros((3, 9, 20), np.float32)
    a[0, 1, 2] = 5
    a[1, 4, 6] = -2  # signs do not matter
    a[2, 1, 2], a[2, 1, 4] = 1, -3  # at column 3.5; a signed centre would be at 5
    want = [[0, 5, 1.5], [5, 0, np.hypot(3, 2.5)], [1.5, np.hypot(3, 2.5), 0]]
    assert np.allclose(similarity("centre_shift", a), want, atol=1e-12)
    assert SIMILARITIES["centre_shift"].traits["unit"] == "px"


@pytest.mark.parametrize("name", NAMES)
def test_channels(name: str) -> None:
    a = normal(3, 3, 50, 52)
    found = similarity(name, a)
    assert found.shape == (3, 3)
    if name in ("hog", "ssim"):
        want = similarity(name, a.astype(np.float64).mean(1))
    elif name in ("topk_overlap", "centre_shift"):
        want = similarity(name, np.abs(a.astype(np.float64)).sum(1))
    else:
        want = similarity(name, a.reshape(3, 150, 52))
    assert np.allclose(found, want, atol=1e-12)
    one = normal(3, 1, 50, 52)
    assert np.allclose(similarity(name, one), similarity(name, one[:, 0]), atol=1e-12)


# what does not exist


@pytest.mark.parametrize("name", NAMES)
def test_a_number_that_does_not_exist_is_nan_and_has_a_reason(name: str) -> None:
    a = normal(6, 64, 64)
    a[1] = 0
    a[2] = 3
    a[3, 0, 0] = np.nan
    a[4, 5, 5] = np.inf
    b = normal(2, 64, 64, name="others")
    b[1] = 0
    found, reasons, others = similarity(name, a, b), why_not(name, a), why_not(name, b)
    want = np.array([[bool(x or y) for y in others] for x in reasons])
    assert (np.isnan(found) == want).all()
    assert (np.isnan(similarity(name, a)) == [[bool(x or y) for y in reasons] for x in reasons]).all()
    assert reasons[0] is reasons[5] is others[0] is None
    assert reasons[3] == reasons[4] == "the map is not finite"
    zero, flat = {
        "spearman": ("the map is constant", "the map is constant"),
        "pearson": ("the map is constant", "the map is constant"),
        "hog": ("the map is zero everywhere", "the map has no gradients to make histograms of"),
    }.get(name, ("the map is zero everywhere", None))
    assert (reasons[1], reasons[2], others[1]) == (zero, flat, zero)


def test_reasons_that_depend_on_parameters() -> None:
    tiny, sparse = normal(1, 4, 4), np.zeros((1, 64, 64), np.float32)
    sparse[0, :2, 0] = 1
    cases: list[tuple[str, np.ndarray, dict[str, object], str]] = [
        ("ssim", tiny, {}, "the map, 4 x 4, is smaller than the window of 5"),
        ("hog", tiny, {}, "the map, 4 x 4, is smaller than 3 cells of 2 pixels"),
        ("hog", normal(1, 64, 64), {"cell": 30}, "the map, 64 x 64, is smaller than 3 cells of 30 pixels"),
        ("topk_overlap", tiny, {"k": 17}, "k = 17, and the map has 16 pixels"),
        ("sign_agreement", tiny, {"k": 17}, "k = 17, and the map has 16 entries"),
        ("l1", sparse, {"scale": "p99.9"}, "more than 99.9 % of the map is zero, which leaves nothing to scale by"),
    ]
    for name, a, parameters, reason in cases:
        assert why_not(name, a, **parameters) == [reason]
        assert np.isnan(similarity(name, a, **parameters)).all()
    for name in ("l1", "l2", "ssim"):  # unscaled, a map of zeros can be compared
        assert why_not(name, np.zeros((1, 64, 64)), scale="none") == [None]
        assert similarity(name, np.zeros((1, 64, 64)), scale="none")[0, 0] == IDEAL.get(name, 1.0)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(AttrsensError, match=r"maps of shapes \(8, 8\) and \(9, 8\) cannot be compared"):
        similarity("l1", normal(2, 8, 8), normal(2, 9, 8))


@pytest.mark.parametrize("name", NAMES)
def test_no_map_no_number(name: str) -> None:
    none, some = np.zeros((0, 64, 64), np.float32), normal(2, 64, 64)
    assert similarity(name, none, some).shape == (0, 2)
    assert similarity(name, some, none).shape == (2, 0)
    assert similarity(name, none).shape == (0, 0)


# against themselves


@pytest.mark.parametrize("name", NAMES)
def test_a_map_and_itself(name: str, maps: np.ndarray) -> None:
    found = similarity(name, maps)
    assert np.abs(np.diag(found) - IDEAL.get(name, 1.0)).max() < 1e-12
    assert (found == found.T).all()
    if name in ("ssim", "spearman", "l1", "l2"):
        assert (np.diag(found) == IDEAL.get(name, 1.0)).all()


@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_maps_in_any_order_gives_the_same(name: str, maps: np.ndarray) -> None:
    whole = similarity(name, maps)
    bar = 1e-12 * max(1.0, np.abs(whole).max())
    order = [7, 2, 9, 0, 4, 1, 8, 3, 6, 5]
    assert np.abs(similarity(name, maps[order]) - whole[order][:, order]).max() <= bar
    assert np.abs(similarity(name, maps, maps.copy()) - whole).max() <= bar
    assert np.abs(similarity(name, maps[:7], maps[3:]) - whole[:7, 3:]).max() <= bar
    assert np.abs(similarity(name, maps[:3], maps[2:]) - whole[:3, 2:]).max() <= bar
    for i, j in itertools.combinations(range(0, 10, 3), 2):
        assert np.abs(similarity(name, maps[i : i + 1], maps[j : j + 1])[0, 0] - whole[i, j]) <= bar


@pytest.mark.parametrize("name", NAMES)
def test_two_runs_and_one_thread_are_equal_to_the_bit(name: str, maps: np.ndarray) -> None:
    first = similarity(name, maps)
    before = maps.copy()
    assert (similarity(name, maps) == first).all()
    assert (maps == before).all()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = similarity(name, maps)
        torch.set_num_threads(3)
        three = similarity(name, maps)
    finally:
        torch.set_num_threads(threads)
    bar = 1e-12 * np.abs(first).max() if name in ("pearson", "cosine", "hog") else 0  # products of matrices
    assert np.abs(one - first).max() <= bar
    assert np.abs(three - first).max() <= bar


@pytest.mark.parametrize("name", NAMES)
def test_blocks_that_bound_the_memory_change_nothing(
    name: str, maps: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cross = similarity(name, maps), similarity(name, maps[:4], maps[3:])
    seen = []
    prepare = _pairs.take

    def take(part: np.ndarray, plane: bool = False) -> Any:
        seen.append(len(part))
        return prepare(part, plane)

    monkeypatch.setattr(_pairs, "BLOCK", 12 * 64 * 64 * 8)
    for module in (flat, places, structure):
        monkeypatch.setattr(module, "take", take)
    blocked = similarity(name, np.concatenate([maps, maps]))
    assert max(seen) == (3 if name == "ssim" else 12)
    bar = 1e-12 * np.abs(whole).max()
    assert np.abs(blocked - np.tile(whole, (2, 2))).max() <= bar
    assert (blocked == blocked.T).all()
    assert np.abs(similarity(name, maps[:4], maps[3:]) - cross).max() <= bar


@pytest.mark.parametrize("name", NAMES)
def test_single_and_double_precision_of_the_same_numbers(name: str, maps: np.ndarray) -> None:
    assert (similarity(name, maps) == similarity(name, maps.astype(np.float64))).all()
    assert similarity(name, maps).dtype == np.float64


@pytest.mark.parametrize("name", NAMES)
def test_the_size_of_a_map_does_not_matter(name: str, maps: np.ndarray) -> None:
    sizes = np.array([3, 1e-4, 7, 1e5, 0.1, 2, 1e-7, 1, 30, 1e3])[:, None, None]
    wide = maps.astype(np.float64)
    whole = similarity(name, wide)
    assert np.abs(similarity(name, wide * sizes) - whole).max() <= 1e-10 * max(1.0, np.abs(whole).max())
    for size in (1e-200, 1e200):  # whose squares are no numbers
        assert np.allclose(similarity(name, wide, wide * size), whole, rtol=1e-10, atol=1e-12)
    if name in ("l1", "l2", "ssim"):
        unscaled = similarity(name, wide, scale="none")
        assert np.abs(similarity(name, wide * sizes, scale="none") - unscaled).max() > 0.01


def test_the_sign_of_a_map() -> None:
    a = normal(4, 64, 64)
    for name in ("spearman", "pearson", "cosine"):
        assert np.allclose(similarity(name, a, -a), -similarity(name, a), atol=1e-12)
    for name in ("topk_overlap", "centre_shift"):
        assert np.allclose(similarity(name, a, -a), similarity(name, a), atol=1e-12)


def test_ranks_know_no_monotone_transform(maps: np.ndarray) -> None:
    a = np.concatenate([maps[:1], maps[4:6]]).astype(np.float64)  # noise and ties
    assert (similarity("spearman", a, np.exp(2 * a) - 7) == similarity("spearman", a)).all()
    assert (similarity("spearman", a, -np.arctan(a)) == -similarity("spearman", a)).all()
    assert np.abs(similarity("pearson", a, np.exp(2 * a) - 7) - similarity("pearson", a)).max() > 0.05
    assert np.allclose(similarity("pearson", a, 5 * a + 3), similarity("pearson", a), atol=1e-12)


def test_ranks_do_not_tell_zero_from_minus_zero() -> None:
    a = tied(2, 32)
    b = np.where(a == 0, -0.0, a).astype(np.float32)
    assert (b == 0).any()
    assert (similarity("spearman", a, b) == similarity("spearman", a)).all()


# what independent maps give


def test_chance_of_ssim_is_the_maps_own() -> None:
    """Science C-1: .007 for Gaussian maps, .60 for t with 3 degrees of freedom, .93 with 2; a shuffle finds it."""
    normals = normal(30, 224, 224, name="chance")

    def student(degrees: int) -> np.ndarray:
        return np.stack(
            [
                normals[i] / np.sqrt(np.square(normal(degrees, 224, 224, name=f"{degrees} {i}")).mean(0))
                for i in range(6)
            ]
        )

    apart = ~np.eye(6, dtype=bool)
    for a, chance, tolerance in ((normals[:6], 0.007, 0.002), (student(3), 0.60, 0.12), (student(2), 0.93, 0.05)):
        found = similarity("ssim", a)[apart].mean()
        assert abs(found - chance) < tolerance
        shuffled = a.reshape(6, -1)[:, np.argsort(normals[20].ravel())].reshape(a.shape)
        assert abs(similarity("ssim", a, shuffled).mean() - found) < 0.01
    assert SIMILARITIES["ssim"].traits["floor"] == "shuffle"
    heavy = student(2)
    assert similarity("ssim", heavy, scale="p99.9")[apart].mean() < 0.4  # which other scaling is for


@pytest.mark.parametrize(
    ("name", "chance", "sd"),
    [
        ("spearman", 0, 0.0045),
        ("pearson", 0, 0.0045),
        ("cosine", 0, 0.0045),
        ("hog", 0.035, 0.02),  # not zero: all histograms of noise lean the same way
        ("topk_overlap", 1000 / 50176, 0.0045),
        ("sign_agreement", 500 / 50176, 0.0035),
        ("l2", 2**0.5, 0.0032),
    ],
)
def test_chance_of_independent_noise(name: str, chance: float, sd: float) -> None:
    found = similarity(name, normal(6, 224, 224))[np.triu_indices(6, 1)]
    assert abs(found.mean() - chance) < 4 * sd / len(found) ** 0.5
    assert found.std() < 2 * sd


@pytest.mark.skipif("ATTRSENS_DATA" not in os.environ, reason="a check on the packaged network, with the other data")
def test_maps_of_a_real_network_against_the_libraries() -> None:
    f = attrsens.load("lite0")
    x = uniform(3, 224, 224, seed=1) * 0.2 + 0.4 + 0.1 * draw(3, 7, 7).repeat_interleave(32, 1).repeat_interleave(32, 2)
    spec = attrsens.METHODS["grad"]
    found = [
        attrsens.Explainer(f, spec, target, spec.complete({"reduce": "mean"}), image="x")(x.clamp(0, 1))
        for target in (1, 281)
    ]
    a = torch.stack([m.mean(0) if m.ndim == 3 else m for m in found]).cpu().numpy()
    wide = a.astype(np.float64) / np.abs(a.astype(np.float64)).max((1, 2), keepdims=True)
    vectors = [skimage_hog(m, 9, (16, 16), (3, 3)) for m in wide]
    want = {
        "spearman": stats.spearmanr(wide[0].ravel(), wide[1].ravel()).statistic,
        "pearson": stats.pearsonr(wide[0].ravel(), wide[1].ravel()).statistic,
        "ssim": structural_similarity(*wide, win_size=5, data_range=2.0),
        "hog": stats.pearsonr(*vectors).statistic,
    }
    for name, value in want.items():
        assert abs(similarity(name, a)[0, 1] - value) < 1e-12
