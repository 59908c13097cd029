"""Architectures for weights from files, where no library has them: one function a family, found by its decorator.

A function takes (name, classes) and returns the untrained network; its decorator states the names, what its inputs look
like, the set of class names it was made for, and, where files name its tensors otherwise, a function that renames them.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from attrsens.images import Preprocess

if TYPE_CHECKING:
    from torch import nn

    from attrsens.models.checkpoints import State

IMAGENET = Preprocess(256, 224, "bilinear", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Net:
    """An architecture.

    Attributes:
        build: from the number of classes to the untrained network.
        preprocess: what its weights usually expect.
        labels: "imagenet", "cifar10" or "mnist": class names that hold when the number of classes agrees.
        adapt: renames and reshapes the tensors of files that lay them out otherwise.
        classes: how many there usually are.
        identity: what, besides weights and preprocessing, decides what it computes.
    """

    build: Callable[[int], nn.Module]
    preprocess: Preprocess
    labels: str | None = None
    adapt: Callable[[State], State] = lambda state: state
    classes: int = 1000
    identity: str = ""


_FOUND: dict[str, Net] = {}


def net(
    *names: str,
    preprocess: Preprocess,
    labels: str | None,
    classes: int,
    adapt: Callable[[State], State] = lambda state: state,
) -> Callable[[Callable[[str, int], nn.Module]], Callable[[str, int], nn.Module]]:
    """Register a function (name, classes) -> network under names, which must be literals: `net_names` reads them."""

    def register(build: Callable[[str, int], nn.Module]) -> Callable[[str, int], nn.Module]:
        for name in names:
            _FOUND[name] = Net(lambda count, name=name: build(name, count), preprocess, labels, adapt, classes, name)  # type: ignore[misc]
        return build

    return register


def find_net(name: str) -> Net:
    """The architecture of a name that `net_names` has; imports torch."""
    if name not in _FOUND:
        importlib.import_module(f"{__name__}.{_places()[name][0]}")
    return _FOUND[name]


def net_names() -> dict[str, str]:
    """Every name with one line on it, read from the source text, since importing the networks imports torch."""
    return {name: summary for name, (_, summary) in sorted(_places().items())}


@cache
def _places() -> dict[str, tuple[str, str]]:
    out = {}
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for mark in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == "net":
                    summary = (ast.get_docstring(node) or "").split("\n")[0].rstrip(".")  # type: ignore[arg-type]
                    names = [a.value for a in mark.args if isinstance(a, ast.Constant)]
                    out.update({str(name): (path.stem, summary) for name in names})
    return out
