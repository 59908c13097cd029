"""A process that has imported everything and forks a child for each command line, so that the life of a child is the
work alone: a JSON list of arguments a line on stdin; the child's id, and later its exit code, a line each on stdout.

Every batch of passes appends to the file that ATTRSENS_PASSES names: images, and the image's hash (none: a prediction).
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from torch import Tensor, nn

PAUSE = 0.01  # seconds a batch, so that there is something to interrupt


class Toy(nn.Sequential):
    """A network over small pictures that takes its time."""

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(PAUSE)
        return super().forward(x)


def build(classes: int = 4) -> nn.Module:
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, stride=2), nn.ReLU()]
    return Toy(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes))


def tell_passes() -> None:
    """From now on have the passes of this process and its children told to a file."""
    from attrsens.models.classifier import Classifier

    count = Classifier.count

    def told(self: Classifier, forward: int, backward: int = 0) -> None:
        if not self.dry:
            with Path(os.environ["ATTRSENS_PASSES"]).open("a") as file:
                file.write(f"{forward} {self.image}\n")
        count(self, forward, backward)

    Classifier.count = told  # type: ignore[method-assign]


def main() -> None:
    import matplotlib.pyplot
    import scipy.stats
    import torch

    from attrsens.cli import run

    assert matplotlib.pyplot
    assert scipy.stats
    torch.set_num_threads(1)
    tell_passes()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            code = 70
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                code = run(json.loads(line))
            finally:
                os._exit(code)
        print(child, flush=True)  # noqa: T201
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
