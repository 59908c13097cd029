"""Rows of the report about all images (means, and differences), and what is said of an attack."""

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


@dataclass
class Stage:
    """A stage of a boundary search: the closest success so far, pixel L2; null where there is none yet."""

    name: str
    distance: float | None


@dataclass
class AttackInfo:
    """An attack on the explanation of the record `of`.

    kind, version, parameters, expression: which. budget: its bounds. sizes: of the perturbation that was found, before
    it was rounded to 8 bits (linf and l2 of the written image are scores). target: what the map was to become. curve:
    the objective by step of the run that gave the image, on the smoothed network; steps that lose the class are in it.
    signal: the norm of its slope at the start. claim: what was shown, in words. warnings: signs that the attack fell
    short of what is possible. stages: of a boundary search. notes: further numbers.
    """

    kind: str
    version: int
    parameters: dict[str, int | float | str | bool]
    expression: str
    of: str
    budget: dict[str, float]
    sizes: dict[str, float]
    target: str | None
    curve: list[float]
    claim: str
    signal: float | None = None
    warnings: list[str] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    notes: dict[str, float | None] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The kind with what sets it apart: `manipulate delta eps=0.03`."""
        p = self.parameters
        words = [self.kind, *(str(p[k]) for k in ("perturbation", "draws") if k in p)]
        return " ".join([*words, *(f"eps={p['eps']:.4g}" for _ in range("eps" in p))])
