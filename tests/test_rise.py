"""rise against its definition, written again in numpy, and against expectations in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import KINDS, Linear, OnePixel, SmallNet, explain, small, uniform

import attrsens
from attrsens.seeds import Stream


def stretch(side: int, cells: int) -> tuple[int, np.ndarray]:
    """(cell size, what each cell gives each place of the enlarged axis), by linear interpolation between centres."""
    cell = int(np.ceil(side / cells))
    at = (np.arange((cells + 1) * cell) + 0.5) * cells / ((cells + 1) * cell) - 0.5
    return cell, np.stack([np.interp(at, np.arange(cells), one) for one in np.eye(cells)], 1)


def masks(n: int, shape: tuple[int, int], cells: int, keep: float, seed: int = 0, first: int = 0) -> np.ndarray:
    """RISE's masks one by one, from the same draws."""
    (tall, rows), (wide, columns) = (stretch(side, cells) for side in shape)
    out = []
    for i in range(first, n):
        u = Stream(seed, "toy", "masks").uniform([i], (cells * cells + 2,))[0]
        grid = (u[2:] < keep).astype(float).reshape(cells, cells)
        top, left = int(u[0] * tall), int(u[1] * wide)
        whole = rows @ grid @ columns.T
        out.append(whole[top : top + shape[0], left : left + shape[1]])
    return np.stack(out)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(16, 16), (20, 13), (5, 6)])
@pytest.mark.parametrize(("cells", "keep", "fill"), [(7, 0.5, "black"), (3, 0.2, "mean"), (20, 0.8, "white")])
def test_equals_its_definition(shape: tuple[int, int], cells: int, keep: float, fill: str, kind: str) -> None:
    f, net, n = small(kind), SmallNet(kind).eval(), 50
    x = uniform(3, *shape, seed=2)
    colour = {"black": 0.0, "white": 1.0, "mean": 0.45}[fill]
    m = torch.from_numpy(masks(n, shape, cells, keep, seed=4)).float()
    with torch.inference_mode():
        seen = m[:, None] * x + (1 - m[:, None]) * colour
        scores = torch.softmax(net((seen - 0.45) / 0.25), 1)[:, 3]
    want = (scores[:, None, None] * m).sum(0) / (n * keep)
    found = explain(f, "rise", x, 3, n=n, cells=cells, keep=keep, fill=fill, seed=4)
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-6)


def test_everything_kept_gives_the_score_itself() -> None:
    f, x = small(), uniform(3, 16, 16, seed=2)
    clean = f.view(output="prob").score(x[None], 1)
    torch.testing.assert_close(explain(f, "rise", x, 1, n=20, keep=1.0), clean.expand(16, 16))


def expected(shape: tuple[int, int], at: tuple[int, int], cells: int, keep: float) -> np.ndarray:
    """E[M(at) M(u)] / keep: keep + (1 - keep) times the overlap of the two pixels' cells, averaged over shifts."""
    overlaps = []
    for side, place in zip(shape, at, strict=True):
        cell, weights = stretch(side, cells)
        windows = np.stack([weights[s : s + side] for s in range(cell)])
        overlaps.append(np.einsum("sc,suc->su", windows[:, place], windows).mean(0))
    return keep + (1 - keep) * np.outer(*overlaps)


@pytest.mark.parametrize("keep", [0.5, 0.2])
def test_one_pixel_networks_give_the_overlap_of_cells(keep: float) -> None:
    """f is one pixel, of value v: the map's expectation is v E[M(pixel) M(u)] / keep."""
    f = attrsens.Classifier(OnePixel(6, 9), [0.0] * 3, [1.0] * 3, crop=21, device="cpu")
    x = torch.full((3, 21, 21), 0.8)
    n = 4000
    found = explain(f, "rise", x, n=n, keep=keep, output="logit")
    want = 0.8 * expected((21, 21), (6, 9), 7, keep)
    assert float((found - torch.from_numpy(want)).abs().max()) < 5 * 0.8 / keep * keep**0.5 / n**0.5
    assert abs(int(found.argmax()) // 21 - 6) + abs(int(found.argmax()) % 21 - 9) <= 3


def test_a_constant_score_gives_the_mean_mask() -> None:
    f = attrsens.Classifier(Linear(torch.zeros(2, 3 * 144), torch.ones(2)), [0.0] * 3, [1.0] * 3, crop=12, device="cpu")
    found = explain(f, "rise", uniform(3, 12, 12), n=60, output="logit")
    want = masks(60, (12, 12), 7, 0.5).mean(0) / 0.5
    torch.testing.assert_close(found, torch.from_numpy(want).float(), rtol=1e-5, atol=1e-6)


def test_the_first_draws_of_a_long_run_are_those_of_a_short_one() -> None:
    """800 R(800) - 50 R(50) is the sum over the other 750 masks alone."""
    f = attrsens.Classifier(OnePixel(4, 4), [0.0] * 3, [1.0] * 3, crop=12, device="cpu")
    x = torch.ones(3, 12, 12)
    long, short = (explain(f, "rise", x, n=n, output="logit") * n for n in (800, 50))
    rest = masks(800, (12, 12), 7, 0.5, first=50)
    want = (rest[:, 4, 4, None, None] * rest).sum(0) / 0.5
    np.testing.assert_allclose((long - short).numpy(), want, rtol=1e-4)


def test_more_masks_come_closer_as_one_over_the_root() -> None:
    f, x = small(), uniform(3, 16, 16, seed=2)
    spread = []
    for n in (100, 400):
        maps = torch.stack([explain(f, "rise", x, 1, n=n, seed=s) for s in range(12)])
        spread.append(float(maps.var(0).mean().sqrt()))
    assert 1.5 < spread[0] / spread[1] < 2.6


def test_both_spaces_hide_alike() -> None:
    f, x = small(), uniform(3, 16, 16, seed=2)
    for fill in ("black", "mean"):
        pixel, normal = (explain(f, "rise", x, n=30, fill=fill, space=s) for s in ("pixel", "normalized"))
        torch.testing.assert_close(normal, pixel, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_constant_images_and_pass_counts(channels: int) -> None:
    spec = attrsens.METHODS["rise"]
    f = small(channels=channels)
    made = attrsens.Explainer(f, spec, 1, spec.complete({"n": 33})).raw(torch.full((channels, 28, 28), 0.5))
    assert bool(made.map.isfinite().all())
    assert (made.passes.forward, made.passes.backward) == (33, 0)


def test_no_tensor_is_larger_than_a_batch() -> None:
    """4,000 masks of 224 x 224 are 800 MB and the images 2.4 GB, so none is held longer than its batch."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest.append(out.numel())
            return out

    f = attrsens.Classifier(OnePixel(4, 4), [0.0] * 3, [1.0] * 3, crop=64, device="cpu")
    with Watch():
        explain(f, "rise", torch.ones(3, 64, 64), n=1000, output="logit")
    assert len(largest) > 100
    assert max(largest) <= 16 * 3 * 64 * 64
