"""Training: attacks and penalties against closed forms, batches, the optimiser, the guard, killing and going on."""

from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from attrsens.engine.train import carry_out, request
from attrsens.errors import AttrsensError, InputError
from attrsens.seeds import Stream
from attrsens.spec import Spec
from attrsens.training import RECIPES, run
from attrsens.training.checkpoint import copied, load_state, save_state
from attrsens.training.data import Batches, Data, order
from attrsens.training.evaluate import Budget, all_finite, autopgd_accuracy, clean_accuracy, pgd_accuracy
from attrsens.training.guard import collapsed
from attrsens.training.learner import Batch, Learner, curvature
from attrsens.training.perturb import ascend, project, random_start
from attrsens.training.state import State, learning_rate

SIDE = 8


def linear(seed: int = 0, scale: float = 0.05) -> nn.Sequential:
    """Two classes, logits linear in the pixels (3, 8, 8)."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 2))
    drawn = Stream(seed, "", "weights").normal([0, 1], (3 * SIDE * SIDE,)) * scale
    with torch.no_grad():
        net[1].weight.copy_(torch.from_numpy(drawn))
        net[1].bias.zero_()
    return net


def slope(net: nn.Sequential, y: Tensor) -> Tensor:
    """How the pixels raise the other class over each image's own, (N, 3, 8, 8)."""
    w = net[1].weight.detach()
    return torch.stack([w[1 - int(c)] - w[int(c)] for c in y]).reshape(-1, 3, SIDE, SIDE)


def batch(count: int = 6, step: int = 3, low: float = 0.0, high: float = 1.0) -> Batch:
    x = Stream(1, "", "pictures").uniform(range(count), (3, SIDE, SIDE)) * (high - low) + low
    return Batch(torch.from_numpy(x), torch.arange(count) % 2, step, 7)


def pictures(count: int = 48, side: int = SIDE, classes: int = 2) -> Data:
    """Noise whose brightness tells the class."""
    labels = np.arange(count) % classes
    noise = Stream(2, "", "data").uniform(range(count), (side, side, 3))
    images = (noise * 120 + labels[:, None, None, None] * (130 / (classes - 1))).astype(np.uint8)
    return Data("noise", images, labels, tuple("abcdefghij"[:classes]))


class Seen(Learner):
    """Keeps what it was asked the loss of."""

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        self.x = x
        return super().loss(x, y)


def learner(net: nn.Module, **settings: Any) -> Seen:
    return Seen(net, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), **settings)


# -- recipes against closed forms --------------------------------------------------------------------------------------


def test_the_single_step_is_noise_plus_a_signed_step() -> None:
    net, b = linear(), batch()
    seen = learner(net)
    RECIPES["fast"].function(seen, b, norm="linf", eps=0.1, noise=2.0, step_size=0.0)
    drawn = Stream(7, "", "train start").uniform([3], tuple(b.x.shape))[0]
    noise = torch.from_numpy(drawn) * 0.4 - 0.2  # twice eps, and not drawn back
    expected = (b.x + noise + 0.1 * slope(net, b.y).sign()).clamp(0, 1)
    assert torch.allclose(seen.x, expected, atol=1e-6)
    assert float((seen.x - b.x).abs().max()) > 0.25  # outside the ball of eps

    RECIPES["fast"].function(seen, b, norm="linf", eps=0.1, noise=0.0, step_size=0.03)
    assert torch.allclose(seen.x, (b.x + 0.03 * slope(net, b.y).sign()).clamp(0, 1), atol=1e-6)


def test_the_single_step_in_l2_has_its_length() -> None:
    net, b = linear(), batch(low=0.4, high=0.6)
    seen = learner(net)
    RECIPES["fast"].function(seen, b, norm="l2", eps=0.5, noise=0.0, step_size=0.0)
    assert torch.allclose(seen.x, b.x + 0.5 * unit_in_pixels(net, b), atol=1e-5)
    assert torch.allclose((seen.x - b.x).flatten(1).norm(dim=1), torch.full((6,), 0.5), atol=1e-5)


def unit_in_pixels(net: nn.Sequential, b: Batch) -> Tensor:
    """The gradient at length 1 in pixels: the slope over the normaliser's std."""
    raw = slope(net, b.y) / torch.tensor((0.2, 0.3, 0.4)).reshape(-1, 1, 1)
    return raw / raw.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_ends_at_the_corner_or_the_pole(norm: str) -> None:
    net, b = linear(), batch(low=0.3, high=0.7)
    seen = learner(net)
    eps = 0.1 if norm == "linf" else 0.4
    RECIPES["pgd"].function(seen, b, norm=norm, eps=eps, steps=40, step_size=eps / 2)
    best = slope(net, b.y).sign() if norm == "linf" else unit_in_pixels(net, b)
    assert torch.allclose(seen.x, b.x + eps * best, atol=2e-3)


def test_projections_and_random_starts() -> None:
    delta = torch.zeros(3, 3, 2, 2)
    delta[0, 0, 0, 0], delta[1, 0, 0, 0] = 0.2, 5.0
    assert torch.equal(project(delta, "l2", 1.0)[0], delta[0])
    assert torch.equal(project(delta, "l2", 1.0)[2], delta[2])
    assert torch.allclose(project(delta, "l2", 1.0)[1].norm(), torch.tensor(1.0))
    assert float(project(delta, "linf", 0.1).abs().max()) == pytest.approx(0.1)
    b, other = batch(200), batch(200, step=4)
    for norm in ("linf", "l2"):
        start = random_start(b, norm, 0.5)
        lengths = start.flatten(1).norm(dim=1) if norm == "l2" else start.abs().flatten(1).amax(1)
        assert float(lengths.max()) <= 0.5 + 1e-6
        assert float(lengths.min()) > 0.4
        assert abs(float(start.mean())) < 0.01
        assert torch.equal(start, random_start(b, norm, 0.5))
        assert not torch.equal(start, random_start(other, norm, 0.5))


def test_ascent_stays_in_the_ball_and_in_the_box() -> None:
    b = batch()
    at = ascend(lambda x: torch.ones_like(x), b.x, torch.zeros_like(b.x), "linf", 0.3, 5, 0.2)
    assert torch.equal(at, (b.x + 0.3).clamp(max=1))


class Quadratic(nn.Module):
    """Cross-entropy to class 0 of x' A x / 2 + 1/2, exactly: the logits are -h and log(1 - exp(-h))."""

    def __init__(self) -> None:
        super().__init__()
        root = torch.from_numpy(Stream(5, "", "hessian").normal(range(12), (12,))) * 0.1
        self.register_buffer("hessian", root @ root.T)
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        h = 0.5 + 0.5 * self.scale * ((x @ self.hessian) * x).sum(1)
        return torch.stack([-h, torch.log(-torch.expm1(-h))], 1)


def test_the_curvature_penalty_of_a_quadratic_is_its_hessian_times_the_step() -> None:
    net = Quadratic()
    x = torch.from_numpy(Stream(6, "", "points").normal(range(5), (3, 2, 2)))
    b = Batch(x, torch.zeros(5, dtype=torch.long), 0, 0)
    plain = Learner(net, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    penalty = curvature(plain, b, 0.7)
    z = (x.flatten(1) @ net.hessian).sign() * (0.7 / math.sqrt(12))
    expected = (z @ net.hessian).norm(dim=1).mean()
    assert penalty.item() == pytest.approx(float(expected), rel=1e-4)
    penalty.backward()
    assert net.scale.grad.item() == pytest.approx(float(expected), rel=1e-4)  # it is linear in the scale


def test_the_step_of_cure_grows_by_tenths_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[float] = []

    def note(net: Learner, batch: Batch, reach: float) -> Tensor:
        reached.append(reach)
        return torch.tensor(1.0)

    monkeypatch.setattr("attrsens.training.learner.curvature", note)
    b = batch()
    for progress in (0.0, 0.1, 0.2, 0.3, 0.4, 0.95):
        moved = Batch(b.x, b.y, b.step, b.seed, progress)
        RECIPES["cure"].function(learner(linear()), moved, h=3.0, penalty=4.0)
    assert reached == pytest.approx([0.1, 0.4, 0.8, 1.8, 3.0, 3.0])


def test_attacks_leave_batch_statistics_alone_and_weights_without_gradients() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    seen, b = learner(net), batch()
    before = copied({n: t for n, t in net.state_dict().items() if "running" in n})
    seen.input_gradient(b.x, b.y)
    assert all(torch.equal(net.state_dict()[n], t) for n, t in before.items())
    assert all(p.grad is None for p in net.parameters())
    seen.loss(b.x, b.y)
    assert not torch.equal(net.state_dict()["1.running_mean"], before["1.running_mean"])


# -- accuracy ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_robust_accuracy_of_a_linear_network(norm: str) -> None:
    net = linear()
    noise = Stream(3, "", "test").uniform(range(60), (SIDE, SIDE, 3))
    images = np.rint(100 + 55 * noise).astype(np.uint8)
    plain = Learner(net, (0.5,) * 3, (1.0,) * 3)
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    logits = plain.logits(x).detach()
    data = Data("line", images, logits.argmax(1).numpy(), ("a", "b"))
    data.labels[:10] = 1 - data.labels[:10]  # some are wrong from the start
    w = slope(net, torch.zeros(1, dtype=torch.long))[0].flatten()
    size = float(w.abs().sum() if norm == "linf" else w.norm())
    margins = (logits[:, 0] - logits[:, 1]).abs()[10:]
    eps = float(margins.median()) / size
    robust = float((margins > eps * size * 1.0001).sum()) / 60
    assert 0.3 < robust < 0.6
    assert clean_accuracy(plain, data) == pytest.approx(50 / 60)
    assert autopgd_accuracy(plain, data, Budget(norm, eps * 1.0002)) == pytest.approx(robust, abs=1.1 / 60)
    assert 0 <= pgd_accuracy(plain, data, Budget(norm, eps * 1.0002), 20) - robust < 3.1 / 60  # weaker at the rim
    assert pgd_accuracy(plain, data, Budget(norm, 0.0), 5) == clean_accuracy(plain, data)


class Broken(nn.Module):
    """Right about everything, but its logits are no numbers for bright pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        shade = x.mean((1, 2, 3)) * self.scale
        return torch.stack([torch.where(shade > 0.6, torch.nan, shade + 1), shade], 1)


def test_what_has_no_finite_logits_is_not_right() -> None:
    images = np.repeat(np.array([10, 20, 250, 240], np.uint8), 3 * SIDE * SIDE).reshape(4, SIDE, SIDE, 3)
    data = Data("shades", images, np.zeros(4, np.int64), ("a", "b"))
    net = Learner(Broken(), (0.0,) * 3, (1.0,) * 3)
    assert clean_accuracy(net, data) == 0.5
    assert pgd_accuracy(net, data, Budget("linf", 0.01), 2) == 0.5
    assert autopgd_accuracy(net, data, Budget("linf", 0.01), 3) == 0.5
    assert all_finite(net, data.part(slice(0, 2)))
    assert not all_finite(net, data)


def test_measuring_draws_other_noise_than_training(monkeypatch: pytest.MonkeyPatch) -> None:
    net, b = learner(linear()), batch(step=0)
    starts: list[Tensor] = []

    def note(*arguments: Any) -> Tensor:
        starts.append(random_start(*arguments))
        return starts[-1]

    monkeypatch.setattr("attrsens.training.evaluate.random_start", note)
    images = np.rint(b.x.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)
    pgd_accuracy(net, Data("six", images, b.y.numpy(), ("a", "b")), Budget("linf", 0.1), 1, seed=7)
    assert torch.equal(starts[0], random_start(Batch(b.x, b.y, 0, 7, purpose="measure"), "linf", 0.1))
    assert not torch.allclose(starts[0], random_start(b, "linf", 0.1))


# -- data --------------------------------------------------------------------------------------------------------------


def test_augmentation_is_the_crop_and_flip_that_were_drawn() -> None:
    data = pictures(32, 16)
    batches = Batches(data, 8, 2, 5, True, torch.device("cpu"))
    assert batches.pad == 2
    padded = np.pad(data.images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    flips = 0
    for step in (0, 3, 4):
        b = batches[step]
        places = order(32, 5, "order", step // 4)[8 * (step % 4) :][:8]
        drawn = Stream(5, "", "train crop").uniform([step], (8, 3))[0]
        for i, place in enumerate(places):
            top, left = (int(v * 5) for v in drawn[i, :2])
            crop = padded[place, top : top + 16, left : left + 16]
            if drawn[i, 2] < 0.5:
                crop, flips = crop[:, ::-1], flips + 1
            assert np.array_equal(b.x[i].permute(1, 2, 0).numpy(), crop.astype(np.float32) / 255)
        assert np.array_equal(b.y.numpy(), data.labels[places])
        assert b.x.is_contiguous(memory_format=torch.channels_last)
    assert 5 < flips < 19


def test_every_epoch_sees_every_image_once() -> None:
    data = pictures(24)
    batches = Batches(data, 8, 2, 0, False, torch.device("cpu"))
    seen = [torch.cat([batches[s].x for s in range(e * 3, e * 3 + 3)]) for e in (0, 1)]
    rows = [sorted(map(tuple, e.flatten(1).numpy().tolist())) for e in seen]
    assert rows[0] == rows[1]
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(batches[5].x, Batches(data, 8, 2, 0, False, torch.device("cpu"))[5].x)


def test_the_held_out_part_is_no_training_image() -> None:
    data = pictures(40)
    rest, held = data.split(10, 3)
    assert (len(rest), len(held)) == (30, 10)
    assert not {i.tobytes() for i in rest.images} & {i.tobytes() for i in held.images}
    assert data.split(10, 4)[1].sha256 != held.sha256


def test_a_sample_is_from_everywhere_and_always_the_same() -> None:
    data = pictures(400)
    some = data.sample(100)
    assert len(some) == 100
    assert np.array_equal(some.images, data.sample(100).images)
    assert data.sample(400) is data
    places = [i for i, image in enumerate(data.images) if image.tobytes() in {s.tobytes() for s in some.images}]
    assert len(places) == 100
    assert 120 < np.mean(places) < 280


def test_statistics_are_those_of_the_pixels() -> None:
    data = pictures()
    mean, std = data.statistics()
    flat = data.images.reshape(-1, 3) / 255
    assert mean == pytest.approx(flat.mean(0), abs=1e-4)
    assert std == pytest.approx(flat.std(0), abs=1e-4)


# -- the loop ----------------------------------------------------------------------------------------------------------


def test_one_cycle_rises_to_its_top_and_falls_to_nothing() -> None:
    rates = [learning_rate(step, 100, 0.2) for step in range(100)]
    assert max(rates) == pytest.approx(0.2)
    assert rates.index(max(rates)) in (19, 20)
    assert rates[0] == pytest.approx(0.01)
    assert rates[-1] == pytest.approx(0.0025)
    assert learning_rate(0, 1, 0.2) == 0.2


def test_without_decay_the_average_is_the_weights() -> None:
    settings = {"ema": 0.0, "weight_decay": 0.0}
    state = State(linear(), settings)
    for _ in range(3):
        state.descend(state.module(batch().x).square().mean(), 0.1)
    assert all(torch.allclose(state.average[n], t) for n, t in state.module.state_dict().items())
    kept = copied(state.module.state_dict())
    state.average["1.bias"] += 1
    with state.averaged():
        assert torch.equal(state.module.state_dict()["1.bias"], state.average["1.bias"])
    assert all(torch.equal(kept[n], t) for n, t in state.module.state_dict().items())


def job(recipe: str, **parameters: Any) -> run.Job:
    spec: Spec = RECIPES[recipe]
    complete = spec.complete({"epochs": 3, "batch": 16, "lr": 0.01, **parameters})
    return run.Job(recipe, complete, Budget("linf", 0.03), (0.5,) * 3, (0.25,) * 3, "fp32", {"of": recipe})


def test_the_guard_goes_back_to_the_last_good_epoch_and_on_with_two_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter([0.4, 0.4, 0.5, 0.01] + [0.3] * 9)  # averaged and own weights by turns; the second epoch collapses
    monkeypatch.setattr(run, "pgd_accuracy", lambda *a: next(told))
    saved: list[dict[str, Tensor]] = []
    monkeypatch.setattr(run, "save_state", lambda path, tensors, facts: saved.append(copied(tensors)))
    trainer = run.Trainer(job("fast"), linear(), pictures(), pictures(100), tmp_path / "c")
    _, course = trainer.run()
    assert [f["epoch"] for f in course.fallbacks] == [2]
    assert course.fallbacks[0]["accuracy"] == 0.01
    assert course.recipe == "pgd"
    assert course.parameters["steps"] == 2
    assert course.parameters["eps"] == 8 / 255
    first, after = ({n: t for n, t in s.items() if not n.startswith("good.")} for s in saved[:2])
    assert all(torch.equal(first[n], after[n]) for n in after)  # weights, momentum and average of the end of epoch 1
    assert [r["epoch"] for r in course.curves] == [1, 2, 2, 3]
    assert trainer.state.step == 9


def test_few_images_are_no_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert collapsed(0.01, 0.5, 100)
    told = iter([1.0, 1.0, 0.0, 0.0, 0.0, 0.0])  # all of the watched are lost, which are one
    monkeypatch.setattr(run, "pgd_accuracy", lambda *a: next(told))
    _, course = run.Trainer(job("fast"), linear(), pictures(), pictures(1), tmp_path / "c").run()
    assert not course.fallbacks
    assert course.recipe == "fast"
    # noise: the worst of thirty epochs after the best of them, at an accuracy that never moves
    drawn = np.sort(np.random.Generator(np.random.Philox(3)).binomial(20, 0.3, (2000, 30)) / 20)
    assert sum(collapsed(float(row[0]), float(row[-1]), 20) for row in drawn) < 20  # one in a hundred runs
    # with as many images as are watched by default it is the share alone that decides
    every = [(a / 512, b / 512) for b in range(1, 513, 3) for a in range(0, b, 2)]
    assert all(collapsed(a, b, 512) == (a < 0.5 * b and b - a > 0.1) for a, b in every)


def test_another_number_of_threads_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("attrsens").propagate = True
    run.Trainer(job("std"), linear(), pictures(), pictures(8), tmp_path / "c").run()
    monkeypatch.setattr(run, "_machine", lambda: {"torch": "9.9", "threads": 64})
    run.Trainer(job("std"), linear(), pictures(), pictures(8), tmp_path / "c").run()
    assert "goes on with torch 9.9 instead of " in caplog.text
    assert "threads 64 instead of" in caplog.text


def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="training diverged: the loss of step"):
        run.Trainer(job("std", lr=1e20), linear(), pictures(), pictures(8), tmp_path / "c").run()


class Killed(Exception):
    """Stands for a kill between two steps."""


@pytest.mark.parametrize("recipe", ["std", "fast"])
def test_a_training_that_was_stopped_anywhere_ends_in_the_same_weights(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = run.Trainer(job(recipe), linear(), pictures(), pictures(8), tmp_path / "whole").run()
    monkeypatch.setattr(run, "SAVED_EVERY", 0.0)
    for stop in (1, 2, 4, 3, 7, None):
        seen = 0

        def tick(progress: run.Progress, stop: int | None = stop) -> None:
            nonlocal seen
            seen += 1
            if seen == stop:
                raise Killed

        net = linear(seed=9 if (tmp_path / "parts").exists() else 0)  # a checkpoint replaces what it is made with
        trainer = run.Trainer(job(recipe), net, pictures(), pictures(8), tmp_path / "parts", tick)
        try:
            parts, course = trainer.run()
        except Killed:
            assert stop is not None
        else:
            break
    assert all(torch.equal(whole[n], parts[n]) for n in whole)
    assert len(course.curves) == 3
    other = run.Job(**{**job(recipe).__dict__, "identity": {"of": "else"}})
    with pytest.raises(AttrsensError, match=r"of another training \(it differs in of\)"):
        run.Trainer(other, linear(), pictures(), pictures(8), tmp_path / "parts").run()
    (tmp_path / "parts").write_bytes(b"no safetensors")
    with pytest.raises(AttrsensError, match="not a checkpoint of attrsens train"):
        run.Trainer(job(recipe), linear(), pictures(), pictures(8), tmp_path / "parts").run()


Change = Callable[[dict[str, Tensor], dict[str, Any]], object]


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, facts: tensors.pop("momentum.1.weight"),
        lambda tensors, facts: tensors.pop("net.1.bias"),
        lambda tensors, facts: tensors.pop("good.average.1.bias"),
        lambda tensors, facts: tensors.update(extra=torch.zeros(1)),
        lambda tensors, facts: tensors.update({"net.1.bias": torch.zeros(3)}),
        lambda tensors, facts: tensors.update({"net.1.bias": torch.zeros(2).double()}),
        lambda tensors, facts: facts.update(step=-5),
        lambda tensors, facts: facts.update(step=10),
        lambda tensors, facts: facts.update(step="3"),
        lambda tensors, facts: facts.update(sums=3),
        lambda tensors, facts: facts.pop("identity"),
        lambda tensors, facts: facts.pop("course"),
        lambda tensors, facts: facts.pop("machine"),
        lambda tensors, facts: facts["course"].pop("recipe"),
        lambda tensors, facts: facts["course"].update(recipe="std"),
        lambda tensors, facts: facts["course"].update(good=99),
        lambda tensors, facts: facts["course"]["parameters"].update(eps="x"),
    ],
)
def test_a_checkpoint_of_another_hand_is_one_line(change: Change, made: Path, tmp_path: Path) -> None:
    found = load_state(made)
    assert found is not None
    change(*found)
    save_state(tmp_path / "c", *found)
    with pytest.raises(AttrsensError, match="not a checkpoint of attrsens train") as caught:
        run.Trainer(job("fast"), linear(), pictures(), pictures(8), tmp_path / "c").run()
    assert caught.value.exit_code == 2


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint after the first of three epochs."""

    def stop(progress: run.Progress) -> None:
        if progress.epoch == 2:
            raise Killed

    path = tmp_path_factory.mktemp("made") / "c"
    with pytest.raises(Killed):
        run.Trainer(job("fast"), linear(), pictures(), pictures(8), path, stop).run()
    return path


def test_a_flipped_bit_is_seen_wherever_it_lies(made: Path, tmp_path: Path) -> None:
    whole = made.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for place in (start, start + (len(whole) - start) // 2, len(whole) - 1, whole.index(b"sums") + 10):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        (tmp_path / "c").write_bytes(damaged)
        with pytest.raises(AttrsensError, match="not a checkpoint of attrsens train"):
            run.Trainer(job("fast"), linear(), pictures(), pictures(8), tmp_path / "c").run()
    (tmp_path / "c").write_bytes(whole)
    run.Trainer(job("fast"), linear(), pictures(), pictures(8), tmp_path / "c").run()


def test_dropout_draws_by_seed_and_step_and_leaves_the_generator_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(folder: str, tick: Callable[[run.Progress], None] = lambda p: None, **settings: Any) -> Tensor:
        net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), linear()[1])
        torch.rand(len(folder))  # what others draw does not matter
        before = torch.random.get_rng_state()
        try:
            weights, _ = run.Trainer(
                job("std", **settings), net, pictures(), pictures(8), tmp_path / folder, tick
            ).run()
        finally:
            assert torch.equal(torch.random.get_rng_state(), before)
        return weights["2.weight"]

    def kill(progress: run.Progress) -> None:
        if (progress.epoch, progress.step) == (2, 2):
            raise Killed

    whole = trained("a")
    assert torch.equal(trained("again"), whole)
    assert not torch.equal(trained("else", seed=1), whole)
    monkeypatch.setattr(run, "SAVED_EVERY", 0.0)
    with pytest.raises(Killed):
        trained("parts", kill)
    assert torch.equal(trained("parts"), whole)


KILL = """
import os, signal, sys
from pathlib import Path
from attrsens.engine.train import carry_out, request
from attrsens.training import run
run.SAVED_EVERY = 0.0
out, when, where = sys.argv[1], int(sys.argv[2]), sys.argv[3]
seen = 0
def die(*_):
    global seen
    seen += 1
    if seen == when:
        os.kill(os.getpid(), signal.SIGKILL)
rename = Path.replace
if where == "rename":
    Path.replace = lambda self, to: (die(), rename(self, to))[1]
asked = request(
    sys.argv[4], "fast", {"epochs": 2, "batch": 16}, arch="preact-resnet8", out=out, name="n", precision="fp32"
)
carry_out(asked, die if where == "step" else lambda progress: None)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9")
def test_kill_9_and_the_same_command_end_in_the_same_file(tmp_path: Path) -> None:
    data = pictures(52, 16)
    np.savez(tmp_path / "noise.npz", images=data.images, labels=data.labels)
    settings = {"epochs": 2, "batch": 16}
    asked = request(
        str(tmp_path / "noise.npz"), "fast", settings, arch="preact-resnet8", out=tmp_path / "a", name="n",
        precision="fp32",
    )  # fmt: skip
    carry_out(asked)
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    for when, where in (("2", "step"), ("3", "rename"), ("99", "step")):
        command = [sys.executable, "-c", KILL, str(tmp_path / "b"), when, where, str(tmp_path / "noise.npz")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == (0 if when == "99" else -signal.SIGKILL), done.stderr
    whole, parts = (load_file(tmp_path / folder / "n.safetensors") for folder in "ab")
    assert all(torch.equal(whole[n], parts[n]) for n in whole)
    assert (tmp_path / "a/n.safetensors").read_bytes() == (tmp_path / "b/n.safetensors").read_bytes()
    assert sorted(p.name for p in (tmp_path / "b").glob("n.*")) == ["n.json", "n.md", "n.safetensors"]
