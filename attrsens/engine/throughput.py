"""How fast a network runs here, and how much memory that takes."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from attrsens.errors import AttrsensError
from attrsens.images import Preprocess

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.models.classifier import Classifier

FLOOR_BATCHES = (4, 8, 16)


def throughput(classifier: Classifier, budget: float) -> tuple[float, float]:
    """(passes a second forward, and forward and back) over random images, within the budget of seconds."""
    import torch

    steps: Preprocess = classifier.preprocess
    side = steps.crop or steps.resize or 224
    view = classifier.view()
    start = time.perf_counter()
    noise = view.stream(0, "calibration").uniform(range(classifier.sizes[0]), (steps.channels, side, side))
    batch = view.encode(torch.from_numpy(noise))

    def rate(run: object, count: int, until: float) -> float:
        best = math.inf
        while True:
            begin = time.perf_counter()
            run()  # type: ignore[operator]
            _wait(classifier)
            now = time.perf_counter()
            best = min(best, now - begin)
            if now + (now - begin) > until:
                return count * classifier.copies / best

    view.logits(batch[:1])  # folding and first-use costs
    began = time.perf_counter()
    view.logits(batch[:1])
    _wait(classifier)
    fits = max(1, int(budget / 8 / (time.perf_counter() - began)))  # images that a quarter of each half lasts for
    batch = batch[:fits]
    middle = start + budget / 2
    forward = rate(lambda: view.logits(batch), len(batch), middle)
    try:
        part = batch[: classifier.sizes[1]]
        both = rate(lambda: list(view.gradients(part, 0)), len(part), start + budget)
    except AttrsensError:
        both = forward / 3
    return forward, both


def floor(fast: Classifier, pixels: Tensor, budget: float, back: bool) -> dict[str, float]:
    """Passes a second, forward and (if there is a way back) with gradient, of the bare network in its form: the best
    over the batches."""
    import torch

    from attrsens.models.surgery import first_output

    form, best = fast.form, dict.fromkeys(("forward", "gradient") if back else ("forward",), 0.0)
    assert form is not None

    def forward(x: Tensor) -> None:
        with torch.inference_mode():
            fast.network(x)

    def gradient(x: Tensor) -> None:
        given = x.detach().requires_grad_()
        torch.autograd.grad(first_output(fast.network(given))[:, 0].sum(), given)

    runs = {"forward": forward, "gradient": gradient}
    for kind in best:
        for size in FLOOR_BATCHES if fast.copies == 1 else (1,):
            repeats = -(-size // len(pixels))
            x = fast.normalised(pixels.repeat(repeats, 1, 1, 1)[:size]).contiguous(memory_format=form.layout)
            until = time.perf_counter() + budget / 2 / len(FLOOR_BATCHES)
            while True:
                begin = time.perf_counter()
                runs[kind](x)
                _wait(fast)
                now = time.perf_counter()
                best[kind] = max(best[kind], size * fast.copies / (now - begin))
                if now + (now - begin) > until:
                    break
    return best


def peak_memory(classifiers: object = ()) -> float | None:
    """Peak memory of this process in MB (of the GPU's tensors where one is in use); None where it is not known."""
    import torch

    if any(c.device.type == "cuda" for c in classifiers):  # type: ignore[attr-defined]
        return float(torch.cuda.max_memory_allocated() / 1e6)
    try:
        import resource
        import sys
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak / 1e6 if sys.platform == "darwin" else peak / 1e3)


def _wait(classifier: Classifier) -> None:
    import torch

    if classifier.device.type == "cuda":
        torch.cuda.synchronize(classifier.device)
