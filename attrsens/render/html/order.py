"""What the images can be sorted by, and by what number each image then stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from attrsens.engine.report import Record, SimilarityInfo

Key = tuple[str, ...]


@dataclass
class Order:
    """An order: its name in the address (#sort=...), what the reader is told, numbers by image; the smallest first."""

    slug: str
    label: str
    values: dict[str, float] = field(default_factory=dict)

    def least(self, image: str, value: float | None) -> None:
        """Note a number; the smallest of an image counts."""
        if value is not None:
            self.values[image] = min(value, self.values.get(image, value))


def orders(records: list[Record]) -> list[Order]:
    """The orders that these records have numbers for, besides the given one and that by name."""
    sure = Order("sure", "probability, lowest first")
    for record in records:
        sure.least(record.image.path, record.target.probability)
    found = [*_moved(records), *_gaps(records), *_drop(records), *_scores(records), sure]
    return [order for order in found if order.values]


def _worse(value: float | None, direction: str) -> float | None:
    """Smaller is worse."""
    return None if value is None else -value if direction == "lower" else value


def _moved(records: list[Record]) -> list[Order]:
    """Least similar to the reference; without one, of the pairs: first those that differ in one thing only."""
    by_key = {(r.image.path, r.key): r for r in records}
    kinds = {
        "reference": ("moved", "moved most"),
        "input": ("moved", "moved most by the changed input"),
        "model": ("models", "models least alike"),
        "method": ("methods", "methods least alike"),
        "neighbour": ("next", "changes most to the next value"),
    }
    found: dict[tuple[str, str], Order] = {}
    for record in records:
        for s in record.similarities:
            kind = _kind(record, by_key.get((record.image.path, s.to)), s)
            slug, label = kinds.get(kind, kinds["method"])
            order = found.setdefault((kind, s.name), Order(slug, f"{label}: {s.name}"))
            order.least(record.image.path, _worse(s.value, s.direction))
    ordered = [order for kind in kinds for (k, _), order in found.items() if k == kind and order.values]
    if ordered and not any(order.slug == "moved" for order in ordered):
        ordered[0] = Order("moved", ordered[0].label, ordered[0].values)
    return _numbered(ordered)


def _kind(record: Record, other: Record | None, s: SimilarityInfo) -> str:
    if s.role != "pair" or other is None:
        return s.role
    if record.model.id != other.model.id:
        same = record.method.expression == other.method.expression and record.input == other.input
        return "model" if same else "mixed"
    if record.method.expression != other.method.expression:
        return "method" if _input(record) == _input(other) else "mixed"
    return "input"


def _gaps(records: list[Record]) -> list[Order]:
    """The largest difference between two models of the same score, or of the same similarity, of the same maps."""
    by_key = {(r.image.path, r.key): r for r in records}
    numbers: dict[tuple[str, str], dict[Key, dict[str, float]]] = {}
    for r in records:
        for name, value, place in _numbers(r, by_key):
            if value is not None:
                at = numbers.setdefault((name, r.image.path), {}).setdefault(place, {})
                at[r.model.id] = value
    found: dict[str, Order] = {}
    for (name, image), places in numbers.items():
        for values in places.values():
            if len(values) > 1:
                order = found.setdefault(name, Order("gap", f"largest gap between two models: {name}"))
                order.least(image, min(values.values()) - max(values.values()))
    return _numbered(list(found.values()))


def _numbers(r: Record, by_key: dict[tuple[str, str], Record]) -> Iterator[tuple[str, float | None, Key]]:
    """(name, value, what else than the model it is of)."""
    here = (str(r.target.index), r.method.expression, *_input(r))
    for name, score in r.scores.items():
        yield name, score.value, here
    for s in r.similarities:
        other = by_key.get((r.image.path, s.to))
        if other is not None and other.model.id == r.model.id:
            yield s.name, s.value, (*here, s.role, other.method.expression, *_input(other))


def _drop(records: list[Record]) -> list[Order]:
    order = Order("drop", "probability falls most by the changed input")
    for r in records:
        if r.input.prediction:
            order.least(r.image.path, r.input.prediction.probability - r.target.probability)
    return [order]


def _scores(records: list[Record]) -> list[Order]:
    found: dict[str, Order] = {}
    for record in records:
        for name, score in record.scores.items():
            if score.direction in ("higher", "lower"):
                order = found.setdefault(name, Order("worst", f"worst {name}"))
                order.least(record.image.path, _worse(score.value, score.direction))
    return _numbered(list(found.values()))


def _input(record: Record) -> Key:
    return f"{record.input.noise!r}", record.input.erased or ""


def _numbered(found: list[Order]) -> list[Order]:
    """Names of their own: moved, moved-2, ..."""
    seen: dict[str, int] = {}
    for order in found:
        slug, count = order.slug, seen.get(order.slug, 0) + 1
        seen[slug] = count
        order.slug = slug if count == 1 else f"{slug}-{count}"
    return found
