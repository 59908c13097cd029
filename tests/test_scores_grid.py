"""The grid pointing game on networks that find one picture, every picture alike, or no place at all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toys import small, uniform

import attrsens
from attrsens.engine.bench import Bench, Job, Outcome
from attrsens.engine.cell import parse_call
from attrsens.engine.compute import explainer
from attrsens.engine.judge import case_of, judge
from attrsens.images import decode
from attrsens.samples import samples
from attrsens.scores._case import NoValue
from attrsens.scores.grid import cells, compose, photographs, rivals
from attrsens.spec import SCORES

GAME, HALF = "grid_pointing", "grid_pointing:cell=half"


class Prototypes(nn.Module):
    """Logit 0: how much of the image is pure red (or, of one channel, white). The others: nearness to one photograph
    each."""

    def __init__(self, pictures: Tensor, side: int | None = None) -> None:
        super().__init__()
        self.side = side
        self.prototypes = nn.Parameter(F.adaptive_avg_pool2d(pictures, 4).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        if self.side is not None and x.shape[-1] != self.side:
            raise RuntimeError("a matrix of another shape")
        pure = x[:, 0] - x[:, 1] - x[:, 2] - 0.85 if x.shape[1] == 3 else x[:, 0] - 1.5
        first = 1000 * F.relu(pure).mean((1, 2))
        coarse = F.adaptive_avg_pool2d(x, 4).flatten(1)
        others = -((coarse[:, None] - self.prototypes) ** 2).sum(2)
        return torch.cat([first[:, None] - 1, others], 1)


def finder(side: int = 32, channels: int = 3, fixed: bool = False, **options: object) -> attrsens.Classifier:
    preprocess = attrsens.Classifier(
        nn.Flatten(), [0.0] * channels, [1.0] * channels, resize=side, crop=side
    ).preprocess
    pictures = torch.from_numpy(photographs(preprocess, (side, side)))
    net = Prototypes(pictures, side if fixed else None)
    return attrsens.Classifier(
        net, [0.0] * channels, [1.0] * channels, resize=side, crop=side, device="cpu", **options
    )  # fmt: skip


def red(height: int = 32, width: int = 32) -> Tensor:
    image = torch.zeros(3, height, width)
    image[0] = 1
    return image


def game(
    f: attrsens.Classifier, x: Tensor, *expressions: str, method: str = "gi", target: int = 0, image: str = "a"
) -> list[Outcome]:
    return judge(f, x, target, method, list(expressions), image=image)


def test_is_registered_with_a_floor_for_the_map_of_the_grid() -> None:
    traits = SCORES[GAME].traits
    assert (traits["judges"], traits["floor"], traits["direction"]) == ("grid", "shuffle", "higher")
    assert not traits.get("regional")


@pytest.mark.parametrize("expression", [GAME, HALF])
@pytest.mark.parametrize("seed", range(4))
def test_a_network_that_looks_at_its_own_picture_only_wins(expression: str, seed: int) -> None:
    name, _, rest = expression.partition(":")
    (outcome,) = game(finder(), red(), f"{name}:{rest}{',' if rest else ''}seed={seed}")
    assert outcome.value == pytest.approx(1, abs=1e-6), outcome.reason
    assert outcome.details["chance"] == 0.25
    assert outcome.details["cell"] in (0, 1, 2, 3)


@pytest.mark.parametrize("expression", [GAME, HALF])
def test_a_map_that_knows_no_place_gets_the_chance(expression: str) -> None:
    (outcome,) = game(finder(), red(), expression, method="constant")
    assert outcome.value == 0.25
    (outcome,) = game(finder(), red(), expression, method="random")
    assert outcome.value == pytest.approx(0.25, abs=0.06)


def test_negative_values_do_not_count() -> None:
    f = finder()
    signed = explainer(f, parse_call("random"), 0, "a")(torch.zeros(3, 64, 64)).double()
    (outcome,) = game(f, red(), GAME, method="random")
    place = cells(64, 64)[int(outcome.details["cell"])]
    positive = signed.clamp(min=0)
    assert outcome.value == pytest.approx(float(positive[place].sum() / positive.sum()), abs=1e-12)
    assert outcome.value != pytest.approx(float(signed.abs()[place].sum() / signed.abs().sum()), abs=1e-4)


def test_the_seed_moves_the_picture_and_images_differ() -> None:
    f = finder()
    by_seed = {game(f, red(), f"{GAME}:seed={s}")[0].details["cell"] for s in range(20)}
    by_image = {game(f, red(), GAME, image=str(i))[0].details["cell"] for i in range(20)}
    assert by_seed == by_image == {0, 1, 2, 3}


def test_the_map_is_of_the_picture_in_its_cell() -> None:
    """The value again, from a grid put together by hand and autograd."""
    f, x = finder(), red() * 0.97
    x[:, :9] = 0.3
    pictures = torch.from_numpy(photographs(f.preprocess, (32, 32)))
    logits = f.logits(pictures).double()
    assert logits.argmax(1).tolist() == list(range(1, len(pictures) + 1))  # one class each
    three = logits.softmax(1).max(1).values.argsort(descending=True)[:3].tolist()
    for seed in range(4):
        (outcome,) = game(f, x, f"{GAME}:seed={seed}", method="grad:reduce=max")
        own = int(outcome.details["cell"])
        order = [pictures[i] for i in three]
        order.insert(own, x)
        grid = torch.cat([torch.cat(order[:2], 2), torch.cat(order[2:], 2)], 1).requires_grad_()
        logit = f.network(grid[None])[0, 0]
        (gradient,) = torch.autograd.grad(logit, grid)
        positive = gradient.amax(0).clamp(min=0)
        row, column = divmod(own, 2)
        share = positive[32 * row : 32 * row + 32, 32 * column : 32 * column + 32].sum() / positive.sum()
        assert outcome.value == pytest.approx(float(share), abs=1e-6)
        probability = f.logits(grid.detach()[None]).double().softmax(1)[0, 0]
        assert outcome.details["probability"] == pytest.approx(float(probability), abs=1e-6)


def test_the_others_are_of_other_classes_and_never_the_picture_itself() -> None:
    f = finder()
    pictures = torch.from_numpy(photographs(f.preprocess, (32, 32)))
    logits = f.logits(pictures)
    for target in (1, 3):
        bound = explainer(f, parse_call("gi"), target, "a")
        case = case_of(bound, parse_call(GAME, registry=SCORES), pictures[4], logits[4], bound.raw(pictures[4]))
        chosen = rivals(case, pictures, logits)
        sure = logits.double().softmax(1).max(1).values
        surest = sorted((i for i in range(len(pictures)) if i not in (4, target - 1)), key=lambda i: -sure[i])
        assert chosen == surest[:3]
        assert target - 1 not in chosen  # the photograph of the explained class
        assert 4 not in chosen  # the image itself, explained for another class
        same = logits.clone()
        same[:, 7] = 50.0  # every picture is said to be of class 7
        with pytest.raises(NoValue, match=r"finds 1 other classes in the packaged pictures; the grid takes three"):
            rivals(case, pictures, same)


def test_channels_and_fixed_sizes() -> None:
    """28 x 28 of one channel, and a network that takes no other size."""
    x = torch.ones(1, 28, 28) * 0.9
    full, half = game(finder(28, 1), x, GAME, HALF, method="constant")
    assert full.value == half.value == 0.25
    full, half = game(finder(28, 1, fixed=True), x, GAME, HALF, method="constant")
    assert full.value is None
    assert str(full.reason).startswith("on a grid of 56 x 56 pixels: ")
    assert str(full.reason).endswith("cell=half keeps the input's size")
    assert half.value == 0.25


def test_a_classifier_without_resize_or_crop() -> None:
    """The photographs are brought to the image's size, whatever it is."""
    net = Prototypes(torch.from_numpy(photographs(finder().preprocess, (32, 32))))
    f = attrsens.Classifier(net, [0.0] * 3, [1.0] * 3, device="cpu")
    for size in ((32, 32), (21, 35)):
        full, half = game(f, red(*size), GAME, HALF)
        assert full.value == pytest.approx(1, abs=1e-6), full.reason
        assert half.value == pytest.approx(1, abs=1e-6), half.reason
        assert photographs(f.preprocess, size).shape == (9, 3, *size)


def test_photographs_go_through_the_classifiers_own_preprocessing() -> None:
    f = finder(24)
    names = [n for n, s in samples().items() if s.photo]
    found = photographs(f.preprocess, (24, 24))
    for name, picture in zip(names, found, strict=True):
        np.testing.assert_array_equal(picture, f.preprocess.apply(decode(samples()[name].path)))


def test_cells_cover_the_frame_once_and_shrink_by_area() -> None:
    for height, width in ((8, 8), (7, 9)):
        count = np.zeros((height, width))
        for place in cells(height, width):
            count[place] += 1
        assert (count == 1).all()
    members = [uniform(2, 8, 6, seed=i) for i in range(4)]
    image = compose(members, cells(8, 6))
    np.testing.assert_allclose(image[:, :4, :3], members[0].reshape(2, 4, 2, 3, 2).mean((2, 4)), atol=1e-6)
    assert torch.equal(compose(members, cells(16, 12))[:, 8:, :6], members[2])


def test_too_few_classes_and_no_positive_value() -> None:
    f = small()
    logits = f.logits(torch.from_numpy(photographs(f.preprocess, (16, 16))))
    others = set(logits.argmax(1).tolist()) - {0}
    assert len(others) < 3
    (few,) = game(f, uniform(3, 16, 16), GAME)
    assert few.value is None
    assert f"finds {len(others)} other classes" in str(few.reason)
    (blank,) = game(finder(), torch.zeros(3, 32, 32), GAME)
    assert (blank.value, blank.reason) == (None, "the map of the grid has no positive value")
    (apart,) = game(finder(), red(), f"{GAME}:reduce=none")
    assert "choose reduce=" in str(apart.reason)


def test_passes_two_runs_and_batches() -> None:
    x = red() * 0.97
    (first,) = game(finder(), x, GAME, method="sg:n=5")
    (second,) = game(finder(), x, GAME, method="sg:n=5")
    assert first == second
    assert (first.passes.forward, first.passes.backward) == (9 + 1 + 5, 5)
    (alone,) = game(finder(batch=1), x, GAME, method="sg:n=5")
    assert alone.value == pytest.approx(first.value, abs=1e-5)


def test_the_plan_counts_what_the_run_spends() -> None:
    """A dry run's invented logits let the game get to its end."""
    f, x = finder(), red()
    bound = explainer(f, parse_call("gi"), 0, "a")
    call = parse_call(GAME, registry=SCORES)
    spent = []
    for dry in (False, True):
        bench = Bench(f, lambda *_: None, dry=dry)
        job = Job(case_of(bound, call, x, f.logits(x[None])[0], bound.raw(x)), call)
        bench.settle([job])
        assert job.outcome is not None
        spent.append((job.passes.forward, job.passes.backward))
    assert spent[0] == spent[1] == (11, 1)


def test_the_floor_replaces_the_map_of_the_grid() -> None:
    f, x = finder(), red()
    bound = explainer(f, parse_call("gi"), 0, "a")
    call = parse_call(GAME, registry=SCORES)
    order = torch.from_numpy(np.random.default_rng(0).permutation(64 * 64))
    control = lambda m, i: m.flatten(-2)[..., order].reshape(m.shape)  # noqa: E731
    job = Job(case_of(bound, call, x, f.logits(x[None])[0], bound.raw(x)), call, control)
    Bench(f, lambda *_: None).settle([job])
    assert job.outcome is not None
    assert job.outcome.value == pytest.approx(0.25, abs=0.03)
