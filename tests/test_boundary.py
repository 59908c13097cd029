"""The nearest-boundary search and the methods that stand on it, where the answer can be written down."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn
from toys import KINDS, Linear, Quadratic, SmallNet, draw, explain, linear, small, uniform

import attrsens
from attrsens.boundary import ATTACKS, RADII, Boundary, Search, nearest_boundary
from attrsens.boundary.losses import logit_ratio, margin, odds
from attrsens.methods.agi import classes as agi_classes
from attrsens.seeds import Stream

BARE = Search(bisect=0, polish=0)


def raw(f: attrsens.Classifier, method: str, x: Tensor, target: int, **parameters: object) -> attrsens.explainer.Raw:
    spec = attrsens.METHODS[method]
    return attrsens.Explainer(f, spec, target, spec.complete(parameters), image="toy").raw(x)


def lively(kind: str = "functional") -> attrsens.Classifier:
    """A small network over 16 x 16 images that gives them several classes."""
    net = SmallNet(kind).eval()
    with torch.no_grad():
        logits = net((uniform(50, 3, 16, 16, seed=77) - 0.45) / 0.25)
        net.fc.bias.sub_(logits.mean(0))
        for p in net.fc.parameters():
            p.mul_(20)
    return attrsens.Classifier(net, [0.45] * 3, [0.25] * 3, crop=16, device="cpu")


def middling(f: attrsens.Classifier, count: int = 4, seed: int = 5) -> tuple[Tensor, Tensor]:
    """Images far from the ends of the box, and their classes."""
    x = 0.5 + 0.02 * draw(count, 3, 6, 6, seed=seed)
    return x, f.logits(x).argmax(1)


def analytic(w: Tensor, logits: Tensor, classes: Tensor) -> Tensor:
    """min over t of |f_c - f_t| / ||w_c - w_t||."""
    w = w.flatten(1)
    gaps = logits.gather(1, classes[:, None]) - logits
    distances = gaps / (w[classes][:, None] - w[None]).norm(dim=2).clamp(min=1e-9)
    return distances.scatter(1, classes[:, None], math.inf).amin(1)


def search(f: attrsens.Classifier, x: Tensor, classes: Tensor, settings: Search, **more: object) -> Boundary:
    found = nearest_boundary(f.view(image="toy"), x, classes, settings, **more)
    logits = f.logits(found.points)
    assert bool((logits.argmax(1) != classes)[found.success].all())
    assert torch.equal(logits.argmax(1)[found.success], found.other[found.success])
    torch.testing.assert_close(found.distance, (found.points - x).flatten(1).norm(dim=1))
    assert float(found.points.min()) >= min(0, float(x.min()))
    assert float(found.points.max()) <= max(1, float(x.max()))
    return found


# -- the search -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("classes", [2, 4, 10])
def test_linear_distance_is_the_analytic_one(attack: str, classes: int) -> None:
    f, w = linear(seed=3, classes=classes)
    x, own = middling(f)
    want = analytic(w, f.logits(x), own)
    eps = 1.2 * float(want.max())
    found = search(f, x, own, Search(attacks=(attack,), eps=eps, steps=60))
    assert bool(found.success.all())
    torch.testing.assert_close(found.distance, want, rtol=0.01, atol=0)
    assert bool((found.distance > want * (1 - 1e-4)).all())
    assert set(found.attack) <= {attack, "polish"}


def test_cw_alone_reaches_it_without_bisection() -> None:
    f, w = linear(seed=3)
    x, own = middling(f)
    found = search(f, x, own, replace(BARE, attacks=("cw",), steps=150))
    torch.testing.assert_close(found.distance, analytic(w, f.logits(x), own), rtol=0.01, atol=0)


def test_distance_is_that_of_pixels_whatever_the_normaliser() -> None:
    weight, std = draw(4, 108, seed=3), [0.2, 0.5, 0.25]
    f = attrsens.Classifier(Linear(weight, draw(4, seed=4)), [0.4, 0.5, 0.6], std, crop=6, device="cpu")
    x, own = middling(f)
    slope = weight.reshape(4, 3, 6, 6) / torch.tensor(std).reshape(3, 1, 1)
    for space in ("pixel", "normalized"):
        found = nearest_boundary(f.view(space=space, output="prob", sign="abs_sample"), x, own, Search())
        torch.testing.assert_close(found.distance, analytic(slope, f.logits(x), own), rtol=0.01, atol=0)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_box_that_binds_gives_the_solution_of_the_quadratic_programme(attack: str) -> None:
    """min ||y - x||^2 subject to (w_0 - w_1) y + b = 0 and 0 <= y <= 1, by scipy's SLSQP."""
    f, w = linear(seed=7, side=3, classes=2)
    x = (0.5 + 0.6 * draw(1, 3, 3, 3, seed=1)).clamp(0, 1)
    own = f.logits(x).argmax(1)
    sign = 1.0 if int(own) == 0 else -1.0
    normal = sign * (w[0] - w[1]).flatten().double().numpy()
    flat = x.flatten().double().numpy()
    gap = float(-margin(f.logits(x), own))
    solved = minimize(
        lambda y: ((y - flat) ** 2).sum(),
        flat,
        jac=lambda y: 2 * (y - flat),
        bounds=[(0, 1)] * len(flat),
        constraints={"type": "eq", "fun": lambda y: gap + normal @ (y - flat), "jac": lambda y: normal},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    want = math.sqrt(solved.fun)
    free = gap / math.sqrt((normal**2).sum())
    assert want > 1.02 * free  # the box binds
    found = search(f, x, own, Search(attacks=(attack,), eps=2 * want, steps=60))
    assert float(found.distance) == pytest.approx(want, rel=0.01)


def test_quadratic_boundary_is_the_sphere() -> None:
    """|x' - grey| = 1 from inside, the hard way to curve: a foot on the tangent plane lies beyond the boundary."""

    class Sphere(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            inside = 1 - (x - 0.5).flatten(1).square().sum(1)
            return torch.stack([inside, torch.zeros_like(inside)], 1) * 5

    f = attrsens.Classifier(Sphere(), [0.0] * 3, [1.0] * 3, crop=4, device="cpu")
    x = 0.5 + 0.05 * draw(3, 3, 4, 4, seed=2)
    own = f.logits(x).argmax(1)
    want = 1 - (x - 0.5).flatten(1).norm(dim=1)
    for attack in ATTACKS:
        rough = search(f, x, own, Search(attacks=(attack,)))
        torch.testing.assert_close(rough.distance, want, rtol=0.08, atol=0)
        found = search(f, x, own, Search(attacks=(attack,), steps=100, polish=10))
        torch.testing.assert_close(found.distance, want, rtol=0.01, atol=0)


def test_bisection_ends_on_the_boundary_and_on_its_far_side() -> None:
    f, _ = linear(seed=3)
    x, own = middling(f)
    rough, fine = (search(f, x, own, replace(BARE, bisect=steps)) for steps in (0, 14))
    assert bool((fine.distance < rough.distance).all())
    assert float(margin(f.logits(rough.points), own).min()) > 0.01
    beyond = margin(f.logits(fine.points), own)
    assert float(beyond.min()) >= 0
    assert float(beyond.max()) < 0.01


def test_pgd_keeps_the_first_radius_that_succeeds() -> None:
    """Its points lie within that radius, and the radius below it is too short to reach the boundary."""
    f, w = linear(seed=3)
    x, own = middling(f)
    want = analytic(w, f.logits(x), own)
    found = search(f, x, own, replace(BARE, steps=60))
    rungs = torch.tensor([0.0, *BARE.ladder])
    for i, radius in enumerate(found.radius):
        below = rungs[rungs < radius - 1e-6].max()
        assert float(below) < 1.1 * float(want[i])  # no rung that clearly reaches was left out
        assert float(radius) >= float(want[i])
        assert float(found.distance[i]) <= float(radius) * (1 + 1e-5)


def test_the_list_of_radii_goes_on_in_doublings() -> None:
    assert Search(doublings=0).ladder == sorted(RADII)
    assert Search().ladder == pytest.approx([*sorted(RADII), 1.4, 1.8, 2.2, 2.8, 3.6, 4.4])
    assert Search().rounds == 4
    f, w = linear(seed=3)
    f = attrsens.Classifier(Linear(w.flatten(1) * 0.1, torch.tensor([3.0, 0, 0, 0])), [0.0] * 3, [1.0] * 3, crop=6)
    x, own = middling(f)
    assert float(analytic(w * 0.1, f.logits(x), own).min()) > 1.1
    assert not bool(search(f, x, own, replace(BARE, doublings=0)).success.any())
    assert bool(search(f, x, own, replace(BARE, doublings=2)).success.all())


def test_failure_is_flagged_and_keeps_the_last_iterate() -> None:
    f = attrsens.Classifier(
        Linear(draw(3, 108), torch.tensor([500.0, 0, 0])), [0.0] * 3, [1.0] * 3, crop=6, device="cpu"
    )
    x, own = middling(f)
    for attack in ATTACKS:
        found = search(f, x, own, Search(attacks=(attack,)))
        assert not bool(found.success.any())
        assert bool(found.radius.isnan().all())
        assert bool((found.other != own).all())
        assert found.attack == (attack,) * 4
    found = search(f, x, own, Search(radii=(0.3,), doublings=0))
    torch.testing.assert_close(found.distance, torch.full((4,), 0.3))


def test_success_is_a_change_of_index_not_a_fall() -> None:
    """Another class than the winner is stated: the image itself has lost it, at distance 0."""
    f, _ = linear(seed=3)
    x, own = middling(f)
    found = search(f, x, (own + 1) % 4, Search())
    assert bool(found.success.all())
    assert torch.equal(found.other, own)
    assert float(found.distance.max()) < 1e-3


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_batch_of_images_equals_the_single_ones(attack: str) -> None:
    f = lively()
    x = uniform(5, 3, 16, 16, seed=1)
    own = f.logits(x).argmax(1)
    settings = Search(attacks=(attack,), steps=10, eps=5, doublings=4)
    names = [f"image {i}" for i in range(5)]
    whole = search(f, x, own, settings, images=names)
    assert bool(whole.success.all())
    for i, name in enumerate(names):
        one = search(f, x[i : i + 1], own[i : i + 1], settings, images=[name])
        torch.testing.assert_close(one.points[0], whole.points[i], rtol=1e-4, atol=1e-4)
        assert bool(one.success) == bool(whole.success[i])


def test_draws_are_keyed_by_seed_and_image() -> None:
    f, _ = linear(seed=3)
    x, own = middling(f)
    base = search(f, x, own, BARE)
    assert torch.equal(search(f, x, own, BARE).points, base.points)
    assert not torch.equal(search(f, x, own, replace(BARE, seed=1)).points, base.points)
    assert not torch.equal(search(f, x, own, BARE, images=["other"] * 4).points, base.points)


def test_the_closest_of_all_attacks_is_kept() -> None:
    f = lively()
    x = uniform(3, 3, 16, 16, seed=1)
    own = f.logits(x).argmax(1)
    settings = replace(BARE, steps=15, eps=6, doublings=4)
    alone = torch.stack([search(f, x, own, replace(settings, attacks=(a,))).distance for a in ATTACKS])
    lost = torch.stack([search(f, x, own, replace(settings, attacks=(a,))).success for a in ATTACKS])
    both = search(f, x, own, replace(settings, attacks=ATTACKS))
    want = alone.masked_fill(~lost, math.inf).amin(0)
    torch.testing.assert_close(both.distance[both.success], want[both.success], rtol=1e-4, atol=1e-5)
    assert torch.equal(both.success, lost.any(0))


def test_apgd_returns_its_closest_success_unless_told_otherwise() -> None:
    f, _ = linear(seed=3)
    x, own = middling(f)
    closest, last = (
        search(f, x, own, replace(BARE, attacks=("apgd",), eps=2.0, steps=40, track_closest=t)) for t in (True, False)
    )
    assert bool((closest.distance <= last.distance).all())
    torch.testing.assert_close(last.distance, torch.full((4,), 2.0), rtol=0.02, atol=0)


@pytest.mark.parametrize("attacks", [("pgd",), ("cw",), ("apgd",), ATTACKS])
@pytest.mark.parametrize("bisect", [0, 3])
def test_passes_are_what_the_settings_say(attacks: tuple[str, ...], bisect: int) -> None:
    f, _ = linear(seed=3)
    x, own = middling(f)
    settings = Search(attacks=attacks, steps=5, bisect=bisect, searches=2)
    made, planned = f.view(), f.view(dry=True)
    nearest_boundary(made, x, own, settings)
    nearest_boundary(planned, x, own, settings)
    assert made.passes == planned.passes
    assert (made.passes.forward, made.passes.backward) == tuple(4 * n for n in settings.passes)


def test_losses_against_plain_loops() -> None:
    logits, own = draw(5, 4, seed=1) * 3, torch.tensor([0, 1, 2, 3, 1])
    for i, row in enumerate(logits):
        c = int(own[i])
        rest = [float(v) for k, v in enumerate(row) if k != c]
        p = float(torch.softmax(row, 0)[c])
        assert float(odds(logits, own)[i]) == pytest.approx(math.log((1 - p) / p), rel=1e-4)
        assert float(margin(logits, own)[i]) == pytest.approx(max(rest) - float(row[c]))
        top = sorted((float(v) for v in row), reverse=True)
        want = -(float(row[c]) - max(rest)) / (top[0] - top[2])
        assert float(logit_ratio(logits, own)[i]) == pytest.approx(want, rel=1e-4)
    two = draw(3, 2)
    assert torch.equal(logit_ratio(two, own[:3].clamp(max=1)), margin(two, own[:3].clamp(max=1)))


def test_a_confident_network_is_attacked_all_the_same() -> None:
    """Where p rounds to 1 the cross-entropy's gradient loses the class itself; the odds do not."""
    f, w = linear(seed=3)
    f = attrsens.Classifier(Linear(w.flatten(1) * 300, draw(4, seed=4) * 300), [0.0] * 3, [1.0] * 3, crop=6)
    x, own = middling(f)
    assert float(torch.softmax(f.logits(x), 1).amax(1).min()) == 1.0
    found = search(f, x, own, Search())
    torch.testing.assert_close(found.distance, analytic(w * 300, f.logits(x), own), rtol=0.01, atol=0)


def test_an_image_outside_the_box_stays_where_it_is_outside() -> None:
    f, _ = linear(seed=3)
    x = 0.5 + 0.02 * draw(1, 3, 6, 6, seed=5)
    x[0, 0, 0, 0] = 1.5
    found = search(f, x, f.logits(x).argmax(1), Search())
    assert float(found.points[0].flatten()[1:].max()) <= 1


def test_bad_settings_and_one_class_are_refused() -> None:
    with pytest.raises(attrsens.AttrsensError, match="unknown attack 'pdg'; did you mean 'pgd'"):
        Search(attacks=("pdg",))
    with pytest.raises(attrsens.AttrsensError, match="positive radii"):
        Search(radii=())
    f = attrsens.Classifier(Linear(draw(1, 108), draw(1)), [0.0] * 3, [1.0] * 3, crop=6, device="cpu")
    with pytest.raises(attrsens.AttrsensError, match="one class has no decision boundary"):
        nearest_boundary(f, uniform(1, 3, 6, 6), [0], Search())


def test_loss_gradients_are_those_of_the_losses() -> None:
    f, w = linear(seed=3)
    x = uniform(10, 3, 6, 6, seed=1)
    targets = torch.arange(10) % 4
    view = f.view()
    parts = list(view.loss_gradients(x, lambda z, at: z.gather(1, targets[at, None])[:, 0], lambda z, at: z.sum(1)))
    logits, values, first, second = (torch.cat(part) for part in zip(*parts, strict=True))
    assert (view.passes.forward, view.passes.backward) == (10, 20)
    torch.testing.assert_close(first, w[targets])
    torch.testing.assert_close(second, w.sum(0).expand_as(second), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(values, torch.stack([logits.gather(1, targets[:, None])[:, 0], logits.sum(1)], 1))
    dry = f.view(dry=True)
    list(dry.loss_gradients(x, margin, odds))
    assert dry.passes == view.passes


# -- bsm and big ------------------------------------------------------------------------------------------------------


def test_bsm_on_a_linear_network_is_the_weights() -> None:
    f, w = linear(seed=3)
    x, own = middling(f, 1)
    c = int(own)
    found = raw(f, "bsm", x[0], c)
    torch.testing.assert_close(found.map, w[c])
    want = analytic(w, f.logits(x), own)
    assert found.notes["distance"] == pytest.approx(float(want), rel=0.01)
    assert (found.notes["success"], found.notes["class"]) == (1.0, float(c))
    t = int(found.notes["other_class"] or 0)
    assert t != c
    torch.testing.assert_close(raw(f, "bsm", x[0], c, normal="diff").map, w[c] - w[t])


def test_bsm_of_another_class_than_the_predicted_is_its_score_at_the_predicted_one_s_boundary() -> None:
    f, w = linear(seed=3)
    x, own = middling(f, 1)
    target = (int(own) + 1) % 4
    found = raw(f, "bsm", x[0], target)
    torch.testing.assert_close(found.map, w[target])
    assert found.notes["class"] == float(own)
    assert found.notes["distance"] == raw(f, "bsm", x[0], int(own)).notes["distance"]


@pytest.mark.parametrize("kind", KINDS)
def test_bsm_is_the_gradient_at_the_point_of_the_search(kind: str) -> None:
    f = lively(kind)
    x = uniform(3, 16, 16, seed=4)
    own = f.logits(x[None]).argmax(1)
    settings = {"search_steps": 10, "doublings": 5}
    near = nearest_boundary(f.view(image="toy"), x[None], own, Search(steps=10, doublings=5))
    for space in ("pixel", "normalized"):
        view = f.view(space=space)
        want = view.gradient(view.encode(near.points)[0], int(own))
        torch.testing.assert_close(explain(f, "bsm", x, int(own), space=space, **settings), want)


def test_a_failed_search_is_noted() -> None:
    f = attrsens.Classifier(Linear(draw(3, 108), torch.tensor([500.0, 0, 0])), [0.0] * 3, [1.0] * 3, crop=6)
    for method in ("bsm", "big"):
        notes = raw(f, method, uniform(3, 6, 6), 0).notes
        assert (notes["success"], notes["radius"]) == (0.0, None)
        assert notes["distance"] is not None


@pytest.mark.parametrize(("rule", "share"), [("captum_trapezoid", 19 / 20), ("trapezoid", 1.0), ("middle", 1.0)])
def test_big_sums_to_the_fall_of_the_score(rule: str, share: float) -> None:
    """On a linear network exactly, but for Captum's rule, whose weights sum to (steps - 1)/steps."""
    f, w = linear(seed=3)
    x, own = middling(f, 1)
    c = int(own)
    near = nearest_boundary(f.view(image="toy"), x, own, Search())
    fall = float(f.score(x, c) - f.score(near.points, c))
    found = raw(f, "big", x[0], c, rule=rule)
    torch.testing.assert_close(found.map, (x - near.points)[0] * w[c] * share, rtol=1e-3, atol=1e-5)
    assert float(found.map.sum()) == pytest.approx(share * fall, rel=1e-3)
    assert found.notes["completeness_gap"] == pytest.approx((1 - share) * abs(fall), abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_big_is_integrated_gradients_from_the_point_of_the_search(kind: str) -> None:
    f = lively(kind)
    x = uniform(3, 16, 16, seed=4)
    own = f.logits(x[None]).argmax(1)
    near = nearest_boundary(f.view(image="toy"), x[None], own, Search(steps=10, doublings=5))
    points = near.points + torch.linspace(0, 1, 20).reshape(-1, 1, 1, 1) * (x - near.points)
    weights = torch.full((20,), 1 / 20)
    weights[[0, -1]] /= 2
    mean = sum(w * f.gradient(point, int(own)) for w, point in zip(weights, points, strict=True))
    want = (x - near.points[0]) * mean
    for space in ("pixel", "normalized"):
        heatmap = explain(f, "big", x, int(own), space=space, search_steps=10, doublings=5)
        torch.testing.assert_close(heatmap, want, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", ["bsm", "big"])
def test_images_together_equal_images_alone(method: str) -> None:
    f = lively()
    x = uniform(3, 3, 16, 16, seed=1)
    names, targets = ["a", "b", "c"], [1, 4, 0]
    spec = attrsens.METHODS[method]
    p = spec.complete({"search_steps": 6, "doublings": 4})
    own = {h.name: p[h.name] for h in spec.own()}
    view = f.view()
    results = spec.traits["together"](view, list(x), targets, names, [f.zoom] * 3, [[own]] * 3, width=1)
    forward = 0
    for image, name, target, ((heatmap, notes),) in zip(x, names, targets, results, strict=True):
        alone = attrsens.Explainer(f, spec, target, p, name).raw(image)
        torch.testing.assert_close(heatmap, alone.map, rtol=1e-4, atol=1e-4 * float(alone.map.abs().max()))
        assert notes["distance"] == pytest.approx(alone.notes["distance"], rel=1e-3)
        forward += alone.passes.forward
    assert view.passes.forward == forward


# -- bsg --------------------------------------------------------------------------------------------------------------


def smoothed() -> tuple[attrsens.Classifier, Tensor]:
    """Two classes over 4 x 4 images, the boundary a little off the image."""
    a = draw(48, 48, seed=2)
    f = attrsens.Classifier(Quadratic((a + a.T) / 2), [0.0] * 3, [1.0] * 3, crop=4, device="cpu")
    return f, uniform(3, 4, 4, seed=8)


@pytest.mark.parametrize("kind", ["quadratic", *KINDS])
def test_bsg_is_the_mean_gradient_at_its_point_over_its_bank(kind: str) -> None:
    """A plain loop finds the same point and takes SmoothGrad there, with the noise of the search."""
    f, x = smoothed() if kind == "quadratic" else (lively(kind), uniform(3, 16, 16, seed=4))
    bank = 0.1 * torch.from_numpy(Stream(3, "", "bsg noise").normal(range(9), tuple(x.shape)))
    own, net = f.logits(x[None]).argmax(1), copy.deepcopy(f.network).double()
    mean, std = f.preprocess.mean[0], f.preprocess.std[0]
    point, kept = x.clone(), 1.0
    for _ in range(12):
        copies = (point + bank).double().requires_grad_()
        logits = net((copies - mean) / std)
        kept = float((logits.argmax(1) == own).float().mean())
        if kept < 0.1:
            break
        loss = nn.functional.cross_entropy(logits, own.expand(9))
        (slope,) = torch.autograd.grad(loss, copies)
        step = slope.sum(0).float()
        point = (point + 2 * 3.0 / 12 * step / step.norm()).detach()
        away = point - x
        point = (x + away * min(1.0, 3.0 / float(away.norm()))).clamp(0, 1)
    found = raw(f, "bsg", x, int(own), n=9, sigma=0.1, search_steps=12, eps=3.0, seed=3)
    want = torch.stack([f.gradient(point + e, int(own)) for e in bank]).mean(0)
    torch.testing.assert_close(found.map, want, rtol=1e-3, atol=1e-4)
    assert found.notes["distance"] == pytest.approx(float((point - x).norm()), rel=1e-3)
    assert found.notes["success"] == 1.0
    assert kept < 0.1


def test_bsg_shares_its_bank_between_images() -> None:
    f, x = smoothed()
    spec = attrsens.METHODS["bsg"]
    p = spec.complete({"n": 5, "search_steps": 4})
    maps = [attrsens.Explainer(f, spec, 0, p, image).raw(x).map for image in ("a", "b")]
    assert torch.equal(*maps)
    p = spec.complete({"n": 5, "search_steps": 4, "seed": 1})
    assert not torch.equal(attrsens.Explainer(f, spec, 0, p, "a").raw(x).map, maps[0])


def test_bsg_without_a_search_is_smoothgrad_at_the_image() -> None:
    f, x = smoothed()
    bank = 0.15 * torch.from_numpy(Stream(0, "", "bsg noise").normal(range(6), (3, 4, 4)))
    found = raw(f, "bsg", x, 0, n=6, search_steps=0)
    torch.testing.assert_close(found.map, torch.stack([f.gradient(x + e, 0) for e in bank]).mean(0))
    assert found.notes["distance"] == 0.0


# -- agi --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["path", "reference"])
@pytest.mark.parametrize("step", ["linf", "l2"])
@pytest.mark.parametrize("kind", KINDS)
def test_agi_against_a_plain_loop(mode: str, step: str, kind: str) -> None:
    net, f = SmallNet(kind).eval(), small(kind, fold=False)
    x, c = uniform(3, 16, 16, seed=4), int(f.logits(uniform(1, 3, 16, 16, seed=4)).argmax())
    eps = 0.05 if step == "linf" else 1.0
    total = torch.zeros_like(x)
    arrived = 0
    for t in agi_classes(5, c, 3, mode):
        point = x.clone()
        for _ in range(6):
            given = point.clone().requires_grad_()
            p = torch.softmax(net((given[None] - 0.45) / 0.25), 1)[0]
            if int(p.argmax()) == t or t == c:
                arrived += t != c
                break
            (a,) = torch.autograd.grad(p[t], given, retain_graph=True)
            (own,) = torch.autograd.grad(p[c], given)
            move = a.sign() if step == "linf" else a / a.norm()
            start = point if mode == "path" else x
            moved = (start + eps * move).clamp(0, 1)
            total -= own * (moved - start)
            point = moved
    found = raw(f, "agi", x, c, mode=mode, step=step, eps=eps, k=3, steps=6)
    torch.testing.assert_close(found.map, total, rtol=1e-3, atol=1e-6)


def test_agi_chooses_its_classes_by_index() -> None:
    assert agi_classes(10, 3, 10, "path") == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert agi_classes(1000, 0, 15, "path")[:3] == [1, 67, 134]
    assert len(agi_classes(1000, 281, 15, "path")) == 15
    assert agi_classes(1000, 281, 15, "reference") == list(range(0, 999, 66))
    assert len(agi_classes(1000, 281, 15, "reference")) == 16


def test_agi_s_first_step_of_both_modes_is_the_same_and_later_ones_are_not() -> None:
    f = small()
    x = uniform(3, 16, 16, seed=4)
    one, two = (explain(f, "agi", x, 1, mode=mode, k=4, steps=1) for mode in ("path", "reference"))
    same = explain(f, "agi", x, 1, k=4, steps=1)
    assert torch.equal(one, same)
    assert one.shape == two.shape
    later = [explain(f, "agi", x, 1, mode=mode, k=4, steps=5, eps=0.002) for mode in ("path", "reference")]
    assert not torch.allclose(*later, rtol=1e-2)


def test_agi_sums_to_the_falls_of_the_score() -> None:
    """On a linear network exactly; elsewhere the better, the smaller the steps."""
    f, _ = linear(seed=3)
    x, own = middling(f, 1)
    found = raw(f, "agi", x[0], int(own), k=3, output="logit")
    assert found.notes["completeness_gap"] == pytest.approx(0, abs=1e-3)
    assert float(found.map.sum()) > 0.1
    assert found.notes["success"] == 1.0
    f, image = small(), uniform(3, 16, 16, seed=4)
    sizes = ((5, 0.02), (40, 0.0025))
    gaps = [raw(f, "agi", image, 1, k=4, steps=s, eps=e).notes["completeness_gap"] or 0.0 for s, e in sizes]
    assert gaps[1] < gaps[0]
    assert raw(f, "agi", image, 1, k=4, mode="reference").notes["completeness_gap"] is None


class Twins(nn.Module):
    """The first class is symmetric in two features, and so is its nearest boundary; the third class is not."""

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = x.flatten(1).unbind(1)
        return torch.stack([2 * a * b + c, torch.full_like(a, 1.7), 1.5 * a], 1)


def test_symmetric_features_have_equal_shares_in_ig_and_big_but_not_in_agi() -> None:
    """BND Example 1, Table 6a: agi sums over paths to every class, and those need not be symmetric."""
    f = attrsens.Classifier(Twins(), [0.0], [1.0], classes=["one", "flat", "lone"], device="cpu")
    x = torch.tensor([0.8, 0.8, 0.6]).reshape(1, 1, 3)
    maps = {
        "ig": raw(f, "ig", x, 0, output="logit").map.flatten(),
        "big": raw(f, "big", x, 0, polish=10).map.flatten(),
        "agi": raw(f, "agi", x, 0, k=2).map.flatten(),
    }
    for method in ("ig", "big"):
        assert float(maps[method][0]) == pytest.approx(float(maps[method][1]), rel=0.01), method
    assert abs(float(maps["agi"][0] - maps["agi"][1])) > 0.1 * float(maps["agi"].abs().max())
