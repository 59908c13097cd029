"""Rows of the report about all images: means, and differences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Aggregate:
    quantity: str
    group: dict[str, Any]
    mean: float | None
    sd: float | None
    ci95: tuple[float, float] | None
    n: int
    missing: int
    reasons: dict[str, int]


@dataclass
class Comparison:
    """Two groups on the same images. `definition` says what difference, effect size and p are; p_holm is corrected for
    the table of the row; smallest_detectable is found with 80 % power at 5 %; `missing` images lack one of the values.
    verdict: moved, equivalent or cannot tell, of a change since a baseline held against `margin`; reason: of that."""

    quantity: str
    a: dict[str, Any]
    b: dict[str, Any]
    difference: float | None
    ci95: tuple[float, float] | None
    effect_size: float | None
    p: float | None
    p_holm: float | None
    n: int
    smallest_detectable: float | None
    missing: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    definition: str = ""
    margin: float | None = None
    verdict: str | None = None
    reason: str | None = None
