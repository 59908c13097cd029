"""Methods without a maintained library, typed from their published definitions: one image, plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def uniform_gradient(net: nn.Module, x: Tensor, target: int, n: int, spread: float, batch: int) -> Tensor:
    """Mean gradient over copies (1, C, H, W) with uniform noise, batch by batch."""
    width, total = spread * float(x.max() - x.min()), torch.zeros_like(x)
    for start in range(0, n, batch):
        copies = x.repeat(min(batch, n - start), 1, 1, 1)
        copies = (copies + (2 * torch.rand_like(copies) - 1) * width).requires_grad_()
        total += torch.autograd.grad(net(copies)[:, target].sum(), copies)[0].sum(0, keepdim=True)
    return total / n


class Rise:
    """RISE (Petsiuk et al.): all masks made once and kept, then seen in batches of 100."""

    def __init__(self, net: nn.Module, n: int, cells: int = 7, keep: float = 0.5, side: int = 224) -> None:
        self.net, self.n, self.keep, self.batch = net, n, keep, 100
        cell = -(-side // cells)
        grids = (torch.rand(n, 1, cells, cells) < keep).float()
        wide = F.interpolate(grids, size=(cells + 1) * cell, mode="bilinear", align_corners=False)
        shifts = torch.randint(0, cell, (n, 2)).tolist()
        self.masks = torch.stack(
            [mask[:, i : i + side, j : j + side] for mask, (i, j) in zip(wide, shifts, strict=True)]
        )

    @torch.no_grad()
    def __call__(self, x: Tensor, target: int) -> Tensor:
        stack = torch.mul(self.masks, x)
        scores = torch.cat([self.net(part).softmax(1) for part in stack.split(self.batch)])
        maps = torch.matmul(scores.T, self.masks.reshape(self.n, -1))  # of every class
        return maps.reshape(-1, *x.shape[-2:])[target] / self.n / self.keep


def meaningful_perturbation(net: nn.Module, x: Tensor, blurred: Tensor, target: int, steps: int) -> Tensor:
    """Fong & Vedaldi's loop with SAM's changes: Adam on a mask of 28 x 28, jitter 4, from ones.

    `x` and `blurred` are (1, C, H + 4, W + 4); autograd goes through the network and the mask.
    """
    side, jitter = x.shape[-1] - 4, 4
    mask = torch.ones(1, 1, 28, 28, requires_grad=True)
    optimiser = torch.optim.Adam([mask], lr=0.1)
    for _ in range(steps):
        i, j = torch.randint(0, jitter, (2,)).tolist()
        wide = F.interpolate(mask, size=side, mode="nearest")
        crop, soft = (image[:, :, i : i + side, j : j + side] for image in (x, blurred))
        score = net(crop * wide + soft * (1 - wide)).softmax(1)[0, target]
        rows = (mask[:, :, 1:] - mask[:, :, :-1]).abs().pow(3).sum()
        columns = (mask[:, :, :, 1:] - mask[:, :, :, :-1]).abs().pow(3).sum()
        loss = 1e-4 * (1 - mask).abs().sum() + 1e-2 * (rows + columns) + score
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        mask.data.clamp_(0, 1)
    return 1 - F.interpolate(mask.detach(), size=side, mode="nearest")[0, 0]


def adversarial_integration(net: nn.Module, x: Tensor, target: int, goals: list[int], steps: int) -> Tensor:
    """AGI (Pan et al.), class by class, until the class is reached; two gradients of one pass a step."""
    total = torch.zeros_like(x)
    for goal in goals:
        point = x.clone()
        for _ in range(steps):
            point = point.detach().requires_grad_()
            scores = net(point).softmax(1)
            if int(scores.argmax()) == goal:
                break
            (up,) = torch.autograd.grad(scores[0, goal], point, retain_graph=True)
            (down,) = torch.autograd.grad(scores[0, target], point)
            moved = (point.detach() + 0.05 * up.sign()).clamp(0, 1) - point.detach()
            total -= down * moved
            point = point.detach() + moved
    return total[0]


@torch.no_grad()
def causal_curve(net: nn.Module, start: Tensor, finish: Tensor, order: Tensor, step: int, target: int) -> float:
    """RISE's evaluation (CausalMetric, Petsiuk et al.) of one image: area under the class's probability while pixels of
    `start` (1, C, H, W) become those of `finish`, `step` at a time in the order given; one forward a step, batch 1.

    Deletion goes from the image to the substrate, insertion from the substrate to the image.
    """
    now, new = start.clone().flatten(2), finish.flatten(2)
    steps = -(-len(order) // step)
    found = torch.empty(steps + 1)
    for i in range(steps + 1):
        found[i] = net(now.reshape(start.shape)).softmax(1)[0, target]
        places = order[i * step : (i + 1) * step]
        now[..., places] = new[..., places]
    return float((found.sum() - found[0] / 2 - found[-1] / 2) / steps)
