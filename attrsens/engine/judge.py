"""Scores of explanations: which, of what, and what is known of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrsens.engine.bench import Bench, Job, Outcome
from attrsens.engine.cell import Call, parse_call
from attrsens.engine.run import explainer
from attrsens.scores._case import Case
from attrsens.spec import SCORES

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.explainer import Explainer, Raw
    from attrsens.models.classifier import Classifier
    from attrsens.regions import Region


def case_of(
    bound: Explainer, call: Call, pixels: Tensor, logits: Tensor, raw: Raw, annotated: Region | None = None
) -> Case:
    """An explanation as a score sees it.

    Args:
        bound: the method.
        call: the score; its `sign` and `reduce` say which map is judged.
    """
    seen = {k: str(bound.complete()[k] if call.parameters[k] == "method" else call.parameters[k]) for k in SEEN}
    heatmap = raw.map.detach().float().cpu()
    sign = "signed" if seen["sign"] == "abs_sample" else seen["sign"]  # the method itself has taken it
    return Case(bound, pixels, logits.cpu(), heatmap, raw.notes, annotated, sign, seen["reduce"])


SEEN = ("sign", "reduce")


def judge(
    f: Classifier,
    pixels: Tensor,
    target: int,
    method: str,
    scores: list[str],
    *,
    image: str = "",
    annotated: Region | None = None,
) -> list[Outcome]:
    """Scores of one explanation, in order.

    Args:
        pixels: (C, H, W) in [0, 1].
        method, scores: expressions, such as "sg:n=20" and "deletion:fill=black".
        image: hash that keys the random draws.
    """
    pixels = pixels.to(f.device)
    logits = f.view().logits(pixels[None])[0]
    bound = explainer(f, parse_call(method), target, image)
    raw = bound.raw(pixels)
    bench = Bench(f, lambda text, t: explainer(f, parse_call(text), t, image).raw(pixels))
    calls = [parse_call(text, registry=SCORES) for text in scores]
    jobs = [Job(case_of(bound, call, pixels, logits, raw, annotated), call) for call in calls]
    bench.settle(jobs)
    return [job.outcome for job in jobs if job.outcome]
