"""The network averaged over a fixed bank of noise."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

from attrsens.spec import MODEL_WRAPPERS, Param

if TYPE_CHECKING:
    from torch import nn

    from attrsens.images import Preprocess

KEEP = 64  # copies whose activations are kept for the way back; beyond, they are computed again
BANK = 256 * 2**20  # bytes of noise that are held; more is drawn anew


@MODEL_WRAPPERS("smoothed", version=1)
def smoothed(
    net: nn.Module,
    preprocess: Preprocess,
    *,
    n: Annotated[int, Param("noisy copies", min=1, max=100_000, scale="ratio", source="BND 2.19")] = 50,
    sigma: Annotated[float, Param("sd of the noise, pixels in [0, 1]", min=0, max=100, scale="ratio")] = 0.25,
    seed: Annotated[int, Param("seed of the bank", min=0)] = 0,
) -> nn.Module:
    """Mean logits over copies of the image with the same Gaussian noise for every image, not clipped.

    (1/n) sum_i f(x + sigma e_i), e_i ~ N(0, 1) drawn once. Cohen et al. 2019 in its soft form; methods 2.19. Its
    gradient is SmoothGrad's with that bank (science 5).
    """
    import torch
    from torch import Tensor, nn
    from torch.utils.checkpoint import checkpoint

    from attrsens.models.surgery import again, first_output, relu_as
    from attrsens.seeds import Stream

    stream = Stream(seed, "", "smoothed")
    mean, std = (torch.tensor(v).reshape(1, -1, 1, 1) for v in (preprocess.mean, preprocess.std))

    class Smoothed(nn.Module):
        copies = n
        chunk = 16

        def __init__(self) -> None:
            super().__init__()
            self.inner = net
            self.bank: Tensor | None = None

        def noise(self, indices: range, like: Tensor) -> Tensor:
            """(len(indices), C, H, W) in the normalised space, where the standard deviation of a pixel is 1 / std."""
            shape = tuple(like.shape[1:])
            if 4 * n * like[0].numel() > BANK:
                return self._draw(indices, shape).to(like)
            if self.bank is None or self.bank.shape[1:] != shape or self.bank.device != like.device:
                self.bank = self._draw(range(n), shape).to(like)
            return self.bank[indices.start : indices.stop]

        def _draw(self, indices: range, shape: tuple[int, ...]) -> Tensor:
            return torch.from_numpy(stream.normal(indices, shape)) * (sigma / std)

        def part(self, x: Tensor, indices: range) -> Tensor:
            """Sum of the logits over some copies, (N, classes)."""
            noisy = x[:, None] + self.noise(indices, x)[None]
            if preprocess.clamp:  # each copy, as the network would
                noisy = noisy.clamp(min=(-mean / std).to(x), max=((1 - mean) / std).to(x))
            logits = first_output(self.inner(noisy.flatten(0, 1).contiguous(memory_format=_format(x))))
            return logits.reshape(len(x), len(indices), -1).sum(1)

        def forward(self, x: Tensor) -> Tensor:
            size = max(1, self.chunk // len(x))
            modes = list(relu_as.active)
            twice = torch.is_grad_enabled() and x.requires_grad and len(x) * n > KEEP
            total: Tensor | None = None
            for start in range(0, n, size):
                indices = range(start, min(start + size, n))
                logits = (
                    checkpoint(
                        self.part,
                        x,
                        indices,
                        use_reentrant=False,
                        preserve_rng_state=False,
                        context_fn=lambda: (nullcontext(), again(modes)),
                    )
                    if twice
                    else self.part(x, indices)
                )
                total = logits if total is None else total + logits
            assert total is not None
            return total / n

    def _format(x: Tensor) -> torch.memory_format:
        plain = x.is_contiguous()
        return torch.contiguous_format if plain else torch.channels_last

    return Smoothed()
