"""Does a network see what it was trained on? Its first BatchNorm and, for ImageNet, its answers on packaged pictures,
under its own preprocessing and under the usual mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attrsens.models.labels import load_labels
from attrsens.samples import Sample

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.models.classifier import Classifier

# means and standard deviations that networks are trained with
Statistics = tuple[tuple[float, ...], tuple[float, ...]]
USUAL: dict[int, dict[str, Statistics]] = {
    3: {
        "ImageNet's mean and std": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "mean=0.5 std=0.5": ((0.5,) * 3, (0.5,) * 3),
        "pixels in [0, 1]": ((0.0,) * 3, (1.0,) * 3),
        "CIFAR-10's mean and std": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        "pixels from 0 to 255": ((0.0,) * 3, (1 / 255,) * 3),
    },
    1: {
        "pixels in [0, 1]": ((0.0,), (1.0,)),
        "MNIST's mean and std": ((0.1307,), (0.3081,)),
        "mean=0.5 std=0.5": ((0.5,), (0.5,)),
    },
}
FOREIGN = 0.15  # divergence of the first BatchNorm beyond which its input is not what it was trained on
BETTER = 0.2  # mean log-probability (nats) by which another reading must do better on the pictures
POOR = 0.4  # share of pictures right below which something is wrong


DEFINITIONS = {
    "divergence": "median over the channels of the network's first BatchNorm of KL(N(mean, variance of its input over "
    "the packaged photographs) | N(running mean, running variance)), nats; lower is better",
    "log_probability": "mean over the packaged pictures of the log of the summed softmax probability of the classes "
    "that a person would let pass for what the picture shows, nats; higher is better",
    "right": "packaged pictures whose top-1 class is one of those; higher is better",
}


@dataclass
class Reading:
    """One way to feed the network.

    Attributes:
        divergence: median over the channels of the first BatchNorm of the Gaussian divergence KL(mean and variance of
            the photographs | running ones), in nats; lower is better; None without a BatchNorm.
        log_probability: mean over the pictures of the log of the summed softmax probability of the right classes;
            higher is better; right: pictures whose top-1 is a right class. None where classes are not ImageNet's.
    """

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    order: str
    divergence: float | None = None
    log_probability: float | None = None
    right: int | None = None


@dataclass
class Sanity:
    """The readings, own first; how many pictures were judged; what is suspicious, and what could not be checked."""

    readings: list[Reading] = field(default_factory=list)
    pictures: int = 0
    suspicions: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


def sanity(f: Classifier, pixels: Tensor, shown: Sequence[Sample]) -> Sanity:
    """Check mean, std, channel order and top-1, with as many passes of all pictures as there are readings.

    Args:
        f: an unfolded classifier. pixels: (N, C, H, W) of the packaged pictures that are `shown`, photographs first.
    """
    out = Sanity()
    imagenet = load_labels("imagenet").names
    known = f.classes is not None and tuple(f.classes) == imagenet
    right = [s.right for s in shown] if known and all(s.right for s in shown) else []
    own = Reading("as loaded", f.preprocess.mean, f.preprocess.std, "as loaded")
    out.readings = [own]
    for name, (mean, std) in USUAL[f.preprocess.channels].items():
        if _far(own, mean, std):
            out.readings.append(Reading(name, mean, std, "as loaded"))
    if f.preprocess.channels == 3:
        out.readings.append(Reading("channels reversed (BGR)", own.mean, own.std, "reversed"))
    for reading in out.readings:
        _read(f, reading, pixels, right, sum(s.photo for s in shown))
    out.pictures = len(right)
    judge(out, own)
    return out


def _far(own: Reading, mean: tuple[float, ...], std: tuple[float, ...]) -> bool:
    """Whether normalising so moves some colour by more than a tenth of a standard deviation."""
    pairs = zip(own.mean, own.std, mean, std, strict=True)
    return any(abs((v - m) / s - (v - n) / t) > 0.1 for m, s, n, t in pairs for v in (0.0, 1.0))


def _read(f: Classifier, reading: Reading, pixels: Tensor, right: list[tuple[int, ...]], photos: int) -> None:
    import torch
    from torch import nn

    from attrsens.models.surgery import first_output

    seen: list[tuple[Any, Tensor]] = []

    def watch(module: nn.Module, inputs: Any) -> None:
        if not seen:
            seen.append((module, inputs[0].detach()))

    norms = [m for m in f.network.modules() if isinstance(m, nn.BatchNorm2d) and m.running_mean is not None]
    handles = [m.register_forward_pre_hook(watch) for m in norms]
    shape = (-1, 1, 1)
    mean, std = (pixels.new_tensor(v).reshape(shape) for v in (reading.mean, reading.std))
    x = (pixels.flip(1) if reading.order == "reversed" else pixels).sub(mean).div(std).to(f.device)
    parts = [part.clone() for part in (x[:photos], x[photos:]) if len(part)]  # statistics are the photographs'
    try:
        with torch.inference_mode():
            logits = torch.cat([first_output(f.network(part)).float() for part in parts])
    finally:
        for handle in handles:
            handle.remove()
    if seen:
        reading.divergence = _divergence(*seen[0])
    if right:
        shares = logits.double().softmax(1).cpu()
        pairs = list(zip(shares, right, strict=True))
        logs = [float(share[list(classes)].sum().clamp(min=1e-12).log()) for share, classes in pairs]
        reading.log_probability = sum(logs) / len(logs)
        reading.right = sum(int(share.argmax()) in classes for share, classes in pairs)


def _divergence(norm: Any, x: Tensor) -> float:
    """Median over channels of KL(N(mean, var of x) | N(running mean, running var))."""
    import torch

    mean, var = x.double().mean((0, 2, 3)), x.double().var((0, 2, 3), unbiased=False) + norm.eps
    there, spread = norm.running_mean.double(), norm.running_var.double() + norm.eps
    each = 0.5 * (var / spread + (mean - there) ** 2 / spread - 1 - torch.log(var / spread))
    return float(each.median())


def judge(out: Sanity, own: Reading) -> None:
    """Say what the readings make suspicious, and what they cannot tell."""
    others = [r for r in out.readings[1:] if r.order == "as loaded"]
    if len(own.mean) == 1:
        out.unchecked.append("mean and std: packaged pictures are photographs, and one channel means other pictures")
    elif own.divergence is not None:
        best = min(others, key=lambda r: r.divergence or 0.0, default=own)
        if own.divergence > FOREIGN and best.divergence is not None and best.divergence < min(own.divergence / 3, 0.3):
            out.suspicions.append(
                f"mean and std look wrong: the first BatchNorm was trained on inputs like {best.name} (divergence "
                f"{best.divergence:.2f} against {own.divergence:.2f} nats)"
            )
    elif own.log_probability is not None:
        best = max(others, key=lambda r: r.log_probability or -1e9, default=own)
        if (best.log_probability or -1e9) > own.log_probability + BETTER:
            out.suspicions.append(
                f"mean and std look wrong: the pictures' classes are likelier with {best.name} (mean log-probability "
                f"{best.log_probability:.2f} against {own.log_probability:.2f})"
            )
    else:
        out.unchecked.append("mean and std: no BatchNorm, and no packaged picture shows these classes")
    if own.log_probability is None:
        out.unchecked.append("top-1 and channel order: no packaged picture shows these classes")
        return
    swapped = next((r for r in out.readings if r.order == "reversed"), None)
    if swapped and (swapped.log_probability or -1e9) > own.log_probability + BETTER:
        out.suspicions.append(
            f"channels look swapped: the pictures' classes are likelier in BGR order (mean log-probability "
            f"{swapped.log_probability:.2f} against {own.log_probability:.2f})"
        )
    if own.right is not None and own.right < POOR * out.pictures:
        out.suspicions.append(
            f"only {own.right} of {out.pictures} packaged pictures are recognised: untrained, another order of "
            "classes, or another input than it was trained on"
        )
