"""Scores of maps that are given, rather than computed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from toys import Linear, draw

import attrsens
from attrsens.engine.bench import Bench, Job, Outcome
from attrsens.engine.cell import parse_call
from attrsens.engine.judge import case_of
from attrsens.explainer import Raw
from attrsens.models.batches import Passes
from attrsens.scores._case import Case
from attrsens.spec import SCORES

MEAN, STD = torch.tensor([0.5, 0.4, 0.3]).reshape(3, 1, 1), torch.tensor([0.2, 0.3, 0.5]).reshape(3, 1, 1)


def case(f: attrsens.Classifier, x: Tensor, heatmap: Tensor, score: str, target: int = 0, **conventions: str) -> Case:
    """A given raw map as a score sees it; `conventions` are output, space, sign and reduce of its method."""
    spec = attrsens.METHODS["grad"]
    bound = attrsens.Explainer(f, spec, target, spec.complete(conventions), image="toy")
    logits = f.view().logits(x[None])[0]
    return case_of(bound, parse_call(score, registry=SCORES), x, logits, Raw(heatmap, {}, Passes()))


def settle(
    f: attrsens.Classifier,
    x: Tensor,
    maps: Sequence[Tensor],
    scores: Sequence[str],
    target: int = 0,
    **conventions: str,
) -> tuple[list[Outcome], Bench]:
    """Every score of every map, settled together: map by map, in order."""
    bench = Bench(f, lambda text, t: (_ for _ in ()).throw(AssertionError("nothing else is asked for")))
    jobs = [
        Job(case(f, x, heatmap, score, target, **conventions), parse_call(score, registry=SCORES))
        for heatmap in maps
        for score in scores
    ]
    bench.settle(jobs)
    return [job.outcome for job in jobs if job.outcome], bench


def outcome(
    f: attrsens.Classifier, x: Tensor, heatmap: Tensor, score: str, target: int = 0, **conventions: str
) -> Outcome:
    return settle(f, x, [heatmap], [score], target, **conventions)[0][0]


def value(f: attrsens.Classifier, x: Tensor, heatmap: Tensor, score: str, target: int = 0, **conventions: str) -> float:
    found = outcome(f, x, heatmap, score, target, **conventions)
    assert found.value is not None, found.reason
    return found.value


class Lively(nn.Module):
    """A convolution, a ReLU and a linear layer whose probabilities move when a few pixels do."""

    def __init__(self, channels: int = 3, side: int = 12, classes: int = 4, gain: float = 3.0) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(channels, 6, 3, padding=1), nn.Linear(6 * side * side, classes)
        with torch.no_grad():
            for i, p in enumerate(self.parameters()):
                p.copy_(draw(*p.shape, seed=i) * 0.4)
            self.fc.weight.mul_(gain / side)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).relu().flatten(1))


def lively(channels: int = 3, side: int = 12, gain: float = 3.0, **options: object) -> attrsens.Classifier:
    """A classifier that normalises unevenly over its channels."""
    mean, std = MEAN.flatten().tolist()[:channels], STD.flatten().tolist()[:channels]
    return attrsens.Classifier(Lively(channels, side, gain=gain), mean, std, crop=side, device="cpu", **options)


def uneven(side: int = 8, classes: int = 3) -> tuple[attrsens.Classifier, Tensor]:
    """(a linear classifier that normalises as `lively` does, its weights for pixels)."""
    weight = draw(classes, 3, side, side, seed=5)
    net = Linear(weight.flatten(1), draw(classes, seed=6))
    f = attrsens.Classifier(net, MEAN.flatten().tolist(), STD.flatten().tolist(), crop=side, device="cpu")
    return f, weight / STD
