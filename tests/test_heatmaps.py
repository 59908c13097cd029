"""Maps as arrays, and the pictures drawn of them."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.transform import resize

from attrsens.heatmaps import finish, resize_spline, sketch
from attrsens.render.picture import colour_limit, colours, heatmap_png, overlay, palette


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("small", "large"), [((66, 66), (224, 224)), ((7, 5), (32, 40)), ((2, 3), (9, 9)), ((1, 1), (4, 4))]
)
def test_spline_resize_equals_skimage(small: tuple[int, int], large: tuple[int, int]) -> None:
    values = noise(*small).astype(np.float64)
    want = resize(values, large, order=5, mode="reflect", clip=True, anti_aliasing=False)
    np.testing.assert_allclose(resize_spline(values, large), want, atol=1e-5)


@pytest.mark.parametrize("shape", [(224, 224), (32, 32), (30, 57), (8, 8), (28, 28)])
def test_sketch_keeps_area_means(shape: tuple[int, int]) -> None:
    heatmap = noise(*shape) * 1e-6 + 3e-6
    text, scale = sketch(heatmap)
    small = np.frombuffer(base64.b64decode(text), "<f2").astype(np.float64).reshape(28, 28) * scale
    assert small.mean() == pytest.approx(heatmap.mean(), rel=1e-3)
    if shape == (224, 224):
        want = heatmap.reshape(28, 8, 28, 8).mean((1, 3))
        np.testing.assert_allclose(small, want, atol=1e-3 * np.abs(want).max())
    if shape == (28, 28):
        np.testing.assert_allclose(small, heatmap, atol=1e-3 * np.abs(heatmap).max())


def test_sketch_of_nothing_is_zero() -> None:
    text, scale = sketch(np.zeros((10, 10), np.float32))
    assert scale == 0
    assert not np.frombuffer(base64.b64decode(text), "<f2").any()


@pytest.mark.parametrize("sign", ["signed", "abs", "abs_sample"])
@pytest.mark.parametrize("reduce", ["mean", "sum", "max", "none"])
def test_finish_is_the_same_for_arrays_and_tensors(sign: str, reduce: str) -> None:
    raw = noise(3, 5, 4)
    want = np.abs(raw) if sign == "abs" else raw
    want = want if reduce == "none" else {"mean": np.mean, "sum": np.sum, "max": np.max}[reduce](want, axis=0)
    np.testing.assert_allclose(finish(raw, sign, reduce), want, rtol=1e-6)
    np.testing.assert_allclose(finish(torch.from_numpy(raw), sign, reduce).numpy(), want, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(finish(raw[0], sign, reduce), np.abs(raw[0]) if sign == "abs" else raw[0])


def test_zero_is_white_and_the_sign_is_the_colour() -> None:
    strip = colours(np.array([[-2.0, -1.0, 0.0, 1.0, 2.0]], np.float32), 1.0)[0]
    assert tuple(strip[2]) == (255, 255, 255)
    assert tuple(strip[0]) == tuple(strip[1]) == tuple(palette()[0])
    assert strip[0][2] > strip[0][0], "negative is blue"
    assert strip[4][0] > strip[4][2], "positive is red"
    assert (colours(np.zeros((3, 3), np.float32), 0.0) == 255).all()


def test_palette_is_even_in_lightness() -> None:
    """Both halves fall alike from white: CIELAB lightness within 8 of its mirror image, and monotone."""
    from skimage.color import rgb2lab

    light = rgb2lab(palette()[None] / 255)[0, :, 0]
    assert np.abs(light - light[::-1]).max() < 8
    assert (np.diff(light[:129]) > -0.01).all()
    assert (np.diff(light[128:]) < 0.01).all()


def test_one_limit_over_compared_maps() -> None:
    a, b = noise(50, 50), noise(50, 50) * 4
    assert colour_limit([a, b]) == colour_limit([b]) > colour_limit([a])
    spike = np.zeros((50, 50), np.float32)
    spike[0, 0] = 7
    assert colour_limit([spike]) == 7
    assert colour_limit([np.zeros((4, 4), np.float32)]) == 0


def test_overlay_shows_the_picture_where_the_map_is_zero() -> None:
    heatmap = np.zeros((4, 4), np.float32)
    heatmap[0, 0] = 1
    pixels = np.full((4, 4, 3), 100, np.uint8)
    out = overlay(heatmap, 1.0, pixels)
    assert tuple(out[0, 0]) == tuple(palette()[-1])
    assert tuple(out[1, 1]) == (162, 162, 162)  # 255 - (255 - 100) * 0.6


@pytest.mark.parametrize("side", [28, 32, 224, 600])
def test_png_has_every_map_pixel_and_is_marked(side: int) -> None:
    heatmap = noise(side, side)
    pixels = np.zeros((side, side), np.uint8)
    data = heatmap_png(heatmap, 2.0, ["caption", "x" * 300], pixels=pixels)
    image = Image.open(io.BytesIO(data))
    assert image.info["Software"] == "attrsens"
    zoom = max(1, -(-320 // side))
    left = 10 + side * zoom + 10
    shown = np.asarray(image)[10 : 10 + side * zoom : zoom, left : left + side * zoom : zoom]
    np.testing.assert_array_equal(shown, colours(heatmap, 2.0))
    assert data == heatmap_png(heatmap, 2.0, ["caption", "x" * 300], pixels=pixels)
