"""lime against the lime package itself, and where its answer can be written down."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from lime.lime_image import LimeImageExplainer
from lime.wrappers.scikit_image import SegmentationAlgorithm
from skimage.segmentation import slic
from toys import Linear, SmallNet, draw, explain, small, uniform

import attrsens
from attrsens.methods.lime import fit, rows
from attrsens.models.zoo import lite0 as load_lite0

SLIC = {"n_segments": 50, "compactness": 30, "sigma": 3, "start_label": 0}


def sharp(channels: int = 3) -> tuple[attrsens.Classifier, torch.nn.Module]:
    """A small network whose probabilities go from 0 to 1, and the same as a classifier."""
    net = SmallNet("reused", channels)
    with torch.no_grad():
        net.fc.weight.mul_(30)
    return attrsens.Classifier(net, [0.45] * channels, [0.25] * channels, crop=32, device="cpu"), net.eval()


def bytes_of(x: torch.Tensor) -> np.ndarray:
    return (x * 255).round().byte().permute(1, 2, 0).numpy()


def blocks(side: int, cell: int, seed: int = 3, channels: int = 3) -> torch.Tensor:
    """A picture of coloured squares, in whole grey levels."""
    grid = (uniform(channels, side // cell, side // cell, seed=seed) * 255).round() / 255
    return grid.repeat_interleave(cell, 1).repeat_interleave(cell, 2)


def raw(f: attrsens.Classifier, x: torch.Tensor, target: int = 0, method: str = "lime", **parameters: object):
    spec = attrsens.METHODS[method]
    return attrsens.Explainer(f, spec, target, spec.complete(parameters), image="toy").raw(x)


def theirs(predict, x: torch.Tensor, target: int, n: int, seed: int, algorithm: str, fill: str, width: float = 0.25):
    """(map, intercept, R^2, segments) of the package's own explainer with its own segmentation and defaults."""
    find = SegmentationAlgorithm("slic", **SLIC) if algorithm == "slic" else None  # None: quickshift by its defaults
    hide = {"black": 0, "segment": None, "white": 255}[fill]
    explainer = LimeImageExplainer(kernel_width=width, random_state=seed)
    found = explainer.explain_instance(
        bytes_of(x), predict, (target,), hide, top_labels=None, num_samples=n, batch_size=8, segmentation_fn=find
    )
    painted = np.zeros(found.segments.shape)
    for segment, value in found.local_exp[target]:
        painted[found.segments == segment] = value
    return torch.from_numpy(painted).float(), found.intercept[target], found.score, found.segments.max() + 1


def predictor(net: torch.nn.Module, mean: float, std: float):
    """A classifier function as a user of the package would write it."""
    net = net.eval()

    def predict(pictures: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
            return torch.softmax(net((x - mean) / std), 1).numpy()

    return predict


@pytest.mark.parametrize("fill", ["black", "segment", "white"])
@pytest.mark.parametrize("algorithm", ["slic", "quickshift"])
@pytest.mark.parametrize(("n", "seed", "width"), [(200, 0, 0.25), (61, 7, 0.5)])
def test_equals_lime_image_on_a_small_network(algorithm: str, fill: str, n: int, seed: int, width: float) -> None:
    x = blocks(64, 16)
    f, net = sharp()
    want, intercept, r2, count = theirs(predictor(net, 0.45, 0.25), x, 1, n, seed, algorithm, fill, width)
    found = raw(f, x, 1, n=n, seed=seed, algorithm=algorithm, fill=fill, kernel_width=width)
    torch.testing.assert_close(found.map, want, rtol=0, atol=1e-5 * float(want.abs().max()) + 1e-7)
    assert found.notes["intercept"] == pytest.approx(intercept, abs=1e-5)
    assert found.notes["r2"] == pytest.approx(r2, abs=1e-4)
    assert found.notes["segments"] == count > 5


@pytest.mark.parametrize(("algorithm", "fill"), [("slic", "black"), ("quickshift", "segment")])
def test_equals_lime_image_on_the_default_classifier(plain_lite0, chelsea, algorithm: str, fill: str) -> None:
    predict = predictor(load_lite0().module, 0.5, 0.5)
    want, _, _, count = theirs(predict, chelsea, 282, 40, 3, algorithm, fill)
    found = raw(plain_lite0, chelsea, 282, n=40, seed=3, algorithm=algorithm, fill=fill)
    torch.testing.assert_close(found.map, want, rtol=0, atol=1e-4 * float(want.abs().max()))
    assert found.notes["segments"] == count
    assert (found.passes.forward, found.passes.backward) == (40, 0)


def test_equals_lime_image_on_grey_pictures() -> None:
    """28 x 28 x 1: the package turns the picture into colours, for its segmentation too."""
    x = blocks(28, 4, channels=1)
    f, net = sharp(1)

    def predict(pictures: np.ndarray) -> np.ndarray:
        return predictor(net, 0.45, 0.25)(pictures[..., :1])

    explainer = LimeImageExplainer(random_state=1)
    segmentation = SegmentationAlgorithm("slic", **SLIC)
    result = explainer.explain_instance(
        bytes_of(x)[..., 0], predict, (0,), 0, top_labels=None, num_samples=150, segmentation_fn=segmentation
    )
    want = np.zeros((28, 28))
    for segment, value in result.local_exp[0]:
        want[result.segments == segment] = value
    found = explain(f, "lime", x, n=150, seed=1)
    torch.testing.assert_close(found, torch.from_numpy(want).float(), rtol=0, atol=1e-5 * float(np.abs(want).max()))


def additive(x: torch.Tensor, segments: np.ndarray) -> tuple[attrsens.Classifier, np.ndarray]:
    """(a linear network, what every superpixel adds to its first logit)."""
    side = x.shape[-1]
    weight = draw(4, 3 * side * side, seed=1)
    f = attrsens.Classifier(Linear(weight, torch.ones(4)), [0.0] * 3, [1.0] * 3, crop=side, device="cpu")
    each = (weight[0].reshape(x.shape) * x).sum(0).double().numpy()
    return f, np.bincount(segments.ravel(), each.ravel())


def test_additive_superpixels_are_recovered_up_to_ridge_shrinkage() -> None:
    """The weights are known, so the shrinkage is: the ridge solution by hand, and that within 3 % of the truth."""
    x = blocks(24, 4)
    segments = slic(bytes_of(x), 20, 30, sigma=1, start_label=0)
    f, truth = additive(x, segments)
    n, count = 2000, len(truth)
    found = raw(f, x, n=n, segments=20, segment_blur=1.0, output="logit")
    values = np.array([float(found.map[segments == s][0]) for s in range(count)])

    z = rows(n, count, 0).astype(float)
    d = 1 - np.sqrt(z.sum(1) / count)
    w = np.exp(-(d**2) / 0.25**2) ** 0.5
    centred = z - np.average(z, axis=0, weights=w)
    y = 1 + z @ truth
    left = centred.T @ (w[:, None] * centred) + np.eye(count)
    by_hand = np.linalg.solve(left, centred.T @ (w * (y - np.average(y, weights=w))))
    np.testing.assert_allclose(values, by_hand, atol=2e-4 * np.abs(truth).max())
    np.testing.assert_allclose(values, truth, atol=0.03 * np.abs(truth).max())
    assert found.notes["r2"] > 0.999


def test_the_rows_are_those_the_package_draws_and_longer_runs_begin_alike() -> None:
    seen = []

    def predict(pictures: np.ndarray) -> np.ndarray:
        seen.extend((pictures[:, ::8, ::8, 0] > 0).reshape(len(pictures), -1))
        return np.full((len(pictures), 2), 0.5)

    segments = np.arange(4).repeat(8)[:, None] * 4 + np.arange(4).repeat(8)[None]
    picture = np.full((32, 32, 3), 9, np.uint8)
    explainer = LimeImageExplainer(random_state=5)
    explainer.explain_instance(picture, predict, (0,), 0, num_samples=30, segmentation_fn=lambda _: segments)
    shown = rows(30, 16, 5)
    np.testing.assert_array_equal(shown, np.array(seen))
    assert shown[0].all()
    np.testing.assert_array_equal(rows(1000, 16, 5)[:30], shown)
    assert not np.array_equal(rows(30, 16, 6), shown)


def test_every_image_starts_afresh() -> None:
    """Trap 8.11: the package's explainer carries its generator on, so that its second image depends on the first."""
    f, first, second = small(), blocks(32, 4), blocks(32, 4, seed=4)
    alone = explain(f, "lime", second, n=40)
    explain(f, "lime", first, n=40)
    assert torch.equal(explain(f, "lime", second, n=40), alone)


def test_a_row_with_nothing_shown_has_distance_one() -> None:
    """methods 2.13: cosine of the empty row is undefined; the package takes distance 1."""
    shown = np.array([[1, 1], [0, 0], [1, 0], [0, 1]])
    values, intercept, r2 = fit(shown, np.array([3.0, 0.0, 1.0, 2.0]), 0.25)
    w = np.exp(-(np.array([0, 1, 1 - 0.5**0.5, 1 - 0.5**0.5]) ** 2) / 0.25**2 / 2)
    centred = shown - np.average(shown, axis=0, weights=w)
    y = np.array([3.0, 0, 1, 2])
    want = np.linalg.solve(centred.T @ (w[:, None] * centred) + np.eye(2), centred.T @ (w * y))
    np.testing.assert_allclose(values, want)
    assert np.isfinite([intercept, r2]).all()


def test_more_draws_come_closer_as_one_over_the_root() -> None:
    f, x = small(), blocks(32, 4)
    spread = []
    for n in (250, 1000):
        maps = torch.stack([explain(f, "lime", x, n=n, seed=s) for s in range(10)])
        spread.append(float(maps.var(0).mean().sqrt()))
    assert 1.6 < spread[0] / spread[1] < 2.5


def test_both_spaces_are_cut_and_hidden_alike() -> None:
    """Trap: superpixels of normalised values would be others."""
    f, x = small(), blocks(32, 4)
    for fill in ("black", "grey", "segment"):
        pixel, normal = (explain(f, "lime", x, n=40, fill=fill, space=s) for s in ("pixel", "normalized"))
        torch.testing.assert_close(normal, pixel, rtol=0, atol=1e-4 * float(pixel.abs().max()))


@pytest.mark.parametrize("method", ["lime", "kshap"])
@pytest.mark.parametrize("algorithm", ["slic", "quickshift"])
@pytest.mark.parametrize("channels", [1, 3])
def test_constant_images(method: str, algorithm: str, channels: int) -> None:
    f = small(channels=channels)
    for level in (0.0, 0.5, 1.0):
        found = raw(f, torch.full((channels, 28, 28), level), method=method, n=20, algorithm=algorithm)
        assert bool(found.map.isfinite().all())
        assert level > 0 or float(found.map.abs().max()) < 1e-6  # black on black hides nothing


@pytest.mark.parametrize("method", ["lime", "kshap"])
def test_one_superpixel_gives_a_constant_map(method: str) -> None:
    found = raw(small(), blocks(32, 4), 1, method=method, n=20, segments=1)
    assert found.notes["segments"] == 1
    assert len(found.map.unique()) == 1
    assert float(found.map.abs().max()) > 0


@pytest.mark.parametrize(("method", "passes"), [("lime", 1000), ("kshap", 1002), ("rise", 4000)])
def test_a_dry_run_counts_without_working(method: str, passes: int, monkeypatch) -> None:
    from attrsens.engine.cell import parse_call
    from attrsens.engine.plan import cost

    for module in ("skimage.segmentation", "sklearn.metrics", "lime.lime_base"):
        monkeypatch.setitem(sys.modules, module, None)  # importing it now raises
    found = cost(small(), parse_call(method), (16, 16))
    assert (found.forward, found.backward) == (passes, 0)


@pytest.mark.parametrize("method", ["lime", "kshap", "rise"])
def test_no_more_than_a_batch_is_held(method: str) -> None:
    f, held = small(batch=7), []
    f.on_batch(held.append)
    made = raw(f, blocks(32, 4), method=method, n=40).passes.forward
    assert sum(held) == made
    assert max(held) == 7
