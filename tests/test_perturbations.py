"""What attacks may do to an image, against closed forms, finite differences, plain loops and skimage; and the stages of
the boundary search."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from skimage.color import rgb2luv
from toys import draw, linear, uniform

import attrsens
from attrsens.attacks._colours import LATTICE, WHITE_U, WHITE_V, lookup, luv, nodes, rgb
from attrsens.attacks._perturbations import Delta, Family, ReColor, StAdv, families, perturbed, projected
from attrsens.boundary import ATTACKS, Search, nearest_boundary

ALL = "delta-stadv-recolor"
NAMES = ("delta", "stadv", "recolor", "delta-stadv", "delta-recolor", "stadv-recolor", ALL)
CORNERS = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3))).T.reshape(1, 3, 2, 4)  # black, primaries, white


def made(names: str, images: torch.Tensor, scale: float = 1.0) -> list[Family]:
    bounds = [torch.full((len(images),), scale * v, dtype=images.dtype) for v in (0.03, 0.05, 0.06)]
    return families(names, images, *bounds)


def somewhere(moves: list[Family], share: float = 0.7, seed: int = 0) -> list[torch.Tensor]:
    """Parameters that lie anywhere within `share` of the bounds."""
    found = []
    for i, move in enumerate(moves):
        zero = move.start()
        low, high = move.project(zero - 9), move.project(zero + 9)
        draws = 2 * uniform(*zero.shape, seed=seed + i).to(zero) - 1
        found.append(move.project((low + high) / 2 + share * draws * (high - low) / 2))
    return found


# -- all families ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("names", "most"), [("delta", 0.0), ("stadv", 0.0), ("recolor", 1e-4), (ALL, 1e-4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_the_start_an_image_is_itself(names: str, most: float, dtype: torch.dtype) -> None:
    for images in (uniform(2, 3, 11, 7).to(dtype), CORNERS.to(dtype), torch.full((1, 3, 4, 4), 0.5, dtype=dtype)):
        moves = made(names, images)
        got = perturbed(moves, [m.start() for m in moves], images)
        assert got.dtype == dtype
        assert float((got - images).abs().max()) <= most
        for move in moves:
            sizes = move.size(move.start())
            assert all(v.shape == (len(images),) and float(v.max()) < 0.01 for v in sizes.values())


@pytest.mark.parametrize("names", NAMES)
def test_slopes_are_finite_differences(names: str) -> None:
    """In float64, with penalties, along random directions."""
    images = 0.3 + 0.4 * uniform(2, 3, 7, 5, seed=3).double()
    moves = made(names, images)
    params = somewhere(moves)
    weight = draw(*images.shape, seed=9).double()

    def value(at: list[torch.Tensor]) -> torch.Tensor:
        rough = sum((m.penalty(p).sum() for m, p in zip(moves, at, strict=True)), torch.zeros(()))
        return (perturbed(moves, at, images) * weight).sum() + 0.05 * rough

    leaves = [p.clone().requires_grad_() for p in params]
    slopes = torch.autograd.grad(value(leaves), leaves)
    for k in range(len(moves)):
        for seed in range(3):
            way = draw(*params[k].shape, seed=20 + seed).double()
            way /= way.norm()
            near = [[p + h * way if i == k else p for i, p in enumerate(params)] for h in (1e-6, -1e-6)]
            want = float(value(near[0]) - value(near[1])) / 2e-6
            assert float((slopes[k] * way).sum()) == pytest.approx(want, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("names", NAMES)
def test_an_image_does_not_see_its_neighbours(names: str) -> None:
    images = uniform(3, 3, 9, 6, seed=1)
    bounds = [torch.tensor([a, 2 * a, 3 * a]) for a in (0.01, 0.02, 0.03)]
    moves = families(names, images, *bounds)
    params = [p.requires_grad_() for p in somewhere(moves, 3.0)]
    got = perturbed(moves, params, images)
    slopes = torch.autograd.grad(got.square().sum(), params)
    for i in range(3):
        alone = families(names, images[i : i + 1], *(b[i : i + 1] for b in bounds))
        own = [p[i : i + 1].detach().requires_grad_() for p in params]
        one = perturbed(alone, own, images[i : i + 1])
        torch.testing.assert_close(one[0], got[i], atol=1e-6, rtol=0)
        for a, b in zip(torch.autograd.grad(one.square().sum(), own), slopes, strict=True):
            torch.testing.assert_close(a[0], b[i], atol=1e-5, rtol=1e-4)
        for a, b, p, q in zip(alone, moves, own, params, strict=True):
            torch.testing.assert_close(a.penalty(p)[0], b.penalty(q)[i])
            for name, value in a.size(p).items():
                torch.testing.assert_close(value[0], b.size(q)[name][i], atol=1e-5, rtol=1e-4)


def test_bounds_hold_however_large_the_parameters_and_differ_between_images() -> None:
    images = torch.cat([uniform(2, 3, 9, 6, seed=1), CORNERS.repeat(1, 1, 5, 2)[:, :, :9, :6]])
    bounds = [torch.tensor([0.01, 0.2, 0.05])] * 3
    moves = families(ALL, images, *bounds)
    wild = [draw(*m.start().shape, seed=k) * 10 for k, m in enumerate(moves)]
    got = perturbed(moves, wild, images)
    assert bool(((got >= 0) & (got <= 1)).all())
    for move, params in zip(moves, wild, strict=True):
        cut = move.project(params)
        assert torch.equal(move.project(cut), cut)
        torch.testing.assert_close(cut.flatten(1).abs().amax(1), bounds[0])
    recolor, stadv, delta = moves
    flow = stadv.size(stadv.project(wild[1]))
    reach = bounds[0] * math.hypot(5 / 2, 8 / 2)
    assert bool((flow["flow_max"] <= reach + 1e-5).all())
    assert bool((flow["flow_max"] > 0.8 * reach).all())
    assert bool((flow["flow_mean"] < flow["flow_max"]).all())
    moved = recolor.project(wild[0]) + nodes(images)
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1 + 1e-6
    alone = delta.apply(delta.project(wild[2]), images)
    assert bool(((alone - images).abs().flatten(1).amax(1) <= bounds[0] + 1e-6).all())
    size = delta.size(alone - images)
    torch.testing.assert_close(size["delta_l2"], (alone - images).flatten(1).norm(dim=1))


@pytest.mark.parametrize("names", NAMES)
def test_slopes_are_finite_at_black_at_white_and_at_the_primaries(names: str) -> None:
    images = torch.cat([CORNERS, torch.zeros(1, 3, 2, 4), torch.ones(1, 3, 2, 4), 1e-6 * uniform(1, 3, 2, 4)])
    images.requires_grad_()
    moves = made(names, images, 3.0)
    for params in ([m.start() for m in moves], somewhere(moves, 0.9)):
        leaves = [p.detach().requires_grad_() for p in params]
        loss = perturbed(moves, leaves, images).sum() + sum(
            m.penalty(p).sum() for m, p in zip(moves, leaves, strict=True)
        )
        assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(loss, [*leaves, images]))


def test_several_are_applied_colours_first_and_sums_last() -> None:
    images = uniform(2, 3, 9, 6, seed=1)
    moves = made("delta-recolor-stadv", images)
    assert [m.name for m in moves] == ["recolor", "stadv", "delta"]
    params = somewhere(moves)
    coloured = moves[0].apply(params[0], images)
    moved = moves[1].apply(params[1], coloured)
    want = moved + moves[2].project(params[2], moved)
    torch.testing.assert_close(perturbed(moves, params, images), want)
    cut = projected(moves, [p * 10 for p in params], images)
    torch.testing.assert_close(perturbed(moves, cut, images), perturbed(moves, [p * 10 for p in params], images))
    assert bool(((moved + cut[2]) >= 0).all())
    assert bool(((moved + cut[2]) <= 1).all())


def test_what_reports_show() -> None:
    images = uniform(2, 3, 9, 6, seed=1).double()
    moves = made(ALL, images)
    found = {k: v for m, p in zip(moves, somewhere(moves), strict=True) for k, v in m.pictures(p).items()}
    assert {k: (v.shape, str(v.dtype)) for k, v in found.items()} == {
        "recoloured": ((2, 3, 9, 6), "float32"),
        "flow": ((2, 2, 9, 6), "float32"),
    }


def test_mistakes_are_told() -> None:
    with pytest.raises(attrsens.AttrsensError, match="unknown perturbation 'delat'; did you mean 'delta'"):
        made("delat", uniform(1, 3, 4, 4))
    with pytest.raises(attrsens.AttrsensError, match="names one family twice"):
        made("delta-delta", uniform(1, 3, 4, 4))
    with pytest.raises(attrsens.AttrsensError, match=r"of 1 channel\(s\) has none"):
        made("recolor", uniform(1, 1, 4, 4))
    with pytest.raises(attrsens.AttrsensError, match="unknown colour space 'lab'"):
        ReColor(uniform(1, 3, 4, 4), torch.tensor([0.1]), "lab")
    with pytest.raises(attrsens.AttrsensError, match="one an image, 2"):
        Delta(uniform(2, 3, 4, 4), torch.tensor(0.1))
    assert made("delta-stadv", uniform(1, 1, 4, 4))[0].name == "stadv"  # grey images do for these


# -- delta -------------------------------------------------------------------------------------------------------------


def test_delta_is_never_stuck_at_the_end_of_the_range() -> None:
    """A step out of [0, 1] is cut off, and the slope there is still the one that leads back."""
    images = torch.cat([torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.3)])
    move = Delta(images, torch.full((3,), 0.03))
    d = move.project(torch.tensor([0.03, -0.03, 0.03]).reshape(3, 1, 1, 1).expand_as(images)).requires_grad_()
    assert d.flatten(1)[:, 0].tolist() == pytest.approx([0, 0, 0.03])
    (slope,) = torch.autograd.grad(perturbed([move], [d], images).sum(), d)
    assert torch.equal(slope, torch.ones_like(slope))
    assert torch.equal(move.penalty(d), torch.zeros(3))


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_black_and_white_can_be_moved(level: float) -> None:
    """At the start every family's gradient is there, whichever way it leads; `clamp` would stop it."""
    images = torch.full((1, 3, 4, 4), level)
    (recolor,), (delta,) = made("recolor", images), made("delta", images)
    for move in (recolor, delta):
        leaf = move.start().requires_grad_()
        (slope,) = torch.autograd.grad(perturbed([move], [leaf], images).sum(), leaf)
        assert float(slope.sum()) > 1
        back = move.project(leaf.detach() + 0.01 * (1 - 2 * level))
        assert float((perturbed([move], [back], images) - images).abs().max()) > 0.005


# -- stadv -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("right", "down"), [(1, 0), (0, 1), (-1, 0), (0, -1), (2, -1)])
def test_a_flow_of_whole_pixels_is_a_roll(right: int, down: int) -> None:
    images = uniform(2, 2, 9, 6)
    move = StAdv(images, torch.ones(2))
    flow = torch.tensor([2 * right / 5, 2 * down / 8]).expand(2, 9, 6, 2)
    allowed = move.project(flow)
    got = move.apply(allowed, images)
    inside = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    torch.testing.assert_close(got[inside], images.roll((-down, -right), (2, 3))[inside], atol=1e-6, rtol=0)
    sizes = move.size(flow)
    torch.testing.assert_close(sizes["flow_max"], torch.full((2,), math.hypot(right, down)))
    torch.testing.assert_close(sizes["flow_mean"], torch.full((2,), math.hypot(right, down)))
    assert move.pictures(flow)["flow"][0, :, 4, 3].tolist() == pytest.approx([right, down])


@pytest.mark.parametrize("shape", [(9, 6), (6, 6), (2, 5)])
def test_a_flow_reads_what_torch_s_sampler_reads(shape: tuple[int, int]) -> None:
    images = uniform(2, 3, *shape).double()
    move = StAdv(images, torch.tensor([0.3, 0.8]))
    params = move.project(draw(2, *shape, 2, seed=4).double())
    identity = F.affine_grid(torch.eye(2, 3).double().expand(2, 2, 3), list(images.shape), align_corners=True)
    want = F.grid_sample(images, identity + params, padding_mode="zeros", align_corners=True)
    torch.testing.assert_close(move.apply(params, images), want, atol=1e-12, rtol=0)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (1, 1)])
def test_nothing_flows_across_a_single_pixel(shape: tuple[int, int]) -> None:
    images = uniform(2, 3, *shape)
    move = StAdv(images, torch.ones(2))
    params = move.project(draw(2, *shape, 2, seed=4))
    across = torch.tensor([shape[1] == 1, shape[0] == 1])
    assert float(params[..., across].abs().max()) == 0
    assert bool(move.apply(params, images).isfinite().all())
    torch.testing.assert_close(move.apply(move.start(), images), images)


@pytest.mark.parametrize("name", ["stadv", "recolor"])
def test_penalties_against_a_plain_loop(name: str) -> None:
    """Over the neighbours of every point along every axis, an edge being its own neighbour."""
    (move,) = made(name, uniform(2, 3, 5, 4).double())
    params = somewhere([move])[0]
    if name == "recolor":
        params = params[:, :4, :3, :5]
    for row, got in zip(params, move.penalty(params), strict=True):
        grid = row.shape[:-1]
        total = 0.0
        for at in itertools.product(*(range(n) for n in grid)):
            for axis, way in itertools.product(range(len(grid)), (-1, 1)):
                other = list(at)
                other[axis] = min(max(at[axis] + way, 0), grid[axis] - 1)
                total += math.sqrt(sum(float(v) ** 2 for v in row[at] - row[tuple(other)]) + 1e-10)
        assert float(got) == pytest.approx(total, rel=1e-10)
    zero = move.start()
    sides = 2 * (len(zero.shape) - 2)
    assert float(move.penalty(zero)[0]) == pytest.approx(sides * 1e-5 * zero[0, ..., 0].numel())


# -- recolor -----------------------------------------------------------------------------------------------------------


def test_colours_are_those_of_skimage_and_come_back() -> None:
    """Everywhere, primaries and black included; white is D65, as ReColorAdv rounds it."""
    assert (round(WHITE_U, 4), round(WHITE_V, 4)) == (0.1978, 0.4683)
    steps = torch.linspace(0, 1, 18, dtype=torch.float64)
    images = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij")).reshape(1, 3, 18, 324)
    got = luv(images)
    want = torch.from_numpy(rgb2luv(images[0].permute(1, 2, 0).numpy())).permute(2, 0, 1)[None]
    scale = torch.tensor([100.0, 200.0, 200.0]).reshape(1, 3, 1, 1)
    shift = torch.tensor([0.0, 100.0, 100.0]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(got * scale - shift, want, atol=1e-3, rtol=0)
    torch.testing.assert_close(rgb(got), images, atol=1e-5, rtol=0)
    assert got[0, 1].max() > 1  # what the lattice does not reach
    torch.testing.assert_close(luv(images.float()).double(), got, atol=1e-5, rtol=0)


def test_any_colour_becomes_one_of_srgb_and_darkness_does_not_glare() -> None:
    wild = 3 * uniform(1, 3, 50, 50, seed=2) - 1
    got = rgb(wild)
    assert bool(((got >= 0) & (got <= 1)).all())
    dark = luv(torch.full((1, 3, 1, 1), 0.002)) + 0.06 * (2 * uniform(1, 3, 1, 2000) - 1)
    seen = rgb(dark)[0, :, 0, :]
    luminance = torch.tensor([0.2127, 0.7152, 0.0722]) @ torch.where(
        seen > 0.04045, ((seen + 0.055) / 1.055) ** 2.4, seen / 12.92
    )
    assert float(luminance.max()) < 0.02  # L of 6 is 0.007


def test_the_lookup_is_trilinear_in_a_lattice_of_each_image_s_own() -> None:
    lattices = draw(2, *LATTICE, 3).double()
    colours = 1.2 * uniform(2, 3, 3, 4, seed=5).double() - 0.1
    got = lookup(lattices, colours)
    for i, y, x in itertools.product(range(2), range(3), range(4)):
        at = [float(c.clamp(0, 1)) * (n - 1) for c, n in zip(colours[i, :, y, x], LATTICE, strict=True)]
        want = torch.zeros(3).double()
        for corner in itertools.product((0, 1), repeat=3):
            index = tuple(min(int(p) + k, n - 1) for p, k, n in zip(at, corner, LATTICE, strict=True))
            share = math.prod(p % 1 if k else 1 - p % 1 for p, k in zip(at, corner, strict=True))
            want += share * lattices[(i, *index)]
        torch.testing.assert_close(got[i, :, y, x], want)


def test_a_shift_of_all_nodes_shifts_every_colour() -> None:
    images = 0.4 + 0.2 * uniform(2, 3, 6, 4, seed=1).double()
    move = ReColor(images, torch.tensor([0.06, 0.03]))
    params = torch.tensor([0.02, -0.01, 0.01]).double().expand(2, *LATTICE, 3)
    want = luv(images) + params[0, 0, 0, 0].reshape(1, 3, 1, 1)
    torch.testing.assert_close(luv(move.apply(params, images)), want, atol=1e-6, rtol=0)
    sizes = move.size(params)
    torch.testing.assert_close(sizes["delta_e"], torch.full((2,), math.sqrt(12)).double(), atol=1e-3, rtol=0)
    assert sizes["colour_max"].tolist() == pytest.approx([0.02, 0.02])
    assert sizes["colour_mean"].tolist() == pytest.approx([0.04 / 3] * 2)
    same = images[:, :, :1, :1].expand(-1, -1, 6, 4)
    got = move.apply(somewhere([move])[0], same)
    torch.testing.assert_close(got, got[:, :, :1, :1].expand_as(got))  # places do not matter


# -- the stages of the boundary search ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bisect", [0, 6])
def test_stages_say_how_close_the_search_was_after_each_attack(bisect: int) -> None:
    f, _ = linear(seed=3)
    x = 0.5 + 0.02 * draw(5, 3, 6, 6, seed=5)
    own = f.logits(x).argmax(1)
    view = f.view(image="toy")
    options = {"radii": (0.02,), "doublings": 2, "steps": 20, "eps": 0.4}  # too short for some of the images

    def search(names: tuple[str, ...], bisect: int) -> attrsens.boundary.Boundary:
        return nearest_boundary(view, x, own, Search(attacks=names, bisect=bisect, **options))

    found = search(ATTACKS, bisect)
    names = [stage.name for stage in found.stages]
    assert names == [*ATTACKS, "bisect"][: 4 if bisect else 3]
    assert not bool(found.stages[0].success.all())
    assert bool(found.success.any())
    alone = [search((name,), 0) for name in ATTACKS]
    least = torch.full((5,), math.inf)
    for k, attack in enumerate(ATTACKS):
        so_far = search(ATTACKS[: k + 1], 0)
        stage = found.stages[k]
        assert torch.equal(stage.success, so_far.success)
        assert torch.equal(stage.distance.isfinite(), stage.success)
        torch.testing.assert_close(stage.distance[stage.success], so_far.distance[stage.success])
        one = alone[k].stages[0]
        assert one.name == attack
        least = torch.minimum(least, one.distance)
        torch.testing.assert_close(stage.distance, least)
    for before, after in itertools.pairwise(found.stages):
        assert bool((after.distance <= before.distance).all())
        assert bool((after.success | ~before.success).all())
    last = found.stages[-1]
    assert torch.equal(last.success, found.success)
    torch.testing.assert_close(last.distance[found.success], found.distance[found.success])
    planned = nearest_boundary(view.view(dry=True), x, own, Search(attacks=ATTACKS, bisect=bisect))
    assert [stage.name for stage in planned.stages] == names
    assert all(stage.distance.shape == stage.success.shape == (5,) for stage in planned.stages)
