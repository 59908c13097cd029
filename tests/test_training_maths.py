"""Training against its formulas, worked out by hand in numpy: the optimiser, the attacks, the losses, what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_training import Quadratic, batch, job, learner, linear, pictures, slope
from torch import Tensor, nn

from attrsens.boundary.losses import logit_ratio, odds
from attrsens.seeds import Stream
from attrsens.training import RECIPES, evaluate, run
from attrsens.training.data import Data
from attrsens.training.evaluate import Budget, autopgd, autopgd_accuracy, clean_accuracy, pgd_accuracy
from attrsens.training.learner import Batch, Learner, curvature
from attrsens.training.perturb import random_start
from attrsens.training.state import State


def with_norm() -> nn.Module:
    """A network with BatchNorm whose running statistics are not those of any batch."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Softplus(), nn.Flatten(), nn.Linear(4 * 36, 2))
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_(torch.from_numpy(Stream(i, "", "weights").normal([0], tuple(p.shape))[0]) * 0.3)
        net[1].running_mean.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))
        net[1].running_var.copy_(torch.tensor([0.5, 2.0, 1.0, 3.0]))
    return net


# -- the optimiser -----------------------------------------------------------------------------------------------------


def test_steps_are_nesterovs_with_decay_of_matrices_and_a_moving_average() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3))
    state = State(net, {"ema": 0.5, "weight_decay": 0.1})
    own = dict(net.named_parameters())
    weights = {n: p.detach().double().numpy().copy() for n, p in own.items()}
    average = {n: w.copy() for n, w in weights.items()}
    momentum = {n: np.zeros_like(w) for n, w in weights.items()}
    x = torch.from_numpy(Stream(0, "", "x").normal(range(6), (4, 1, 1)))
    for step, lr in enumerate((0.1, 0.2, 0.05), 1):
        net.train()
        loss = (net(x) - torch.arange(3)).square().mean() * 3
        slopes = dict(zip(own, torch.autograd.grad(loss, list(own.values()), retain_graph=True), strict=True))
        state.descend(loss, lr)
        share = 1 - min(0.5, step / (step + 9))
        for name, w in weights.items():
            g = slopes[name].double().numpy() + (0.1 * w if name == "1.weight" else 0.0)
            momentum[name] = 0.9 * momentum[name] + g
            w -= lr * (g + 0.9 * momentum[name])
            average[name] += share * (w - average[name])
            assert own[name].detach().numpy() == pytest.approx(w, abs=1e-5), (name, step)
            assert state.average[name].numpy() == pytest.approx(average[name], abs=1e-5), (name, step)
    assert share == 0.75  # the decay itself counts from the ninth step on
    for _ in range(8):
        state.descend((net(x) - torch.arange(3)).square().mean(), 0.1)
    before, at = state.average["1.weight"].clone(), own["1.weight"]
    state.descend((net(x) - torch.arange(3)).square().mean(), 0.1)
    assert torch.allclose(state.average["1.weight"], before + 0.5 * (at.detach() - before), atol=1e-6)


def test_what_is_kept_is_the_average_of_the_weights_after_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, told = linear(), []
    average = net[1].weight.detach().clone()
    seen = 0

    def follow(progress: run.Progress) -> None:
        nonlocal seen
        seen += 1
        average.lerp_(net[1].weight.detach(), 1 - min(0.9, seen / (seen + 9)))

    def fingerprint(net: Learner, data: Data, *_: Any) -> float:
        told.append((float(net.module[1].weight[0].detach().sum()), float(average[0].sum())))
        return 0.5

    monkeypatch.setattr(run, "clean_accuracy", fingerprint)
    monkeypatch.setattr(run, "pgd_accuracy", fingerprint)
    weights, course = run.Trainer(job("std", ema=0.9), net, pictures(), pictures(8), tmp_path / "c", follow).run()
    assert seen == 9
    assert torch.allclose(weights["1.weight"], average, atol=1e-7)
    assert not torch.allclose(weights["1.weight"], net[1].weight, atol=1e-4)
    assert [own for own, _ in told] == pytest.approx([mean for _, mean in told], abs=1e-5)  # curves are of the average
    assert len(told) == 2 * len(course.curves) == 6


def test_smoothed_labels_give_a_share_to_every_class() -> None:
    net, b = linear(), batch()
    log_p = learner(net).logits(b.x).log_softmax(1)
    right = log_p.gather(1, b.y[:, None])[:, 0]
    expected = -(0.7 * right + 0.3 * log_p.mean(1)).mean()
    assert learner(net, smoothing=0.3).loss(b.x, b.y).item() == pytest.approx(expected.item(), rel=1e-5)
    assert learner(net).loss(b.x, b.y).item() == pytest.approx(-right.mean().item(), rel=1e-5)


def test_the_loop_smooths_as_asked(tmp_path: Path) -> None:
    trainer = run.Trainer(job("std", smoothing=0.25), linear(), pictures(), pictures(8), tmp_path / "c")
    assert trainer.net.smoothing == 0.25


# -- attacks while training --------------------------------------------------------------------------------------------


def test_pgd_starts_at_random_and_makes_steps_of_its_default_size() -> None:
    net, b = linear(), batch(low=0.3, high=0.7)
    seen, up = learner(net), slope(net, b.y).sign()
    start = random_start(b, "linf", 0.1)
    recipe = RECIPES["pgd"].function
    recipe(seen, b, norm="linf", eps=0.1, steps=3, step_size=0.01)
    assert torch.allclose(seen.x, b.x + (start + 0.03 * up).clamp(-0.1, 0.1), atol=1e-6)
    recipe(seen, b, norm="linf", eps=0.1, steps=5, step_size=0.0)  # 2.5 eps in all: from any start to the corner
    assert torch.allclose(seen.x, b.x + 0.1 * up, atol=1e-6)
    recipe(seen, b, norm="linf", eps=0.1, steps=1, step_size=0.0)
    assert torch.allclose(seen.x, b.x + (start + 0.25 * up).clamp(-0.1, 0.1), atol=1e-6)
    # the slope of a linear network is the same everywhere, so that one step of the L2 attack is known
    raw = slope(net, b.y) / torch.tensor((0.2, 0.3, 0.4)).reshape(-1, 1, 1)
    pole = raw / raw.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    recipe(seen, b, norm="l2", eps=0.3, steps=10, step_size=0.0)
    at = random_start(b, "l2", 0.3)
    for _ in range(10):
        at = at + 0.075 * pole  # 2.5 eps / steps
        at = at / (at.flatten(1).norm(dim=1) / 0.3).clamp(min=1).reshape(-1, 1, 1, 1)
    assert torch.allclose(seen.x, b.x + at, atol=1e-5)


def test_the_curvature_of_an_image_does_not_depend_on_its_batch() -> None:
    net = with_norm()
    seen, b = learner(net), batch()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    net.train()
    each = [curvature(seen, Batch(b.x[i : i + 1], b.y[i : i + 1], 0, 0), 0.7).item() for i in range(6)]
    net.train()
    assert curvature(seen, b, 0.7).item() == pytest.approx(np.mean(each), rel=1e-4)
    assert all(torch.equal(before[n], t) for n, t in net.state_dict().items())
    assert min(each) > 1e-3
    assert seen.precision == "fp32"
    assert curvature(Learner(Quadratic(), (0.0,) * 3, (1.0,) * 3), Batch(b.x[:, :, :2, :2], b.y * 0, 0, 0), 0.7) > 0


# -- accuracy ----------------------------------------------------------------------------------------------------------


def test_accuracy_does_not_depend_on_the_other_images(monkeypatch: pytest.MonkeyPatch) -> None:
    net = with_norm()
    b = batch(24)
    images = np.rint(b.x.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)
    net.eval()
    x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    margins = torch.sub(*net(x).detach().T).sort().values
    net[4].bias.data += torch.tensor([-0.5, 0.5]) * margins[11:13].mean()  # half of them each
    labels = net(x).argmax(1).numpy()
    labels[:6] = 1 - labels[:6]
    data = Data("24", images, labels, ("a", "b"))
    before = {n: t.clone() for n, t in net.state_dict().items()}
    found = []
    for chunk in (250, 5, 1):
        monkeypatch.setattr(evaluate, "CHUNK", chunk)
        net.train()  # whatever it was before
        plain = Learner(net, (0.5,) * 3, (0.25,) * 3)
        found.append((clean_accuracy(plain, data), autopgd_accuracy(plain, data, Budget("linf", 0.01), 6)))
        pgd_accuracy(plain, data, Budget("linf", 0.01), 3)
    assert found == [found[0]] * 3
    assert found[0][0] == 0.75
    assert 0 < found[0][1] < 0.75
    assert all(torch.equal(before[n], t) for n, t in net.state_dict().items())


def test_autopgd_tries_the_second_loss_where_the_first_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    b = batch()
    images = np.rint(b.x.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)
    net = learner(linear())
    labels = net.logits(torch.from_numpy(images).permute(0, 3, 1, 2) / 255).argmax(1).numpy()
    labels[0] = 1 - labels[0]  # wrong from the start
    tried: list[tuple[Any, int]] = []

    def attack(net: Learner, x: Tensor, y: Tensor, budget: Budget, steps: int, start: Tensor, loss: Any) -> Tensor:
        tried.append((loss, len(x)))
        return torch.arange(len(x)) >= (2 if loss is odds else 1)  # the first two fall, then one more

    monkeypatch.setattr(evaluate, "autopgd", attack)
    assert autopgd_accuracy(net, Data("six", images, labels, ("a", "b")), Budget("linf", 0.1)) == 2 / 6
    assert tried == [(odds, 5), (logit_ratio, 3)]


class Toy(nn.Module):
    """Three classes, smooth in 12 numbers; it keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        draw = Stream(8, "", "toy")
        self.first = nn.Parameter(torch.from_numpy(draw.normal(range(8), (12,))))
        self.second = nn.Parameter(torch.from_numpy(draw.normal(range(10, 13), (8,))))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return torch.tanh((x.flatten(1) - 0.5) @ self.first.T) @ self.second.T


def odds_by_hand(net: Toy, x: np.ndarray, y: int) -> tuple[float, np.ndarray, bool]:
    """(log-odds of the other classes, its gradient, whether top-1 is y), in float64."""
    first, second = (p.detach().double().numpy() for p in (net.first, net.second))
    hidden = np.tanh(first @ (x - 0.5))
    logits = second @ hidden
    other = np.exp(np.where(np.arange(3) == y, -np.inf, logits))
    slopes = other / other.sum() - (np.arange(3) == y)
    return np.log(other.sum()) - logits[y], first.T @ ((1 - hidden**2) * (second.T @ slopes)), logits.argmax() == y


def autopgd_by_hand(
    net: Toy, x: np.ndarray, y: int, norm: str, eps: float, steps: int, start: np.ndarray
) -> tuple[list[np.ndarray], int, bool]:
    """(points, halvings, whether the class was kept at all of them): Croce & Hein 2020, algorithm 1, one image."""

    def inside(point: np.ndarray) -> np.ndarray:
        d = point - x
        d = d.clip(-eps, eps) if norm == "linf" else d * min(1, eps / max(np.linalg.norm(d), 1e-30))
        return (x + d).clip(0, 1)

    def up(g: np.ndarray) -> np.ndarray:
        return np.sign(g) if norm == "linf" else g / np.linalg.norm(g)

    looks, p0, p1 = set(), 0.0, 0.22
    while p1 <= 1:
        looks.add(int(np.ceil(p1 * steps - 1e-9)))
        p0, p1 = p1, p1 + max(p1 - p0 - 0.03, 0.06)
    at = inside(x + eps * start / (np.abs(start).max() if norm == "linf" else np.linalg.norm(start)))
    points, size, halvings = [at], 2 * eps, 0
    value, g, kept = odds_by_hand(net, at, y)
    best, best_value, best_g, before = at, value, g, at
    since, rises, old_size, old_best = 0, 0, size, value
    for k in range(1, steps + 1):
        z = inside(at + size * up(g))
        share = 1.0 if k == 1 else 0.75
        moved = inside(at + share * (z - at) + (1 - share) * (at - before))
        before, at, old = at, moved, value
        points.append(at)
        value, g, right = odds_by_hand(net, at, y)
        kept, rises = kept and right, rises + (value > old)
        if value > best_value:
            best, best_value, best_g = at, value, g
        if k in looks:
            stuck = rises <= 0.75 * (k - since) or (old_size == size and old_best == best_value)
            old_size, old_best, since, rises = size, best_value, k, 0
            if stuck:
                size, halvings, at, g, value = size / 2, halvings + 1, best, best_g, best_value
    return points, halvings, kept


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_autopgd_is_the_algorithm_of_its_paper(norm: str) -> None:
    net = Toy()
    x = torch.from_numpy(Stream(9, "", "x").uniform(range(8), (3, 2, 2)))
    start = torch.from_numpy(Stream(9, "", "start").uniform(range(8), (3, 2, 2))) * 2 - 1
    y = net(x).argmax(1)
    eps = 0.15 if norm == "linf" else 0.3
    net.seen.clear()
    alive = autopgd(Learner(net, (0.0,) * 3, (1.0,) * 3), x, y, Budget(norm, eps), 16, start, odds)
    assert len(net.seen) == 17
    halved = 0
    for i in range(8):  # of more steps the last are rounding
        picture, begin = (t[i].double().numpy().reshape(-1) for t in (x, start))
        points, halvings, kept = autopgd_by_hand(
            net, picture, int(y[i]), norm, eps, 16, begin
        )  # later on all is rounding
        found = np.stack([t[i].numpy().reshape(-1) for t in net.seen])
        assert found == pytest.approx(np.stack(points), abs=2e-4)
        assert bool(alive[i]) == kept
        halved += halvings
    assert halved > 8
    assert 0 < int(alive.sum()) < 8
