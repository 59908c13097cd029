"""What attacks minimise and how: every loss, weight, start and draw against objectives that are written out here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_attack import attacked, distance, grey, marginal, one, pixels, squares, values
from torch import Tensor, nn
from toys import draw, uniform

import attrsens
from attrsens.boundary import Search, nearest_boundary
from attrsens.engine.targets import shape
from attrsens.seeds import Stream

SIDE, PIXEL = 8, 1 / 255
SEEN = torch.from_numpy(pixels(grey())).float()


class Toy(nn.Module):
    """Logits V relu(W x + b); channels of its gradient differ in sign."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3 * SIDE * SIDE, 12), nn.Linear(12, 3)
        with torch.no_grad():
            for i, p in enumerate(self.parameters()):
                p.copy_(draw(*p.shape, seed=20 + i) * (0.15 if i == 0 else 0.4))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.first(x.flatten(1))))


TOY = Toy().requires_grad_(False)
OWN = int(TOY(SEEN[None]).argmax())


def toy() -> attrsens.Classifier:
    return attrsens.Classifier(Toy(), [0.0] * 3, [1.0] * 3, crop=SIDE, device="cpu")


def gradient(x: Tensor, beta: float | None) -> Tensor:
    """Of the own logit, (3, H, W), by hand: W' (v sigmoid(beta (W x + b))), or of the ReLUs."""
    z = TOY.first(x.flatten())
    gate = (z > 0).float() if beta is None else (beta * z).sigmoid()
    return (TOY.first.weight.T @ (TOY.last.weight[OWN] * gate)).reshape(x.shape)


def h(x: Tensor, beta: float | None = None) -> Tensor:
    size = gradient(x, beta).abs().sum(0)
    return size / size.sum()


def unit_draw(key: str, index: int, what: str, seed: int = 0) -> Tensor:
    """What the package draws for an image, in [-1, 1]."""
    shape_ = (SIDE, SIDE, 2) if what == "attack stadv" else (3, SIDE, SIDE)
    return torch.from_numpy(2 * Stream(seed, key, what).uniform([index], shape_)[0] - 1)


def hashed() -> str:
    return attrsens.explain(grey(), model=toy(), cache=False).records[0].image.sha256


def bilinear(image: Tensor, flow: Tensor) -> Tensor:
    """The image read at every pixel's place + flow, in pixels, right and down."""
    own = torch.stack(torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="xy"), -1)
    at = own + flow
    corner = at.detach().floor().clamp(0, SIDE - 2)
    (right, down), (x, y) = (at - corner).unbind(-1), corner.long().unbind(-1)
    above = (1 - right) * image[:, y, x] + right * image[:, y, x + 1]
    below = (1 - right) * image[:, y + 1, x] + right * image[:, y + 1, x + 1]
    return (1 - down) * above + down * below


def roughness(flow: Tensor) -> Tensor:
    """Over the four neighbours of every pixel, an edge being its own."""
    padded = F.pad(flow.permute(2, 0, 1)[None], (1, 1, 1, 1), mode="replicate")[0].permute(1, 2, 0)
    near = [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
    return sum(((flow - other).square().sum(-1) + 1e-10).sqrt().sum() for other in near)  # type: ignore[return-value]


def descend(
    objective: Callable[[Tensor], Tensor],
    family: str,
    beta: float,
    weights: tuple[float, float, float],
    steps: int,
    rate: float,
    start: Tensor | None = None,
) -> list[float]:
    """The objective at every iterate of torch's Adam on weights of the map, the prediction and the roughness; with a
    start, iterate 0 is the image and 1 is there."""
    p = torch.zeros(SIDE, SIDE, 2) if family == "stadv" else torch.zeros_like(SEEN)
    axis = torch.arange(SIDE) / (SIDE - 1) * 2
    low, high = -torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1), 0.0
    clean, curve = TOY(SEEN[None]).softmax(1), []
    adam = None
    for step in range(steps + 1):
        if adam is None and (start is None or step == 1):
            p = (p if start is None else start.clone()).requires_grad_()
            adam = torch.optim.Adam([p], lr=rate)
        at = bilinear(SEEN, p * (SIDE - 1) / 2) if family == "stadv" else SEEN + p
        value = objective(h(at, beta) * SIDE**2)
        curve.append(float(value.detach()))
        if adam is None:
            continue
        rounded = at + ((at * 255).round() / 255 - at).detach()
        drift = (TOY(rounded[None]).softmax(1) - clean).square().sum()
        loss = weights[0] * value + weights[1] * drift
        loss = loss + weights[2] * roughness(p) if family == "stadv" else loss
        adam.param_groups[0]["lr"] = rate * (0.5 if step >= steps / 2 else 1)
        adam.zero_grad()
        loss.backward()
        adam.step()
        if family == "stadv":
            with torch.no_grad():
                high = low + 2
                p.copy_(torch.maximum(torch.minimum(p, high), low))
    return curve


def run(kind: str, **attack: Any) -> attrsens.Record:
    return one(grey(), toy(), kind, **attack)[0]


GOAL = shape("square", (SIDE, SIDE)) / shape("square", (SIDE, SIDE)).sum()


def mse(maps: Tensor) -> Tensor:
    return (maps - torch.from_numpy(GOAL) * SIDE**2).square().mean()


@pytest.mark.parametrize(
    ("family", "beta", "weights"),
    [
        ("delta", 3.0, (2.0, 0.0, 0.0)),
        ("delta", 30.0, (2.0, 0.0, 0.0)),
        ("delta", 3.0, (1.0, 400.0, 0.0)),
        ("delta", 3.0, (20.0, 400.0, 0.0)),
        ("stadv", 3.0, (1.0, 100.0, 0.002)),
        ("stadv", 3.0, (1.0, 100.0, 0.02)),
    ],
)
def test_manipulation_follows_its_formula(family: str, beta: float, weights: tuple[float, float, float]) -> None:
    """map_weight mse + prediction_weight drift + regulariser roughness, the network smoothed by beta, step by step."""
    want = descend(mse, family, beta, weights, 12, 0.004)
    named = dict(zip(("map_weight", "prediction_weight", "regulariser"), weights, strict=True))
    rest: dict[str, Any] = {"steps": 12, "learning_rate": 0.004, "decay": 0.5, "beta": beta, "eps": 51 * PIXEL}
    record = run("manipulate", perturbation=family, target_shape="square", flow_eps=0.5, **rest, **named)
    assert record.attack
    np.testing.assert_allclose(record.attack.curve, want, rtol=2e-4)
    assert want[-1] < want[0]
    unlike = descend(mse, family, beta, (weights[0], 0.0, 0.0), 12, 0.004)
    if weights[1]:
        assert abs(unlike[-1] - want[-1]) > 1e-3 * want[-1], "the other terms make a difference"


def test_untargeted_follows_its_formula_from_its_random_start() -> None:
    eps, before = 10 * PIXEL, h(SEEN)
    start = 0.5 * eps * unit_draw(hashed(), 0, "attack delta", seed=3)

    def cosine(maps: Tensor) -> Tensor:
        return (maps * before).sum() / (maps.norm() * before.norm())

    want = descend(cosine, "delta", 4.0, (1.0, 30.0, 0.0), 8, 0.0005, start)
    rest: dict[str, Any] = {"steps": 8, "learning_rate": 0.0005, "decay": 0.5, "beta": 4.0, "eps": eps, "seed": 3}
    record = run("untargeted", prediction_weight=30.0, **rest)
    assert record.attack
    np.testing.assert_allclose(record.attack.curve, want, rtol=1e-5)
    assert record.attack.notes["objective"] == pytest.approx(min(want), rel=1e-5)


def test_the_top_is_at_most_half_of_the_map() -> None:
    top = h(SEEN).flatten().argsort(descending=True, stable=True)[: SIDE**2 // 2]
    record = run("topk", k=60, steps=0, beta=5.0)
    assert record.attack
    assert record.attack.curve == pytest.approx([float(h(SEEN, 5.0).flatten()[top].sum())], rel=1e-5)


def test_the_centre_is_that_of_mass() -> None:
    axis = torch.arange(SIDE).float()

    def centre(m: Tensor) -> Tensor:
        return torch.stack([(m.sum(1) * axis).sum(), (m.sum(0) * axis).sum()]) / m.sum()

    eps = 12 * PIXEL
    at = SEEN + 0.5 * eps * unit_draw(hashed(), 0, "attack delta")
    want = (centre(h(at, 5.0)) - centre(h(SEEN))).norm() / (SIDE * 2**0.5)
    record = run("centre", steps=1, beta=5.0, eps=eps)
    assert record.attack
    assert record.attack.curve[1] == pytest.approx(-float(want), rel=1e-4)


# -- starts, steps, draws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["manipulate", "untargeted", "topk", "centre"])
def test_no_steps_are_no_change_however_often(kind: str) -> None:
    more: dict[str, Any] = {"k": 10} if kind == "topk" else {"target_shape": "ring"} if kind == "manipulate" else {}
    for restarts in (1, 3):
        record, image = one(grey(), toy(), kind, steps=0, restarts=restarts, perturbation="delta-stadv", **more)
        np.testing.assert_array_equal(image, grey())
        assert values(record)["original_distance"] == pytest.approx(0, abs=1e-9)
        assert record.attack
        assert record.attack.sizes["flow_max"] == record.attack.sizes["delta_linf"] == 0


def test_every_restart_begins_elsewhere(tmp_path: Path) -> None:
    """The map at the third run's start is the goal, so that run alone is there at once."""
    eps, beta = 40 * PIXEL, 5.0
    at = SEEN + 0.5 * eps * unit_draw(hashed(), 2, "attack delta")
    np.save(tmp_path / "goal.npy", h(at, beta).numpy())
    few: dict[str, Any] = {"steps": 1, "learning_rate": 1e-6, "target_map": str(tmp_path / "goal.npy"), "eps": eps}
    found = []
    for restarts in (1, 2, 3):
        record, image = one(grey(), toy(), "manipulate", restarts=restarts, beta=beta, **few)
        assert record.attack
        found.append(record.attack.notes["objective"])
    assert found[2] == pytest.approx(0, abs=1e-8)
    assert found[0] > 1e-4
    assert found[1] > 1e-4
    assert np.abs(pixels(image) - at.numpy()).max() <= PIXEL


def test_a_flow_starts_close_to_no_flow() -> None:
    """Within a fiftieth of the bound; nothing else moves in one step."""
    f, attack = squares()[0], {"perturbation": "delta-stadv", "flow_eps": 0.5, "eps": 10 * PIXEL}
    record, _ = one(grey(), f, "untargeted", steps=1, **attack)
    assert record.attack
    assert 0 < record.attack.sizes["flow_max"] <= 0.5 * 0.02 * (SIDE - 1) / 2 * 2**0.5
    start = 5 * PIXEL * unit_draw(hashed(), 0, "attack delta")
    assert record.attack.sizes["delta_linf"] == pytest.approx(float(start.abs().max()), rel=1e-5)


def test_methods_that_draw_do_so_anew_at_every_step() -> None:
    """Without a budget the image stays, and the objective is of other draws each time."""
    attack = {"eps": 0.0, "steps": 5, "target_shape": "ring"}
    for method, different in (("sg:n=2", 6), ("grad", 1)):
        report = attrsens.attack(grey(), model=toy(), method=method, attack=attack, cache=False)
        (record,) = attacked(report)
        assert record.attack
        assert len(set(record.attack.curve)) == different


@pytest.mark.parametrize(("perturbation", "rate"), [("delta", 1e-3), ("stadv", 4e-4), ("delta-stadv", 4e-4)])
def test_the_published_steps_are_the_default(perturbation: str, rate: float) -> None:
    """Adam's first step is its rate."""
    record = run("manipulate", perturbation=perturbation, steps=1, regulariser=0.0, target_shape="square")
    assert record.attack
    assert record.attack.notes["learning_rate"] == rate
    sizes = record.attack.sizes
    if "delta" in perturbation:
        assert sizes["delta_linf"] == pytest.approx(rate, rel=1e-3)
    if "stadv" in perturbation:
        assert sizes["flow_max"] == pytest.approx(rate * (SIDE - 1) / 2 * 2**0.5, rel=1e-3)


# -- targets and noise -------------------------------------------------------------------------------------------


def test_a_ring_is_hollow_and_a_disc_is_not() -> None:
    for name, low in (("ring", 0.4), ("disc", -1.0)):
        found, high = shape(name, (20, 30)), 0.7 if name == "ring" else 0.5
        for row in range(20):
            for column in range(30):
                radius = np.hypot((row - 9.5) / 10, (column - 14.5) / 15)
                assert found[row, column] == (low < radius < high)


def test_noise_stays_as_far_from_the_target_as_the_clean_map_is() -> None:
    f, weight = squares()
    record, _ = one(grey(), f, "manipulate", eps=8 * PIXEL, steps=5, target_shape="ring")
    clean = np.abs(weight.numpy() * pixels(grey())).sum(0)
    ring = shape("ring", (SIDE, SIDE))
    away = distance(clean / clean.sum(), ring / ring.sum())
    assert record.scores["target_distance"].floor == pytest.approx(away, rel=0.05)
    floor = record.scores["original_distance"].floor
    assert floor is not None
    assert floor < away / 20


# -- the search at random ----------------------------------------------------------------------------------------


def candidates(key: str, draws: str, eps: float, n: int, step: float, seed: int = 0) -> list[np.ndarray]:
    """Images in [0, 1] on the 8-bit grid, whose steps and budgets are whole numbers of 1/255."""
    out, walked = [], np.zeros((3, SIDE, SIDE))
    for i in range(n):
        u = unit_draw(key, i, f"attack {draws}", seed).numpy().astype(np.float64)
        if draws == "walk":
            walked = np.clip(walked + step * np.sign(u), -eps, eps)
            out.append(pixels(grey()) + walked)
        else:
            out.append(pixels(grey()) + eps * (np.sign(u) if draws == "signs" else u))
    return out


@pytest.mark.parametrize(("draws", "n", "step"), [("signs", 6, 1), ("walk", 9, 2)])
@pytest.mark.parametrize("measure", ["shares", "unit_l2"])
def test_a_search_at_random_takes_the_farthest_candidate(draws: str, n: int, step: int, measure: str) -> None:
    eps = 7 * PIXEL
    images = candidates(hashed(), draws, eps, n, step * PIXEL)
    clean = gradient(SEEN, None).double().numpy()

    def far(image: np.ndarray) -> float:
        g = gradient(torch.from_numpy(image).float(), None).double().numpy()
        if measure == "unit_l2":
            return float(np.linalg.norm(g / np.linalg.norm(g) - clean / np.linalg.norm(clean)))
        a, b = (np.abs(v).sum(0) / np.abs(v).sum() for v in (g, clean))
        return distance(a, b)

    kept = [int(TOY(torch.from_numpy(image).float()[None]).argmax()) == OWN for image in images]
    reached = [far(image) if ok else -1.0 for image, ok in zip(images, kept, strict=True)]
    record, image = one(grey(), toy(), "random", draws=draws, eps=eps, n=n, step=step * PIXEL, measure=measure)
    assert record.attack
    assert max(reached) > 1e-3
    assert record.attack.notes["objective"] == pytest.approx(max(reached), rel=1e-3)
    np.testing.assert_array_equal(image, np.round(images[int(np.argmax(reached))].transpose(1, 2, 0) * 255))


def test_a_uniform_draw_is_anywhere_in_the_budget() -> None:
    (want,) = candidates(hashed(), "uniform", 20 * PIXEL, 1, 0)
    record, image = one(grey(), toy(), "random", draws="uniform", eps=20 * PIXEL, n=1)
    assert values(record)["l2"] > 0
    assert np.abs(pixels(image) - want).max() <= PIXEL
    assert len(np.unique(image.astype(int) - grey())) > 20


def test_a_search_at_random_passes_over_those_of_another_class() -> None:
    """The logits of `marginal` differ by sum w (x^2 - x0^2) / 2 + gap: half of the candidates lose the class."""
    gap, eps, n, seed = 0.02, 6 * PIXEL, 12, 3
    weight = squares()[1].double().numpy()
    f, x = marginal(grey(), gap), pixels(grey())
    images = candidates(hashed(), "signs", eps, n, 0, seed)
    kept = [(weight * (image**2 - x**2)).sum() / 2 + gap > 0 for image in images]

    def far(image: np.ndarray) -> float:
        a, b = ((weight * v).sum(0) / (weight * v).sum() for v in (image, x))
        return distance(a, b)

    reached = [far(image) for image in images]
    best = max(range(n), key=lambda i: reached[i] if kept[i] else -1)
    assert reached[best] < max(reached), "the farthest is of another class"
    record, image = one(grey(), f, "random", eps=eps, n=n, seed=seed)
    np.testing.assert_array_equal(image, np.round(images[best].transpose(1, 2, 0) * 255))
    assert values(record)["original_distance"] == pytest.approx(reached[best], rel=1e-3)
    assert record.attack
    assert record.attack.notes["kept_share"] == pytest.approx(np.mean(kept))


# -- AutoPGD -----------------------------------------------------------------------------------------------------


class Hill(nn.Module):
    """Class 0 wins everywhere; class 1 comes closest to it at `top`, on a hill around it."""

    def __init__(self, top: Tensor) -> None:
        super().__init__()
        self.top = nn.Parameter(top)

    def forward(self, x: Tensor) -> Tensor:
        far = (x - self.top).square().flatten(1).sum(1)
        return torch.stack([torch.full_like(far, 5.0), -far, torch.full_like(far, -50.0)], 1)


def test_auto_pgd_halves_its_step_until_it_stands_on_the_hill() -> None:
    """With steps of twice the radius for ever it would go to and fro."""
    x = 0.3 + 0.4 * uniform(1, 3, SIDE, SIDE, seed=8)
    away = draw(3, SIDE, SIDE, seed=9)
    top = x[0] + 0.2 * away / away.norm()
    f = attrsens.Classifier(Hill(top), [0.0] * 3, [1.0] * 3, crop=SIDE, device="cpu")
    search = Search(attacks=("apgd",), steps=100, eps=0.5, bisect=0, polish=0)
    found = nearest_boundary(f.view(image="toy"), x, [0], search)
    assert not bool(found.success)
    assert float((found.points[0] - top).norm()) < 0.02


def test_auto_pgd_climbs_the_ratio_of_logits_second() -> None:
    """Its first step, from where the network was asked, is along the gradient of (z1 - z0) / (z0 - z2)."""
    asked: list[Tensor] = []

    class Spy(Toy):
        def forward(self, x: Tensor) -> Tensor:
            asked.append(x.detach().clone())
            return super().forward(x)

    f = attrsens.Classifier(Spy(), [0.0] * 3, [1.0] * 3, crop=SIDE, device="cpu", fold=False)
    view = f.view(image="toy")
    asked.clear()
    eps, steps = 0.3, 4
    nearest_boundary(view, SEEN[None], [OWN], Search(attacks=("apgd",), steps=steps, eps=eps, bisect=0, polish=0))
    assert len(asked) == 2 * (steps + 1)

    def stepped(start: Tensor, ratio: bool) -> Tensor:
        at = start.clone().requires_grad_()
        z = TOY(at)[0]
        rest = torch.cat([z[:OWN], z[OWN + 1 :]])
        top = z.sort(descending=True).values
        loss = (rest.max() - z[OWN]) / (top[0] - top[2]) if ratio else rest.logsumexp(0) - z[OWN]
        (slope,) = torch.autograd.grad(loss, at)
        move = start + 2 * eps * slope / slope.norm() - SEEN
        return (SEEN + move * min(1.0, eps / float(move.norm()))).clamp(0, 1)

    for first, ratio in ((0, False), (steps + 1, True)):
        torch.testing.assert_close(asked[first + 1], stepped(asked[first], ratio), atol=1e-5, rtol=0)
        assert float((asked[first + 1] - stepped(asked[first], not ratio)).abs().max()) > 1e-3
