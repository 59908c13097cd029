"""Everything that a training step reads and changes: weights, momentum, their moving average, and how far it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attrsens.params import Value
from attrsens.training.checkpoint import copied, prefixed, under

MOMENTUM = 0.9
RISE = 0.2  # of the run: until the learning rate is at its largest


def learning_rate(step: int, total: int, largest: float) -> float:
    """One cycle: a straight line up over the first fifth of the run and one down to 0 (Smith 2018)."""
    top = max(1.0, RISE * total)
    return largest * min((step + 1) / top, (total - step) / max(1.0, total - top))


class State:
    """The network under training with its optimiser: SGD with Nesterov momentum and a moving average of weights.

    Args:
        module: trained in place.
        parameters: the recipe's, complete.

    Attributes:
        average: moving average of every floating-point tensor of the state dict.
        step: how many were made. sums: (loss, steps) of the epoch so far.
    """

    def __init__(self, module: nn.Module, parameters: dict[str, Value]) -> None:
        self.module, self.step, self.sums = module, 0, [0.0, 0.0]
        self.decay = float(parameters["ema"])
        self._names = dict(module.named_parameters())
        every = list(self._names.values())
        decayed = {"params": [p for p in every if p.dim() > 1], "weight_decay": float(parameters["weight_decay"])}
        groups: list[dict[str, Any]] = [decayed, {"params": [p for p in every if p.dim() <= 1]}]
        groups = [group for group in groups if group["params"]]
        self._sgd = torch.optim.SGD(groups, lr=0.0, momentum=MOMENTUM, nesterov=True)
        for p in self._names.values():
            self._sgd.state[p]["momentum_buffer"] = torch.zeros_like(p)
        self.average = copied(self._floats())

    def _floats(self) -> dict[str, Tensor]:
        return {name: t for name, t in self.module.state_dict().items() if t.is_floating_point()}

    def descend(self, loss: Tensor, lr: float) -> None:
        """One step down the loss, and the moving average one step after the weights."""
        for group in self._sgd.param_groups:
            group["lr"] = lr
        self._sgd.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._sgd.step()
        self.step += 1
        share = 1 - min(self.decay, self.step / (self.step + 9))  # the first weights are forgotten quickly
        floats = self._floats()
        torch._foreach_lerp_([self.average[n] for n in floats], list(floats.values()), share)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """While active the network has the averaged weights."""
        kept = copied(self._floats())
        self._set(self.average)
        try:
            yield
        finally:
            self._set(kept)

    def tensors(self) -> dict[str, Tensor]:
        """What `restore` takes: the network's own tensors, not copies."""
        momentum = {name: self._sgd.state[p]["momentum_buffer"] for name, p in self._names.items()}
        parts = {"net": self.module.state_dict(), "momentum": momentum, "average": self.average}
        return {name: t for prefix, part in parts.items() for name, t in prefixed(prefix, part).items()}

    def restore(self, tensors: dict[str, Tensor], step: int, sums: list[float]) -> None:
        """Go back to what `tensors` gave at a step."""
        self._set(under("net", tensors))
        with torch.no_grad():
            for name, tensor in under("momentum", tensors).items():
                self._sgd.state[self._names[name]]["momentum_buffer"].copy_(tensor)
            for name, tensor in under("average", tensors).items():
                self.average[name].copy_(tensor)
        self.step, self.sums = step, list(sums)

    def result(self) -> dict[str, Any]:
        """The state dict that is kept: averaged weights; what is no floating-point number as it is."""
        return {name: self.average.get(name, t).detach().clone() for name, t in self.module.state_dict().items()}

    def _set(self, tensors: dict[str, Tensor]) -> None:
        own = self.module.state_dict()
        with torch.no_grad():
            for name, tensor in tensors.items():
                own[name].copy_(tensor)
