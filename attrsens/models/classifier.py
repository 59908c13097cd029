"""The classifier: the one place that normalises, batches, counts passes and knows devices."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attrsens.errors import AttrsensError
from attrsens.images import Preprocess
from attrsens.models.batches import Images, Passes, batch_sizes, chunks, measure
from attrsens.models.devices import check_batch, keep_memory, pick_device
from attrsens.models.failures import copied, explained, is_memory
from attrsens.models.form import Form, fast_form
from attrsens.models.identity import fingerprint
from attrsens.models.outputs import Target, check_finite, check_logits, select
from attrsens.models.second_order import differentiable
from attrsens.models.spaces import Spaces
from attrsens.models.surgery import core_of, first_output
from attrsens.seeds import Stream


@dataclass
class _Shared:
    """What every view of a classifier has in common."""

    batch: int
    gradient_batch: int
    form: Form | None
    classes: int | None = None
    tick: Callable[[int], None] | None = None  # told of every batch


class Classifier(Spaces):
    """Images in [0, 1] in, logits out.

    Args:
        module: maps normalised images (N, C, H, W) to logits (N, classes), or to a tuple that starts with them.
            It is copied, so yours stays as it is.
        mean, std: one number a channel.
        resize, crop, interp, squash, clamp: how pictures become its input (see `Preprocess`).
        classes: class names in order of index.
        name, id: for reports and cache keys; the id defaults to a hash of weights, type and preprocessing.
        device: auto, cpu, cuda or cuda:INDEX.
        precision: fp32, or bf16 for passes without a gradient.
        fold: fold BatchNorm and use channels_last where there are convolutions; False is the reference numerics.
        batch: images a pass, or "auto" (16 on a CPU, 8 with gradients; 64 on a GPU); halved when memory runs out.
        copy_module: False hands the module over instead of copying it.

    Attributes:
        passes: counts since this object (or view) was made; an image of a smoothed network counts once a noisy copy.
        architecture, layout: what was loaded, in words, where it was loaded from a name or file.
        probe: tries, in one pass, whether a wrapper has anything to do; None where that is no question.
        reload: loads it anew, with another `fold`; None for a module that was handed over.
    """

    def __init__(
        self,
        module: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        resize: int | None = None,
        crop: int | None = None,
        interp: str = "bilinear",
        squash: bool = False,
        clamp: bool = False,
        classes: Sequence[str] | None = None,
        name: str | None = None,
        id: str | None = None,
        device: str = "auto",
        precision: str = "fp32",
        fold: bool = True,
        batch: int | str = "auto",
        copy_module: bool = True,
    ) -> None:
        self.preprocess = Preprocess(resize, crop, interp, squash, tuple(mean), tuple(std), clamp)
        self.classes = list(classes) if classes is not None else None
        self.name = name or type(module).__name__.lower()
        self.device = pick_device(device)
        if precision not in ("fp32", "bf16"):
            raise AttrsensError(f"precision must be fp32 or bf16; got {precision!r}")
        check_batch(batch)
        keep_memory(self.device.type)
        self.precision, self.fold, self.asked_batch = precision, fold, batch
        self.id = id or f"{self.name}@{fingerprint(module, self.preprocess, self.classes)}"
        self.output, self.space, self.sign = "logit", "pixel", "signed"
        self.image, self.zoom, self.dry, self.graph = "", (1.0, 1.0), False, False
        self.dtype = torch.float32
        self.wnids: tuple[str, ...] = ()
        self.sha256: str | None = None
        self.architecture, self.layout = type(module).__name__, ["a module in memory"]
        self.source: str | None = None
        self.reload: Callable[..., Classifier] | None = None
        self.probe: Callable[[], None] | None = None
        self.memo: dict[str, Any] = {}  # what was once learned of the network, for all its views
        self.passes = Passes()
        self._net = (copied(module, self.name) if copy_module else module).eval().requires_grad_(False).to(self.device)
        convs = any(isinstance(m, nn.Conv2d) for m in self._net.modules())
        sizes = batch_sizes(self.device.type, batch)
        self._copies: list[Any] = [m for m in self._net.modules() if hasattr(m, "copies") and hasattr(m, "chunk")]
        for part in self._copies:
            part.chunk = sizes[1]
        sizes = (max(1, sizes[0] // self.copies), max(1, sizes[1] // self.copies))
        self._clamps = self.preprocess.clamp and not self._copies
        self._shared = _Shared(*sizes, form=None if fold and convs else Form())
        self._mean, self._std = (torch.tensor(tuple(v), device=self.device).reshape(-1, 1, 1) for v in (mean, std))

    # -- views ---------------------------------------------------------------------------------------------------

    def view(
        self,
        *,
        output: str = "logit",
        space: str = "pixel",
        sign: str = "signed",
        image: str = "",
        zoom: tuple[float, float] = (1.0, 1.0),
        dry: bool = False,
        graph: bool = False,
    ) -> Classifier:
        """The same network seen through conventions, with a pass count of its own.

        Args:
            output: "logit" or "prob", the scalar that `score` and gradients are of.
            space: "pixel" or "normalized", the tensor that goes in and that gradients refer to.
            sign: "abs_sample" takes the absolute value of every gradient.
            image: hash that keys the random streams.
            zoom: pixels of the image a pixel of the picture before resizing, down and across.
            dry: count passes without running any; scores and gradients are zeros.
            graph: gradients can be differentiated with respect to the images (see `second_order`).
        """
        view = copy.copy(self)
        view.output, view.space, view.sign, view.image, view.zoom, view.dry = output, space, sign, image, zoom, dry
        view.graph = graph
        view.passes = Passes()
        return view

    def stream(self, seed: int, purpose: str) -> Stream:
        """The random draws of this image for this purpose."""
        return Stream(seed, self.image, purpose)

    @property
    def class_count(self) -> int:
        """How many classes: from the names, else from one pass over a grey image."""
        if self.classes is None and self._shared.classes is None:
            self._shared.classes = self.try_out().shape[1]
        return len(self.classes) if self.classes is not None else self._shared.classes or 0

    @class_count.setter
    def class_count(self, count: int) -> None:
        self._shared.classes = count

    def try_out(self) -> Tensor:
        """The logits (1, classes) of a grey image of the usual size; raises what a pass raises."""
        side = self.preprocess.crop or self.preprocess.resize or 224
        grey = torch.full((1, self.preprocess.channels, side, side), 0.5, device=self.device)
        return self.view().logits(grey)

    @property
    def sizes(self) -> tuple[int, int]:
        """Images a batch: (forward only, with gradients)."""
        return self._shared.batch, self._shared.gradient_batch

    @property
    def copies(self) -> int:
        """How often the network runs for one image: more than once where a wrapper averages over noise."""
        return math.prod(part.copies for part in self._copies)

    @property
    def network(self) -> nn.Module:
        """The network over normalised images, in the form that passes run; it is not yours to change."""
        return self._net

    def settle(self, image: Tensor) -> None:
        """Bring the network into its form on an image (C, H, W), for what watches its passes; costs no counted pass."""
        if self._shared.form is None and not self.dry:
            self._shared.form = fast_form(core_of(self._net), self._normalised(image[None].detach(), Form()))

    @property
    def form(self) -> Form | None:
        """What was done to the network for speed; None before its first pass, which settles it."""
        return self._shared.form

    def on_batch(self, tick: Callable[[int], None] | None) -> None:
        """Have a function told of every batch of this network: how many images it held."""
        self._shared.tick = tick

    # -- passes --------------------------------------------------------------------------------------------------

    def logits(self, images: Images) -> Tensor:
        """Logits (N, classes) of a stack, a `Stack` or any iterable of images. One forward pass an image."""
        parts = [self._retry(self._forward_only, chunk) for chunk in chunks(images, self._shared.batch)]
        return torch.cat(parts)

    def score(self, images: Images, target: Target) -> Tensor:
        """The target's logit or probability of every image, (N,); `target` may be one an image. One forward each."""
        if self.dry:
            return torch.cat([part[:, 0] for part in self.scores(images, [0])])
        return self._select(self.logits(images), target)

    def scores(self, images: Images, targets: Sequence[int]) -> Iterator[Tensor]:
        """Logits or probabilities of several classes, (b, classes) batch by batch. One forward pass an image."""
        if self.dry:
            for part in torch.split(torch.zeros(measure(images)[0], len(targets)), self._shared.batch):
                self.count(len(part))
                yield part.to(self.device)
            return
        for chunk in chunks(images, self._shared.batch):
            logits = self._retry(self._forward_only, chunk)
            yield torch.stack([self._select(logits, target) for target in targets], 1)

    def gradients(self, images: Images, target: Target) -> Iterator[tuple[Tensor, Tensor]]:
        """(gradients (b, C, H, W), scores (b,)) batch by batch; `target` may be one an image. A pass each way each."""
        t = torch.as_tensor(target, device=self.device)
        for _, scores, found in self.loss_gradients(images, lambda z, at: self._select(z, t[at] if t.dim() else t)):
            yield found, scores[:, 0]

    def scores_of(self, images: Tensor, target: Target) -> Tensor:
        """The target's scores of one batch, (N,), with their graph: counts a pass forward and back."""
        return self._select(self.logits_of(images), target)

    def logits_of(self, images: Tensor) -> Tensor:
        """The logits of one batch, (N, classes), with their graph: counts a pass forward and back."""
        with self.exact():
            logits = self._network(images).to(self.dtype)
        check_finite(logits, self.name)
        self.count(len(images), len(images))
        return logits

    def loss_gradients(self, images: Images, *losses: Callable[..., Tensor]) -> Iterator[tuple[Tensor, ...]]:
        """(logits (b, classes), losses (b, k), gradients (b, C, H, W) of each), batch by batch; a loss is one number an
        image, from logits and places in the stack. One forward and k backward an image. Dry logits are (b, 1)."""
        if self.dry:
            count, like = measure(images)
            again = 2 if self.graph else 1
            self.count(again * count, again * count * len(losses))
            zero, maps = like.new_zeros(1), [torch.zeros_like(like).expand(count, *like.shape)] * len(losses)
            yield zero.expand(count, 1), zero.expand(count, len(losses)), *maps
            return
        seen = 0
        for chunk in chunks(images, self._shared.gradient_batch):
            places = torch.arange(seen, seen + len(chunk), device=self.device)
            seen += len(chunk)
            yield self._retry(lambda *part: self._gradient(losses, *part), chunk, places)

    def gradient(self, image: Tensor, target: int) -> Tensor:
        """Gradient of the target's score for one image, (C, H, W)."""
        ((gradient, _),) = self.gradients(image[None], target)
        return gradient[0]

    # -- inside --------------------------------------------------------------------------------------------------

    def count(self, forward: int, backward: int = 0) -> None:
        self.passes.forward += forward * self.copies
        self.passes.backward += backward * self.copies
        if self._shared.tick and not self.dry:
            self._shared.tick(forward)

    def _network(self, x: Tensor) -> Tensor:
        shape = tuple(x.shape[1:])
        try:
            if self._shared.form is None:  # once, on the first image it accepts, whose size is then known
                self._shared.form = fast_form(core_of(self._net), self._normalised(x[:1].detach(), Form()))
            x = self._normalised(x, self._shared.form)
            logits = first_output(self._net(x))
        except (Exception, SystemExit) as error:  # the network may be anybody's
            raise explained(error, self.name, f"fails on an image of shape {shape}") from None
        check_logits(logits, len(x), self.name, self.classes)
        return logits

    def exact(self) -> AbstractContextManager[object]:
        """fp32 that is fp32 on a GPU too: no TF32, no kernels that differ from run to run."""
        if self.device.type != "cuda":
            return nullcontext()
        return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)

    def _forward_only(self, x: Tensor) -> Tensor:
        reduced = self.precision == "bf16"
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=reduced)
        with torch.inference_mode(), self.exact(), half:
            logits = self._network(x).to(self.dtype)
        check_finite(logits, self.name)
        self.count(len(x))
        return logits

    def _gradient(self, losses: Sequence[Callable[..., Tensor]], x: Tensor, places: Tensor) -> tuple[Tensor, ...]:
        if self.graph and len(losses) == 1:
            return differentiable(self, losses[0], x, places)
        with torch.enable_grad(), self.exact():
            x = x.detach().requires_grad_()
            logits = self._network(x).to(self.dtype)
            check_finite(logits, self.name)
            if not logits.requires_grad:
                raise AttrsensError(f"model {self.name} has no gradient path from its logits to its input")
            values = torch.stack([loss(logits, places) for loss in losses], 1)
            try:
                ends = enumerate(values.sum(0), 1)
                found = [torch.autograd.grad(v, x, retain_graph=k < len(losses))[0] for k, v in ends]
            except Exception as error:
                raise explained(error, self.name, "fails on the way back") from None
        self.count(len(x), len(x) * len(losses))
        return logits.detach(), values.detach(), *(g.abs() if self.sign == "abs_sample" else g for g in found)

    def _select(self, logits: Tensor, target: Target | Tensor) -> Tensor:
        return select(logits, target, self.output, self.name)

    def _retry(self, run: Callable[..., Any], chunk: Tensor, *others: Tensor) -> Any:
        """Run a chunk; out of memory, halve the batch for good and run it in parts."""
        try:
            return run(chunk, *others)
        except Exception as error:
            if not is_memory(error):
                raise
        inner = next((part for part in self._copies if part.chunk > 1), None)
        if len(chunk) == 1 and inner is not None:
            inner.chunk = (inner.chunk + 1) // 2
            return self._retry(run, chunk, *others)
        if len(chunk) == 1:
            raise AttrsensError(f"model {self.name}: one image does not fit into the memory of {self.device}")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        half = (len(chunk) + 1) // 2
        self._shared.batch = min(self._shared.batch, half)
        self._shared.gradient_batch = min(self._shared.gradient_batch, half)
        split = zip(*(torch.split(whole, half) for whole in (chunk, *others)), strict=True)
        parts = [self._retry(run, *part) for part in split]
        if isinstance(parts[0], Tensor):
            return torch.cat(parts)
        return tuple(torch.cat(same) for same in zip(*parts, strict=True))
