"""The network with softplus in place of its ReLUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from attrsens.errors import AttrsensError
from attrsens.spec import MODEL_WRAPPERS, Param

if TYPE_CHECKING:
    from torch import nn

    from attrsens.images import Preprocess


@MODEL_WRAPPERS("softplus", version=1, probe=True)
def softplus(
    net: nn.Module,
    preprocess: Preprocess,
    *,
    beta: Annotated[
        float,
        Param("sharpness; large beta is ReLU again", min=1e-3, max=1e6, sweep=(10.0, 3.0, 1.0), source="SMO 2.15"),
    ] = 0.8,
) -> nn.Module:
    """Every ReLU is log(1 + exp(beta z)) / beta, every ReLU6 the difference of two.

    Dombrowski et al. 2019; methods 2.15. Functional, in-place and reused ReLUs alike; other activations stay.
    """
    from torch import Tensor, nn

    from attrsens.models.surgery import relu_as, softplus_rule

    class Softplus(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net

        def forward(self, x: Tensor) -> Tensor:
            with relu_as(softplus_rule(beta)) as mode:
                out: Tensor = self.inner(x)
            if mode.count == 0:
                raise AttrsensError("softplus: the network calls no ReLU, so there is nothing to smooth")
            return out

    return Softplus()
