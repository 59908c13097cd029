"""Several settings of one method in one run: what the generators behind the trait `settings` are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.models.classifier import Classifier

Notes = dict[str, float | None]
Points = Sequence[Mapping[str, Any]]  # settings: every own parameter, alike but for those that `over` names


def one(settings: Callable[..., Iterator[Any]], *data: Any, **parameters: Any) -> Any:
    """The result of a single setting. `data` is what the function was handed, the target last."""
    *before, target = data
    return next(settings(*before, [target], [parameters]))


def classes_of(targets: Sequence[int]) -> list[int]:
    """Every class once, in order."""
    return list(dict.fromkeys(targets))


def price(f: Classifier, x: Tensor, counts: Sequence[int]) -> Iterator[Tensor]:
    """Of a dry view: for each count a map of zeros, once so many images are counted that went forward."""
    from attrsens.models.batches import Rows, Stack

    blank = Stack(max(counts), lambda indices: x.expand(len(indices), *x.shape), like=x)
    rows = Rows(f.scores(blank, [0]))
    for count in counts:
        rows.first(count)
        yield x.new_zeros(x.shape[-2:])
