"""Infidelity."""

from __future__ import annotations

import pytest
import torch
from captum.metrics import infidelity as captum_infidelity
from judged import MEAN, STD, case, lively, outcome, settle, uneven, value
from toys import Linear, draw, linear, uniform

import attrsens
from attrsens.engine.judge import judge
from attrsens.scores.infidelity import _Squares
from attrsens.seeds import Stream

SQUARES = "infidelity:n=0,side_min=0.16,side_max=0.35"  # 2 to 4 of 12


def every_square(side: int, low: int, high: int) -> list[tuple[int, int, int]]:
    return [(s, i, j) for s in range(low, high + 1) for i in range(side - s + 1) for j in range(side - s + 1)]


@pytest.mark.parametrize("scaling", ["free", "none"])
@pytest.mark.parametrize("times_x", [False, True])
@pytest.mark.parametrize("fill", ["mean", "black"])
def test_squares_as_captum(fill: str, times_x: bool, scaling: str) -> None:
    f, x, heatmap = lively(), uniform(3, 12, 12, seed=3), draw(3, 12, 12, seed=4)
    squares = every_square(12, 2, 4)
    seen = iter(squares)
    colour = MEAN if fill == "mean" else torch.zeros(3, 1, 1)

    def perturb(inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        told, images = torch.zeros_like(inputs), inputs.clone()
        for k in range(len(inputs)):
            side, top, left = next(seen)
            place = (k, slice(None), slice(top, top + side), slice(left, left + side))
            told[place] = (inputs[place] - colour) if times_x else 1.0
            images[place] = colour.expand_as(images[place])
        return told, images

    want = captum_infidelity(
        f.view().logits,
        perturb,
        x[None],
        heatmap[None],
        target=1,
        n_perturb_samples=len(squares),
        max_examples_per_batch=64,
        normalize=scaling == "free",
    )
    score = f"{SQUARES},fill={fill},times_x={times_x},scaling={scaling}"
    got = outcome(f, x, heatmap, score, target=1)
    assert got.value == pytest.approx(float(want), rel=1e-4)
    assert got.passes.forward == len(squares)
    if times_x:  # the same slope in another space tells the same
        there = value(f, x, heatmap * STD, score, target=1, space="normalized")
        assert there == pytest.approx(got.value, rel=1e-4)


@pytest.mark.parametrize("scaling", ["free", "none"])
@pytest.mark.parametrize("space", ["pixel", "normalized"])
def test_gaussian_as_captum(space: str, scaling: str) -> None:
    f, x, heatmap = lively(), uniform(3, 12, 12, seed=3), draw(3, 12, 12, seed=4)
    noise = torch.from_numpy(Stream(7, "toy", "infidelity noise").normal(range(60), (3, 12, 12)))
    seen = iter(noise)

    def perturb(inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = torch.stack([next(seen) for _ in inputs])
        removed = torch.maximum(torch.minimum(inputs + 0.2 * z, inputs), inputs - 1)
        return (removed if space == "pixel" else removed / STD), inputs - removed

    want = captum_infidelity(
        f.view().logits,
        perturb,
        x[None],
        heatmap[None],
        target=1,
        n_perturb_samples=60,
        max_examples_per_batch=16,
        normalize=scaling == "free",
    )
    score = f"infidelity:perturbation=gaussian,n=60,seed=7,scaling={scaling}"
    assert value(f, x, heatmap, score, target=1, space=space) == pytest.approx(float(want), rel=1e-4)


@pytest.mark.parametrize("space", ["pixel", "normalized"])
@pytest.mark.parametrize("scaling", ["free", "positive", "none"])
def test_a_linear_network_is_told_exactly(scaling: str, space: str) -> None:
    """x w under the indicator, w with what is removed or under noise: each in its space; not the other way round."""
    f, w = uneven()
    x = uniform(3, 8, 8, seed=2)
    slope = w[1] if space == "pixel" else w[1] * STD
    change = value(f, x, slope, "infidelity:n=0,scaling=none") + 1
    tail = f"scaling={scaling}"
    for score, right, wrong in [
        (f"infidelity:n=0,times_x=true,{tail}", slope, w[1] * (x - MEAN)),
        (f"infidelity:n=0,{tail}", w[1] * (x - MEAN), slope),
        (f"infidelity:n=0,fill=black,{tail}", w[1] * x, w[1] * (x - MEAN)),
        (f"infidelity:perturbation=gaussian,n=40,{tail}", slope, w[1] * x),
    ]:
        assert value(f, x, right, score, 1, space=space) < 1e-6 * change
        assert value(f, x, wrong, score, 1, space=space) > 1e-3
    other = "normalized" if space == "pixel" else "pixel"
    assert value(f, x, slope, f"infidelity:n=0,times_x=true,{tail}", 1, space=other) > 1e-3, "spaces are not the same"


def test_methods_on_a_linear_network() -> None:
    f, _ = linear(side=10)
    x = uniform(3, 10, 10, seed=3)
    scores = ["infidelity:fill=black,side_min=.2,side_max=.4", "infidelity:fill=black,times_x=true"]
    for method in ("gi", "ig:output=logit", "deeplift"):
        assert judge(f, x, 2, method, scores, image="toy")[0].value == pytest.approx(0, abs=1e-8)
    for method in ("grad", "sg:n=3", "ug:n=3"):
        assert judge(f, x, 2, method, scores, image="toy")[1].value == pytest.approx(0, abs=1e-8)
    assert judge(f, x, 2, "grad", scores, image="toy")[0].value > 0.01


def test_what_the_factor_may_be() -> None:
    f, x, heatmap = lively(), uniform(3, 12, 12, seed=3), draw(3, 12, 12, seed=4)
    net = torch.autograd.functional.jacobian(lambda z: f.network(((z - MEAN) / STD)[None])[0, 1], x)
    heatmap = heatmap * 0.2 + net * (x - MEAN)
    maps = [heatmap, -heatmap, 7 * heatmap]
    scores = [f"{SQUARES},scaling={s}" for s in ("free", "positive", "none")]
    found, _ = settle(f, x, maps, scores, target=1)
    free, positive, none, free_minus, positive_minus, none_minus, free_7, positive_7, none_7 = found
    assert free.details["beta_sign"] == 1
    assert free_minus.details["beta_sign"] == -1
    assert free_minus.value == pytest.approx(free.value), "of either sign"
    assert positive.value == free.value
    assert positive_minus.value == pytest.approx(free.details["change"]), "no sign, no credit"
    assert positive_minus.details["beta"] == positive_minus.details["beta_sign"] == 0
    assert free_7.value == pytest.approx(free.value)
    assert positive_7.value == pytest.approx(free.value)
    assert free_7.details["beta"] == pytest.approx(free.details["beta"] / 7)
    assert none_minus.value > none.value > free.value
    assert none_7.value > 2 * none.value, "ranks by magnitude"
    assert [o.details["unscaled"] for o in found[:3]] == [none.value] * 3
    assert none.details["beta"] == 1


def test_the_share_compares_networks() -> None:
    """Logits ten times as large: infidelity a hundred times, its share the same."""
    x, heatmap = uniform(3, 12, 12, seed=3), draw(3, 12, 12, seed=4)
    small, large = (outcome(lively(gain=g), x, heatmap, SQUARES) for g in (1.0, 10.0))
    assert large.value == pytest.approx(100 * small.value, rel=1e-3)
    assert large.details["normalized"] == pytest.approx(small.details["normalized"], rel=1e-3)
    share = value(lively(gain=10.0), x, heatmap, f"{SQUARES},normalize=true")
    assert share == large.details["normalized"] == pytest.approx(large.value / large.details["change"])
    for seed in range(5):
        for scaling in ("free", "positive"):
            score = f"{SQUARES},normalize=true,scaling={scaling}"
            assert 0 <= value(lively(), x, draw(3, 12, 12, seed=seed), score) <= 1


def test_nothing_told_and_nothing_to_tell() -> None:
    f, x = lively(), uniform(3, 12, 12, seed=3)
    found = outcome(f, x, torch.zeros(3, 12, 12), SQUARES)
    assert found.value == found.details["change"] == found.details["unscaled"]
    assert found.details["beta"] == 0
    still = attrsens.Classifier(Linear(torch.zeros(2, 432), torch.zeros(2)), [0.0] * 3, [1.0] * 3, device="cpu")
    assert value(still, x, draw(3, 12, 12), SQUARES) == 0
    assert outcome(still, x, draw(3, 12, 12), SQUARES).details["normalized"] is None
    assert outcome(still, x, draw(3, 12, 12), f"{SQUARES},normalize=true").value is None
    assert outcome(f, x, draw(3, 12, 12), "infidelity:perturbation=gaussian,n=0").value is None
    assert "more than side_max" in (outcome(f, x, draw(3, 12, 12), "infidelity:side_min=.5").reason or "")


def test_a_map_without_channels_is_shared_out_among_them() -> None:
    f, x, plane = lively(), uniform(3, 12, 12, seed=3), draw(12, 12, seed=4)
    for score in (
        f"{SQUARES},scaling=none",
        f"{SQUARES},scaling=none,times_x=true",
        "infidelity:perturbation=gaussian,n=9,scaling=none",
    ):
        assert value(f, x, plane, score) == pytest.approx(value(f, x, (plane / 3).expand(3, 12, 12), score), rel=1e-5)
    for score in ("faithfulness:n=20", "faithfulness:n=20,perturbation=zero"):
        assert value(f, x, plane, score) == pytest.approx(value(f, x, plane.expand(3, 12, 12), score), rel=1e-9)


@pytest.mark.parametrize(
    ("side", "shares", "sides", "count"),
    [
        (224, "side_min=.1295,side_max=.1339", (29, 30), 76441),
        (28, "side_min=.0357,side_max=.357", (1, 10), 5605),
        (32, "side_min=.03125,side_max=.46875", (1, 15), 9655),
        (32, "stride=1", (4, 4), 841),
    ],
)
def test_the_published_squares(side: int, shares: str, sides: tuple[int, int], count: int) -> None:
    x = torch.zeros(1, side, side)
    one = case(lively(1, side), x, x, "infidelity")
    given = {k: float(v) for k, v in (p.split("=") for p in shares.split(","))}
    low, high = given.get("side_min", 0.1295), given.get("side_max", 0.1339)
    squares = _Squares(one, 0, (low, high), 1, "mean", False, one.stream(0, "s"))
    assert (squares.sides, squares.count) == (sides, count)
    assert sorted(map(tuple, squares.squares.tolist())) == every_square(side, *sides), "each once"
    some = _Squares(one, 50, (low, high), 1, "mean", False, one.stream(0, "s"))
    assert torch.equal(some.squares, squares.squares[:50]), "the first of the longer run"
    other = _Squares(one, 50, (low, high), 1, "mean", False, one.stream(1, "s"))
    assert not torch.equal(some.squares, other.squares)


def test_a_stride_skips_places() -> None:
    x = torch.zeros(1, 12, 10)
    one = case(lively(1, 12), torch.zeros(1, 12, 12), torch.zeros(1, 12, 12), "infidelity")
    object.__setattr__(one, "pixels", x)
    squares = _Squares(one, 0, (0.3, 0.3), 4, "mean", False, one.stream(0, "s"))
    assert sorted(map(tuple, squares.squares.tolist())) == [(3, i, j) for i in (0, 4, 8) for j in (0, 4)]
