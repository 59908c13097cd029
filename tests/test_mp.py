"""Meaningful perturbation against its objective written out and followed by autograd, and its parts against others'."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter
from torch import nn
from toys import Linear, OnePixel, SmallNet, linear, small, uniform

import attrsens
from attrsens import METHODS
from attrsens.explainer import Raw
from attrsens.methods._descent import Common, Course, Problem, _places, advance
from attrsens.methods._masks import RADII, blur, discs, enlarge, gaussian, variation, within
from attrsens.methods.perturbation import together
from attrsens.seeds import Stream

SPEC = METHODS["mp"]
EASY = {"init": "ones", "jitter": 0}


def raw(f: attrsens.Classifier, x: torch.Tensor, target: int = 0, dry: bool = False, **parameters: object) -> Raw:
    return attrsens.Explainer(f, SPEC, target, SPEC.complete(parameters), "toy", dry).raw(x)


def common(**parameters: object) -> Common:
    values = SPEC.complete(parameters)
    return Common(**{field.name: values[field.name] for field in fields(Common)})


def problem(x: torch.Tensor, target: int = 0, image: str = "toy", **given: object) -> Problem:
    return Problem(x, target, image, **{"blur_radius": 2.0, "init": "ones", "seed": 0} | given)


def view(f: attrsens.Classifier, **options: object) -> attrsens.Classifier:
    return f.view(**{"output": "prob", "image": "toy"} | options)


def assert_notes(found: dict, want: dict) -> None:
    """Equal but for float noise; None is None."""
    assert {k: v for k, v in found.items() if v is None} == {k: v for k, v in want.items() if v is None}
    numbers = {k: v for k, v in want.items() if v is not None}
    assert {k: found[k] for k in numbers} == pytest.approx(numbers, rel=1e-4, abs=1e-6)


# -- the objective, followed by autograd ------------------------------------------------------------------------------


def by_hand(net: nn.Module, x: torch.Tensor, target: int, steps: int, p: dict, image: str) -> tuple:
    """(map, mask, losses) from the formulas of methods 2.14 alone: numpy and scipy for what is drawn and blurred, the
    objective in torch, autograd, torch's Adam. `net` takes pixels."""
    side, cells, jitter = x.shape[-1], min(p["mask_side"], x.shape[-1]), p["jitter"]
    before = jitter // 2
    wide = np.pad(x.numpy(), ((0, 0), *[(before, jitter - before)] * 2), mode="reflect").astype(np.float64)
    sd = p["blur_radius"]
    soft = gaussian_filter(wide, (0, sd, sd), mode="nearest", truncate=4.0)
    wide, soft = torch.from_numpy(wide).float(), torch.from_numpy(soft).float()
    if p["init"] == "ones":
        start = np.ones((cells, cells), np.float32)
    else:
        start = Stream(p["seed"], image, "mask").uniform([0], (cells, cells))[0]
    mask = torch.tensor(start, requires_grad=True)
    adam = torch.optim.Adam([mask], lr=p["learning_rate"], betas=(0.9, 0.999), eps=1e-8)
    offsets = Stream(p["seed"], image, "jitter").uniform(range(steps), (2,))

    def enlarged(m: torch.Tensor) -> torch.Tensor:
        big = F.interpolate(m[None, None], size=(side, side), mode="nearest")[0, 0]
        if p["mask_blur"] == 0:
            return big
        kernel = torch.arange(-int(4 * p["mask_blur"] + 0.5), int(4 * p["mask_blur"] + 0.5) + 1)
        kernel = torch.exp(-(kernel**2) / (2 * p["mask_blur"] ** 2))
        kernel = kernel / kernel.sum()
        reach = len(kernel) // 2
        big = F.conv2d(F.pad(big[None, None], (reach,) * 4, mode="replicate"), kernel[None, None, None])
        return F.conv2d(big, kernel[None, None, :, None])[0, 0]

    losses = []
    for step in range(steps):
        top, left = (int(u * jitter) for u in offsets[step])
        here, there = (t[:, top : top + side, left : left + side] for t in (wide, soft))
        shown = enlarged(mask)
        score = torch.softmax(net((shown * here + (1 - shown) * there)[None]), 1)[0, target]
        dy, dx = mask[1:] - mask[:-1], mask[:, 1:] - mask[:, :-1]
        power = p["tv_power"]
        if p["tv"] == "aniso":
            rough = (dy.abs() ** power).sum() + (dx.abs() ** power).sum()
        else:
            dy, dx = F.pad(dy, (0, 0, 0, 1)), F.pad(dx, (0, 1))
            rough = ((dx**2 + dy**2 + 1e-20) ** (power / 2)).sum()
        terms = [score, p["l1_weight"] * (1 - mask).abs().sum(), p["tv_weight"] * rough]
        adam.zero_grad()
        sum(terms).backward()
        adam.step()
        with torch.no_grad():
            mask.clamp_(0, 1)
        losses.append([float(t.detach()) for t in terms])
    final = enlarged(mask.detach()).double().numpy()
    shown = 1 - gaussian_filter(final, p["output_blur"], mode="nearest", truncate=4.0)
    return torch.from_numpy(shown).float(), mask.detach(), losses


class Normalised(nn.Module):
    """A toy network with its normaliser, on pixels."""

    def __init__(self, net: nn.Module, mean: float, std: float) -> None:
        super().__init__()
        self.net, self.mean, self.std = net.eval(), mean, std

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net((x - self.mean) / self.std)


@pytest.mark.parametrize("tv", ["aniso", "iso"])
@pytest.mark.parametrize("changed", [
    {},
    {"init": "random", "seed": 3},
    {"jitter": 0, "mask_side": 5},
    {"kind": "relu6", "init": "random"},
    {"jitter": 5, "init": "random", "blur_radius": 1.3},
    {"mask_blur": 1.5, "init": "random"},
    {"tv_power": 2.0, "tv_weight": 0.3, "l1_weight": 0.02, "init": "random", "learning_rate": 0.03},
])  # fmt: skip
def test_five_steps_are_those_of_autograd_through_the_objective(tv: str, changed: dict) -> None:
    kind = changed.get("kind", "reused")
    changed = {k: v for k, v in changed.items() if k != "kind"}
    p = SPEC.complete({"init": "ones", "mask_side": 8, "blur_radius": 3, "steps": 5, "tv": tv} | changed)
    x = uniform(3, 16, 16, seed=4)
    f = small(kind, fold=False)
    want, mask, losses = by_hand(Normalised(SmallNet(kind), 0.45, 0.25), x, 2, 5, p, "toy")
    own = {name: p[name] for name in ("blur_radius", "init", "seed")}
    (course,) = advance(view(f), [problem(x, 2, **own)], [5], common(**p))
    torch.testing.assert_close(course.masks[5], mask, rtol=0, atol=1e-5)
    torch.testing.assert_close(course.terms, torch.tensor(losses), rtol=1e-5, atol=1e-6)
    found = raw(f, x, 2, **p)
    torch.testing.assert_close(found.map, want, rtol=0, atol=1e-5)
    assert found.notes["loss"] == pytest.approx(sum(losses[-1]), rel=1e-5)
    for name, value in zip(("score", "l1", "tv"), losses[-1], strict=True):
        assert found.notes[name] == pytest.approx(value, rel=1e-5, abs=1e-7), name
    assert (found.notes["mask_side"], found.notes["circle_radius"]) == (p["mask_side"], None)


def test_a_linear_network_too_and_the_logit_as_output() -> None:
    """With a linear network and the logit the gradient by the mask is constant: the first step is its sign."""
    f, w = linear()
    x = uniform(3, 6, 6, seed=5)
    p = {"steps": 1, "tv_weight": 0.0, "l1_weight": 0.0, "mask_side": 6, "output_blur": 0.0, "blur_radius": 1.0}
    found = raw(f, x, 1, output="logit", **EASY, **p)
    soft = gaussian_filter(x.double().numpy(), (0, 1, 1), mode="nearest", truncate=4.0)
    slope = (w[1] * (x - torch.from_numpy(soft))).sum(0)
    torch.testing.assert_close(found.map, torch.where(slope > 0, 0.1, 0.0).float(), rtol=0, atol=1e-5)
    assert found.notes["score"] == pytest.approx(float(f.score(x[None], 1)), rel=1e-5)


# -- total variation ---------------------------------------------------------------------------------------------------


def test_anisotropic_variation_by_hand() -> None:
    masks = torch.tensor([[[0.0, 1.0, 0.5], [0.25, 0.5, 0.5]]])
    value, _ = variation(masks, 3.0, "aniso")
    assert float(value) == pytest.approx(1**3 + 0.5**3 + 0.25**3 + 0**3 + 0.25**3 + 0.5**3 + 0)


def test_isotropic_variation_by_hand() -> None:
    masks = torch.tensor([[[0.0, 1.0, 0.5], [0.25, 0.5, 0.5]]])
    value, _ = variation(masks, 3.0, "iso")
    pairs = [(0.25, 1.0), (-0.5, -0.5), (0.0, 0.0), (0.0, 0.25), (0.0, 0.0), (0.0, 0.0)]
    assert float(value) == pytest.approx(sum((dy**2 + dx**2) ** 1.5 for dy, dx in pairs))


@pytest.mark.parametrize("kind", ["aniso", "iso"])
@pytest.mark.parametrize("power", [1.0, 1.5, 2.0, 3.0])
def test_variation_gradient_is_that_of_differences(kind: str, power: float) -> None:
    masks = uniform(2, 5, 4, seed=1).double()
    value, slope = variation(masks, power, kind)
    assert value.shape == (2,)
    for place in [(0, 0, 0), (1, 4, 3), (0, 2, 1), (1, 0, 3), (0, 4, 0)]:
        step = torch.zeros_like(masks)
        step[place] = 1e-6
        rise = (variation(masks + step, power, kind)[0] - variation(masks - step, power, kind)[0])[place[0]] / 2e-6
        assert float(slope[place]) == pytest.approx(float(rise), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("kind", ["aniso", "iso"])
def test_flat_masks_have_no_variation_and_no_slope(kind: str) -> None:
    for power in (1.0, 2.0, 3.0):
        value, slope = variation(torch.full((1, 4, 4), 0.3), power, kind)
        assert not value.any()
        assert not slope.any()


# -- blur, enlargement, discs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("edge", ["reflect", "symmetric", "replicate"])
@pytest.mark.parametrize(("side", "sd"), [(9, 0.0), (9, 0.7), (9, 3.0), (7, 10.0), (1, 2.0)])
def test_blur_is_scipys(edge: str, side: int, sd: float) -> None:
    mode = {"reflect": "mirror", "symmetric": "reflect", "replicate": "nearest"}[edge]
    x = uniform(2, side, side + 3, seed=2)
    want = gaussian_filter(x.double().numpy(), (0, sd, sd), mode=mode, truncate=4.0)
    torch.testing.assert_close(blur(x, sd, edge), torch.from_numpy(want).float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gaussian(side, sd, edge).sum(1), torch.ones(side))


def test_places_outside_fold_back_as_numpy_pads() -> None:
    places = torch.arange(-13, 18)
    for edge, mode in (("reflect", "reflect"), ("symmetric", "symmetric"), ("replicate", "edge")):
        want = np.pad(np.arange(5), 13, mode=mode)
        assert within(places, 5, edge).tolist() == want.tolist()
        assert set(within(places, 1, edge).tolist()) == {0}


@pytest.mark.parametrize("radius", [1, 5, 10, 30])
def test_blur_is_pillows_up_to_its_boxes_and_8_bits(radius: int, chelsea) -> None:
    """Pillow runs three boxes in 8 bits and continues the edges before each: a few levels, more at the edges."""
    pixels = (chelsea * 255).round().to(torch.uint8)
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy()).filter(ImageFilter.GaussianBlur(radius))
    want = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
    levels = (blur(pixels / 255, radius) - want).abs() * 255
    inside = slice(3 * radius, -3 * radius)
    assert float(levels.mean()) < 1
    assert float(levels[:, inside, inside].max()) < 3
    assert float(levels.max()) < 12
    assert float((pixels / 255 - want).abs().max()) > 0.1  # the blur itself is far larger


@pytest.mark.parametrize(("cells", "side"), [(28, 224), (28, 30), (5, 16), (16, 16), (1, 7), (3, 8)])
def test_enlargement_is_torchs_nearest(cells: int, side: int) -> None:
    mask = uniform(1, 1, cells, cells, seed=7)
    grown = enlarge(cells, side) @ mask @ enlarge(cells, side).T
    torch.testing.assert_close(grown, F.interpolate(mask, size=(side, side), mode="nearest"), rtol=0, atol=0)


def test_discs_are_fongs() -> None:
    height, width = 30, 41
    drawn = discs(height, width, torch.zeros(1))
    assert list(RADII) == list(np.arange(0, 175, 5))
    for radius in (0, 5, 15, 170):
        y, x = np.ogrid[-15:15, -20:21]
        grid = (x * x + y * y <= radius * radius).astype(float)
        want = 1 - gaussian_filter(grid, 10)  # scipy's default edge, truncated at four
        np.testing.assert_allclose(drawn[RADII.index(radius)].numpy(), want, atol=1e-6)


def test_discs_on_the_masks_grid_are_degenerate() -> None:
    """methods 2.14: at 28 px every r of 20 or more hides everything, r = 10 is nearly flat (.53 to .69)."""
    drawn = discs(28, 28, torch.zeros(1))
    for radius in range(20, 175, 5):
        torch.testing.assert_close(drawn[RADII.index(radius)], torch.zeros(28, 28), rtol=0, atol=1e-6)
    ten = drawn[RADII.index(10)]
    assert round(float(ten.min()), 2) == 0.53
    assert round(float(ten.max()), 2) == 0.69


# -- first masks -------------------------------------------------------------------------------------------------------


class Centre(nn.Module):
    """Logits (contrast of the middle, 0): how far the mean of a central square lies above that of the image."""

    def __init__(self, half: int, gain: float) -> None:
        super().__init__()
        self.half, self.gain = half, gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        middle = x.shape[-1] // 2
        inside = slice(middle - self.half, middle + self.half)
        value = self.gain * (x[:, :, inside, inside].mean((1, 2, 3)) - x.mean((1, 2, 3)))
        return torch.stack([value, torch.zeros_like(value)], 1)


def spot(side: int, half: int) -> torch.Tensor:
    x = torch.zeros(3, side, side)
    middle = side // 2
    x[:, middle - half : middle + half, middle - half : middle + half] = 1
    return x


def test_ones_is_a_zero_map_and_random_is_the_images_own_stream() -> None:
    f, x = small(), uniform(3, 16, 16, seed=1)
    assert not raw(f, x, steps=0, init="ones").map.any()
    random = raw(f, x, steps=0, init="random", output_blur=0.0, seed=5)
    want = 1 - torch.from_numpy(Stream(5, "toy", "mask").uniform([0], (16, 16))[0])
    torch.testing.assert_close(random.map, want)
    assert (random.passes.forward, random.passes.backward) == (0, 0)
    assert random.notes == {
        "loss": None, "score": None, "l1": None, "tv": None, "mask_side": 16, "circle_radius": None,
    }  # fmt: skip


@pytest.mark.parametrize("place", ["input", "mask"])
def test_circle_is_the_smallest_disc_that_hides_99_percent(place: str) -> None:
    """Re-derived with numpy, scipy and the bare network, image by image."""
    side, cells = 64, 28
    net, x = Centre(8, 6.0), spot(side, 8)
    f = attrsens.Classifier(net, [0.0] * 3, [1.0] * 3, crop=side, device="cpu")
    found = raw(f, x, steps=0, init="circle", circle_at=place, output_blur=0.0, blur_radius=3)
    grid = side if place == "input" else cells
    y, across = np.ogrid[:grid, :grid]
    square = (y - grid // 2) ** 2 + (across - grid // 2) ** 2
    softened = gaussian_filter(x.double().numpy(), (0, 10, 10), mode="nearest", truncate=4.0)
    scores, masks = [], []
    for radius in range(0, 175, 5):
        mask = 1 - gaussian_filter((square <= radius**2).astype(float), 10)
        masks.append(mask)
        large = mask if place == "input" else mask[np.arange(side) * cells // side][:, np.arange(side) * cells // side]
        scores.append(
            float(torch.softmax(net(torch.from_numpy(x.numpy() * large + softened * (1 - large))[None]), 1)[0, 0])
        )
    clean = float(torch.softmax(net(x[None]), 1)[0, 0])
    first = next(i for i, p in enumerate(scores) if (p - scores[-1]) / (clean - scores[-1]) < 0.01)
    assert 0 < first < 34
    assert found.notes["circle_radius"] == 5 * first
    mask = masks[first]
    if place == "input":
        shrunk = np.arange(cells) * side // cells
        mask = mask[shrunk][:, shrunk]
    back = np.arange(side) * cells // side
    np.testing.assert_allclose(1 - found.map.numpy(), mask[back][:, back], atol=1e-5)
    assert (found.passes.forward, found.passes.backward) == (36, 0)


def test_circle_of_a_score_that_blur_does_not_lower_is_the_largest() -> None:
    """Denominators of zero (a constant image, a flat network) and below (a score that blur raises)."""
    side = 16
    flat = attrsens.Classifier(Linear(torch.zeros(4, 768), torch.ones(4)), [0.0] * 3, [1.0] * 3, crop=16, device="cpu")
    rising = attrsens.Classifier(Centre(4, -5.0), [0.0] * 3, [1.0] * 3, crop=side, device="cpu")
    for f, x in ((flat, spot(side, 4)), (rising, spot(side, 4)), (small(), torch.full((3, side, side), 0.4))):
        found = raw(f, x, steps=0, init="circle")
        assert found.notes["circle_radius"] == 170
        torch.testing.assert_close(found.map, torch.ones(side, side), rtol=0, atol=1e-6)


def test_the_disc_is_tried_with_a_blur_of_ten_whatever_the_radius() -> None:
    f = attrsens.Classifier(Centre(8, 6.0), [0.0] * 3, [1.0] * 3, crop=64, device="cpu")
    radii = {raw(f, spot(64, 8), steps=0, blur_radius=r).notes["circle_radius"] for r in (0.0, 1.0, 30.0)}
    assert len(radii) == 1


# -- jitter ------------------------------------------------------------------------------------------------------------


def test_jitter_is_keyed_by_seed_image_and_step() -> None:
    x = torch.zeros(1, 4, 4)
    long = _places([problem(x), problem(x, image="other"), problem(x, seed=1)], 4, 400)
    assert long.shape == (400, 2, 3)
    assert torch.equal(_places([problem(x)], 4, 30)[..., 0], long[:30, :, 0])
    want = torch.from_numpy(Stream(0, "toy", "jitter").uniform(range(400), (2,)) * 4).long()
    assert torch.equal(long[..., 0], want)
    for other in (1, 2):
        assert float((long[..., other] == long[..., 0]).float().mean()) < 0.4
    assert torch.bincount(long.flatten(), minlength=4).min() > 400
    assert set(long.flatten().tolist()) == {0, 1, 2, 3}
    for jitter in (0, 1):
        assert not _places([problem(x)], jitter, 50).any()


def test_jitter_and_seed_change_the_map_and_only_the_seed_draws() -> None:
    f, x = small(), uniform(3, 16, 16, seed=1)
    maps = [raw(f, x, steps=4, init="ones", seed=s, jitter=j).map for s, j in ((0, 4), (1, 4), (0, 0), (1, 0), (0, 1))]
    assert not torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[0], maps[2])
    assert torch.equal(maps[2], maps[3])
    assert not torch.equal(raw(f, x, steps=0, init="random", seed=1).map, raw(f, x, steps=0, init="random").map)


# -- many in one batch -------------------------------------------------------------------------------------------------


def mixed() -> list[Problem]:
    """Images, targets, blurs, seeds, first masks: all differ."""
    return [
        problem(uniform(3, 16, 16, seed=1), 0, "a", init="circle"),
        problem(uniform(3, 16, 16, seed=2), 3, "b", init="random", seed=7),
        problem(uniform(3, 16, 16, seed=3), 1, "c", blur_radius=5.0),
    ]


@pytest.mark.parametrize("batch", [2, 8])
def test_three_problems_together_are_three_alone(batch: int) -> None:
    f = small(batch=batch)
    shared = common(mask_side=8)
    courses = advance(view(f), mixed(), [0, 7, 25], shared)
    for each, course in zip(mixed(), courses, strict=True):
        (alone,) = advance(view(f), [each], [0, 7, 25], shared)
        for count in (0, 7, 25):
            torch.testing.assert_close(course.maps[count], alone.maps[count], rtol=0, atol=1e-4)
            assert_notes(course.notes[count], alone.notes[count])
        torch.testing.assert_close(course.terms, alone.terms, rtol=1e-4, atol=1e-6)
    assert [c.notes[0]["circle_radius"] is None for c in courses] == [False, True, True]


def test_a_batch_that_is_filled_up_gives_what_it_gives_with_other_images() -> None:
    """To the bit: the shape is what the numerics depend on."""
    f = small()
    shared = common(mask_side=8)
    padded = view(f)
    few = advance(padded, mixed()[:2], [20], shared, width=3)
    assert len(few) == 2
    assert (padded.passes.forward, padded.passes.backward) == (36 + 60, 60)
    for one, other in zip(few, advance(view(f), mixed(), [20], shared, width=3), strict=False):
        assert torch.equal(one.maps[20], other.maps[20])
        assert one.notes == other.notes


def test_images_together_are_the_explainers_one_by_one() -> None:
    f = small()
    xs, targets, images = uniform(3, 3, 16, 16, seed=8), [1, 4, 1], ["a", "b", "c"]
    p = SPEC.complete({"steps": 12, "mask_side": 8, "blur_radius": 2})
    own = {h.name: p[h.name] for h in SPEC.own()}
    assert SPEC.traits["together"] is together
    shared = view(f)
    results = together(shared, xs, targets, images, [f.zoom] * 3, [[own]] * 3, width=1)
    assert (shared.passes.forward, shared.passes.backward) == (3 * (36 + 12), 36)
    for x, target, image, ((heatmap, notes),) in zip(xs, targets, images, results, strict=True):
        alone = attrsens.Explainer(f, SPEC, target, p, image).raw(x)
        torch.testing.assert_close(heatmap, alone.map, rtol=0, atol=1e-4)
        assert_notes(notes, alone.notes)


def test_settings_of_one_image_share_the_search_for_the_disc() -> None:
    f, x = view(small()), uniform(3, 16, 16, seed=1)
    advance(f, [problem(x, blur_radius=r, init="circle") for r in (5.0, 10.0, 30.0)], [4], common())
    assert (f.passes.forward, f.passes.backward) == (36 + 12, 12)


def test_snapshots_of_a_long_run_are_the_shorter_runs() -> None:
    """SAM's sweep of 10, 150, 300 and 450 steps costs 450."""
    f, x = small(), uniform(3, 16, 16, seed=6)
    counts = [10, 150, 300, 450]
    watched = view(f)
    (course,) = advance(watched, [problem(x)], counts, common(mask_side=8))
    assert (watched.passes.forward, watched.passes.backward) == (450, 450)
    assert list(course.terms.shape) == [450, 3]
    for count in counts:
        found = raw(f, x, steps=count, init="ones", blur_radius=2, mask_side=8)
        assert torch.equal(course.maps[count], found.map)
        assert course.notes[count] == found.notes
        assert course.notes[count]["loss"] == pytest.approx(float(course.terms[count - 1].double().sum()), rel=1e-5)
    assert not torch.equal(course.maps[10], course.maps[150])


# -- what it finds -----------------------------------------------------------------------------------------------------


def test_the_mask_finds_the_pixel_a_network_looks_at() -> None:
    f = attrsens.Classifier(OnePixel(5, 9), [0.0] * 3, [1.0] * 3, crop=16, device="cpu")
    x = torch.zeros(3, 16, 16)
    x[:, 5, 9] = 1
    p = {"steps": 300, "blur_radius": 3, "l1_weight": 1e-2, "tv_weight": 1e-3, "output_blur": 0.0}
    for init in ("circle", "ones", "random"):
        found = raw(f, x, init=init, jitter=0, **p)
        assert int(found.map.argmax()) == 5 * 16 + 9
        assert float(found.map[5, 9]) > 0.9
        others = found.map.clone()
        others[4:7, 8:11] = 0
        assert float(others.max()) < 0.3, init
        assert found.notes["score"] < float(view(f).score(x[None], 0)) - 0.1


def test_the_loss_falls_to_what_the_blurred_spot_scores() -> None:
    f = attrsens.Classifier(Centre(8, 6.0), [0.0] * 3, [1.0] * 3, crop=64, device="cpu")
    x = spot(64, 8)
    (course,) = advance(view(f), [problem(x, blur_radius=10.0)], [100], common())
    clean, hidden = (float(view(f).score(image[None], 0)) for image in (x, blur(x, 10.0)))
    total = course.terms.sum(1)
    assert float(course.terms[0, 0]) == pytest.approx(clean, abs=0.02)  # ones: the image, but for the jitter
    assert float(course.terms[-1, 0]) < hidden + 0.02
    assert float(total[-1]) < float(total[0]) - 0.5 * (clean - hidden)


# -- inputs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(16, 16), (28, 28), (32, 32), (20, 33), (1, 1), (2, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_small_and_oblong_images_of_any_channels(height: int, width: int, channels: int) -> None:
    f = small(channels=channels)
    x = uniform(channels, height, width, seed=2)
    for init in ("circle", "ones", "random"):
        found = raw(f, x, steps=2, init=init)
        assert found.map.shape == (height, width)
        assert found.notes["mask_side"] == min(28, max(height, width))
        assert float(found.map.min()) >= 0
        assert float(found.map.max()) <= 1


def test_a_constant_image_has_nothing_to_hide() -> None:
    """The blur of a constant is itself: the mask goes back to one, wherever it started."""
    x = torch.full((3, 16, 16), 0.4)
    for init in ("circle", "ones", "random"):
        found = raw(small(), x, steps=150, init=init, l1_weight=1e-2)
        assert float(found.map.max()) < 1e-3, init


def test_without_a_step_the_map_is_the_first_mask_as_it_is_shown() -> None:
    f, x = small(), uniform(3, 16, 16, seed=2)
    mask = torch.from_numpy(Stream(0, "toy", "mask").uniform([0], (8, 8))[0])
    grown = mask.repeat_interleave(2, 0).repeat_interleave(2, 1)
    found = raw(f, x, steps=0, init="random", mask_side=8).map
    want = 1 - gaussian_filter(grown.double().numpy(), 1.0, mode="nearest", truncate=4.0)
    torch.testing.assert_close(found, torch.from_numpy(want).float(), rtol=0, atol=1e-6)


def test_quantised_maps_have_256_levels() -> None:
    f, x = small(), uniform(3, 16, 16, seed=2)
    exact, rounded = (raw(f, x, steps=0, init="random", quantize=q).map for q in (False, True))
    torch.testing.assert_close(rounded * 255, (rounded * 255).round(), rtol=0, atol=1e-3)
    assert 0 < float((exact - rounded).abs().max()) < 1.6 / 255
    mask = Stream(0, "toy", "mask").uniform([0], (16, 16))[0]
    picture = Image.fromarray((mask * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))
    levels = np.abs((1 - rounded.numpy()) * 255 - np.asarray(picture))
    assert levels.mean() < 2
    assert levels.max() < 8


@pytest.mark.parametrize("init", ["circle", "ones", "random"])
@pytest.mark.parametrize("output", ["prob", "logit"])
def test_the_space_makes_no_difference(init: str, output: str) -> None:
    """A mask mixes colours, whatever their unit; float noise only."""
    f, x = small(), uniform(3, 16, 16, seed=6)
    p = {"steps": 10, "init": init, "output": output, "mask_side": 8, "blur_radius": 2}
    pixel, normal = (raw(f, x, 1, space=s, **p) for s in ("pixel", "normalized"))
    torch.testing.assert_close(normal.map, pixel.map, rtol=0, atol=1e-4)
    assert_notes(normal.notes, pixel.notes)


def test_gradients_without_their_sign_are_refused() -> None:
    for dry in (False, True):
        with pytest.raises(attrsens.AttrsensError, match="mp: sign=abs_sample is for methods that average gradients"):
            raw(small(), uniform(3, 16, 16), dry=dry, sign="abs_sample")


@pytest.mark.parametrize(("p", "forward", "backward"), [
    ({"steps": 7}, 43, 7),
    ({"steps": 7, "init": "ones"}, 7, 7),
    ({"steps": 7, "init": "random"}, 7, 7),
    ({"steps": 7, "circle_at": "mask"}, 43, 7),
    ({"steps": 0}, 36, 0),
    ({"steps": 0, "init": "ones"}, 0, 0),
])  # fmt: skip
def test_passes_made_are_the_passes_counted_dry(p: dict, forward: int, backward: int) -> None:
    f, x = small(), uniform(3, 16, 16, seed=6)
    for dry in (False, True):
        passes = raw(f, x, dry=dry, **p).passes
        assert (passes.forward, passes.backward) == (forward, backward)


def test_a_dry_run_is_cheap_and_batches_count_too() -> None:
    f = view(small(), dry=True)
    courses: list[Course] = advance(f, mixed(), [100, 100_000], common())
    assert (f.passes.forward, f.passes.backward) == (36 + 300_000, 300_000)
    assert len(courses) == 3
    assert courses[0].maps[100].shape == (16, 16)


def test_the_published_sweeps_are_recorded() -> None:
    sweeps = {h.name: (h.param.sweep, h.param.reference) for h in SPEC.own() if h.param.sweep}
    assert sweeps["steps"] == ((10, 150, 300, 450), 300)
    assert sweeps["blur_radius"] == ((5, 10, 30), 10)
    assert sweeps["seed"] == ((0, 1, 2, 3, 4), 0)
    assert sweeps["init"] == (("circle", "ones", "random"), "circle")
    assert SPEC.hyper("output").default == "prob"
    assert {h.name: h.default for h in SPEC.own()} == {
        "steps": 300, "blur_radius": 10.0, "blur_space": "crop", "init": "circle", "seed": 0, "circle_at": "input",
        "mask_side": 28, "mask_blur": 0.0, "jitter": 4, "l1_weight": 1e-4, "tv_weight": 1e-2, "tv_power": 3.0,
        "tv": "aniso", "learning_rate": 0.1, "output_blur": 1.0, "quantize": False,
    }  # fmt: skip


def test_on_the_real_network_a_batch_of_fixed_shape_is_exact(lite0, chelsea) -> None:
    """Two images together, and each alone at the same width, agree to the bit; at another width float noise, which
    the optimiser amplifies, stays small. The tabby's score falls."""
    xs, targets, images = torch.stack([chelsea, chelsea.flip(-1)]), [281, 282], ["a", "b"]
    p = SPEC.complete({"steps": 8, "init": "ones"})
    own = {h.name: p[h.name] for h in SPEC.own()}
    results = together(view(lite0), xs, targets, images, [(1.0, 1.0)] * 2, [[own]] * 2, width=2)
    for i, ((heatmap, notes),) in enumerate(results):
        given = xs[i : i + 1], targets[i : i + 1], images[i : i + 1], [(1.0, 1.0)]
        (((alone, same),),) = together(view(lite0), *given, [[own]], width=2)
        assert torch.equal(heatmap, alone)
        assert notes == same
        narrow = attrsens.Explainer(lite0, SPEC, targets[i], p, images[i]).raw(xs[i])
        assert float((narrow.map - heatmap).abs().mean()) < 1e-3
        assert notes["score"] == pytest.approx(narrow.notes["score"], rel=1e-3)
        assert notes["score"] < float(view(lite0).score(xs[i][None], targets[i]))
