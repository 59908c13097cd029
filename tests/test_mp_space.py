"""Meaningful perturbation with its blur in pixels of the picture before resizing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PIL
from scipy.ndimage import gaussian_filter
from toys import SmallNet, small, uniform

import attrsens
from attrsens import METHODS
from attrsens.engine.cell import parse_call
from attrsens.engine.compute import explainer
from attrsens.explainer import raw_together
from attrsens.images import Image, Preprocess
from attrsens.methods import _descent
from attrsens.methods._descent import Problem
from attrsens.seeds import Stream

SPEC = METHODS["mp"]
ZOOMS = [(1.0, 1.0), (0.5, 0.25), (0.2, 0.2), (2.0, 1.5)]


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 noise."""
    return (Stream(seed, "", "picture").uniform([0], (height, width, 3))[0] * 255.99).astype(np.uint8)


def resizing(**options: object) -> attrsens.Classifier:
    """A classifier that makes every picture 16 x 16."""
    given = {"resize": 16, "crop": 16, "interp": "nearest", "squash": True, "device": "cpu"} | options
    return attrsens.Classifier(SmallNet("reused"), [0.45] * 3, [0.25] * 3, **given)


def test_a_picture_twice_as_large_needs_twice_the_radius() -> None:
    """Resized to the same pixels, both give the same map to the bit; in pixels of the crop they do with one radius."""
    fine = picture(16, 16)
    coarse = fine.repeat(2, 0).repeat(2, 1)

    def explained(given: np.ndarray, space: str, radius: float) -> np.ndarray:
        method = f"mp:steps=6,init=ones,jitter=0,mask_side=8,blur_space={space},blur_radius={radius}"
        report = attrsens.explain(given, model=resizing(), target=1, method=method, cache=False)
        return report.attributions[0].map

    maps = [explained(fine, "original", 2), explained(coarse, "original", 4), explained(fine, "crop", 2)]
    assert len({m.tobytes() for m in [*maps, explained(coarse, "crop", 2)]}) == 1
    assert not np.array_equal(explained(coarse, "original", 2), maps[0])


@pytest.mark.parametrize("squash", [False, True])
def test_it_is_the_blur_of_the_picture_itself(squash: bool) -> None:
    """Blurred before resizing (scipy) and after (here): levels of rounding apart, away from the edges."""
    smooth = gaussian_filter(picture(192, 128).astype(np.float64), (2, 2, 0))
    smooth = ((smooth - smooth.min()) / np.ptp(smooth) * 255).round()
    preprocess = Preprocess(64, 64, squash=squash)
    zoom = preprocess.zoom((192, 128))
    assert zoom == ((1 / 3 if squash else 0.5), 0.5)
    before = Image("a", gaussian_filter(smooth, (6, 6, 0), mode="nearest").round().astype(np.uint8))
    after = torch.from_numpy(preprocess.apply(Image("b", smooth.astype(np.uint8))))
    problem = Problem(after, 0, "toy", blur_radius=6.0, init="ones", seed=0, zoom=zoom)
    blurred = _descent._windows([problem], 0)[0, :3, 0, 0]
    gap = (blurred - torch.from_numpy(preprocess.apply(before))).abs()
    inner = slice(12, -12)
    assert float(gap[:, inner, inner].max()) < 1.5 / 255
    plain = (after - blurred).abs()[:, inner, inner]
    assert float(plain.max()) > 20 / 255, "there was something to blur"


def test_the_discs_of_the_search_are_tried_with_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A radius of 10 original pixels, 2 on the crop, for the descent and for the search."""
    f, x = small(), uniform(3, 16, 16, seed=3)

    def raw(zoom: tuple[float, float], **parameters: object) -> torch.Tensor:
        p = SPEC.complete({"steps": 0, "mask_side": 8} | parameters)
        return attrsens.Explainer(f, SPEC, 1, p, "toy", zoom=zoom).raw(x)

    found = [raw((0.2, 0.2), blur_radius=10, blur_space="original", steps=steps) for steps in (0, 5)]
    monkeypatch.setattr(_descent, "SEARCH_BLUR", 2.0)
    for got, steps in zip(found, (0, 5), strict=True):
        want = raw((1.0, 1.0), blur_radius=2, blur_space="crop", steps=steps)
        assert got.notes == want.notes
        assert torch.equal(got.map, want.map)


@pytest.mark.parametrize("init", ["circle", "random"])
def test_images_of_other_factors_advance_together_as_alone(init: str) -> None:
    f, xs = small(), uniform(4, 3, 16, 16, seed=8)
    own = SPEC.complete({"steps": 8, "mask_side": 8, "blur_radius": 4, "blur_space": "original", "init": init})
    bound = [attrsens.Explainer(f, SPEC, i % 2, own, f"image {i}", zoom=zoom) for i, zoom in enumerate(ZOOMS)]
    whole, _ = raw_together([([one], x) for one, x in zip(bound, xs, strict=True)], 4)
    for one, x, (raw,) in zip(bound, xs, whole, strict=True):
        torch.testing.assert_close(one.raw(x).map, raw.map, rtol=0, atol=1e-4)
        ((alone,),), _ = raw_together([([one], x)], 4)
        assert torch.equal(alone.map, raw.map), "to the last bit at one width"
    same = [attrsens.Explainer(f, SPEC, 0, own, "image", zoom=zoom) for zoom in ZOOMS]
    maps, _ = raw_together([([one], xs[0]) for one in same], 4)
    assert len({m.map.numpy().tobytes() for (m,) in maps}) == 4, "the factor counts"


def test_in_pixels_of_the_crop_the_factor_plays_no_part() -> None:
    f, x = small(), uniform(3, 16, 16, seed=8)
    p = SPEC.complete({"steps": 8, "mask_side": 8, "blur_radius": 4})
    assert p["blur_space"] == "crop"
    maps = [attrsens.Explainer(f, SPEC, 0, p, "toy", zoom=zoom).raw(x).map for zoom in [*ZOOMS, (1e6, 1e6)]]
    assert all(torch.equal(m, maps[0]) for m in maps)


def test_a_run_takes_the_factor_from_every_picture() -> None:
    images = [picture(16, 16, 1), picture(32, 32, 2), picture(48, 32, 3)]
    f = resizing()
    method = "mp:steps=5,mask_side=8,blur_radius=4,blur_space=original"
    report = attrsens.explain(images, model=f, target=1, method=method, cache=False)
    assert report.failures == []
    zooms = [(1.0, 1.0), (0.5, 0.5), (1 / 3, 0.5)]
    for given, record, found, zoom in zip(images, report.records, report.attributions, zooms, strict=True):
        x = torch.from_numpy(f.preprocess.apply(Image("x", given)))
        bound = explainer(f, parse_call(method), 1, record.image.sha256)
        want = attrsens.Explainer(f, SPEC, 1, bound.parameters, record.image.sha256, zoom=zoom)(x)
        np.testing.assert_allclose(found.map, want.numpy(), rtol=0, atol=1e-4)


def test_a_blur_too_wide_for_the_crop_is_refused_and_the_others_go_on() -> None:
    images = [picture(16, 16), picture(1, 1)]
    method = "mp:steps=1,init=ones,blur_radius=70,blur_space=original"
    report = attrsens.explain(images, model=resizing(), target=1, method=method, cache=False)
    assert [r.image.path for r in report.records] == ["array-0"]
    assert [failure.message for failure in report.failures] == [
        "mp: a blur of 70 original pixels is one of 1,120 pixels after resizing; at most 1,000"
    ]


def test_views_tell_methods_the_factor(tmp_path: Path) -> None:
    """Wrapped and as another picture's too."""

    def zoomed(f: attrsens.Classifier, x: torch.Tensor, target: int) -> torch.Tensor:
        """The factors."""
        return torch.full(x.shape[-2:], f.zoom[0] + 10 * f.zoom[1])

    METHODS("zoomed", version=1, gradient=False, cost="none")(zoomed)
    path = tmp_path / "other.png"
    PIL.fromarray(picture(64, 16, 5)).save(path)
    try:
        methods = ["zoomed", "zoomed+smooth:n=2", f"other:of=zoomed,picture={path}"]
        given = picture(32, 64)
        report = attrsens.explain(given, model=resizing(), target=1, method=methods, cache=False)
        assert [float(a.map[3, 3]) for a in report.attributions] == [0.5 + 2.5, 0.5 + 2.5, 0.25 + 10]
    finally:
        METHODS.remove("zoomed")
