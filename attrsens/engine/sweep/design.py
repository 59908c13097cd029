"""What a sweep runs: the settings of every method, their draws, and which maps are held against each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from typing import TYPE_CHECKING, Literal

from attrsens.engine.cell import Call
from attrsens.engine.controls import reseeded, seeded
from attrsens.engine.knobs.shares import Design, PracticeRange, radial_design
from attrsens.engine.knobs.study import STEP, ends_of, span_of
from attrsens.engine.sweep.axes import Axis
from attrsens.errors import AttrsensError
from attrsens.spec import METHODS, WRAPPERS, Hyper, Value

if TYPE_CHECKING:
    from attrsens.engine.sweep.until import Goal

Draws = Literal["disjoint", "nested"]
SEED = "seed"


@dataclass(frozen=True)
class Point:
    """One setting of a method.

    Attributes:
        values: of the knobs, by name.
        calls: one for each draw.
        main: the draw that is held against the reference's first.
    """

    values: Mapping[str, Value]
    calls: tuple[Call, ...]
    main: int = 0

    @property
    def call(self) -> Call:
        return self.calls[self.main]


@dataclass(frozen=True)
class Study:
    """The sweep of one method.

    Attributes:
        base: the call at the reference of every knob.
        axes: the knobs of the method; those of metrics are none of it.
        points: all settings; `reference` is the index of that at the reference of every knob.
        neighbours: pairs of indices, along one knob each.
        apart: one knob at a time, instead of every combination.
        unmeasured: knobs that no setting moves, with the reason.
        draws: how draws are shared between settings, in words.
        design: the further settings that shares of variance need; they follow the first `cells` points.
    """

    base: Call
    axes: tuple[Axis, ...]
    points: tuple[Point, ...]
    reference: int
    neighbours: tuple[tuple[int, int], ...]
    apart: bool = False
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    draws: str = ""
    design: Design | None = None
    cells: int = 0

    @property
    def title(self) -> str:
        """The method's name with its wrappers'."""
        return "+".join([self.base.name, *(w.name for w in self.base.wrappers)])

    @property
    def calls(self) -> Iterator[Call]:
        for point in self.points:
            yield from point.calls

    @property
    def shown(self) -> tuple[Point, ...]:
        """The settings that the sweep is of, without those that only shares need."""
        return self.points[: self.cells] if self.design else self.points


@dataclass(frozen=True)
class Sweep:
    """A sweep of one or several methods.

    Attributes:
        metrics: the knobs of metrics.
        goal: sample until it is reached, instead; then `counted` are the methods, each with the knob that counts draws.
    """

    studies: tuple[Study, ...]
    metrics: tuple[Axis, ...] = ()
    goal: Goal | None = None
    counted: tuple[tuple[Call, Axis | None], ...] = ()

    @property
    def calls(self) -> list[Call]:
        """Every call once, in order."""
        return list({call.expression: call for study in self.studies for call in study.calls}.values())


def grid(base: Call, axes: Sequence[Axis], draws: Draws, replicates: int) -> Study:
    """Every combination of the knobs' values.

    Raises:
        AttrsensError: replicates of a sweep over seeds, or a value that the method does not take.
    """
    for axis in axes:
        base = axis.set(base, axis.reference)
    by_seed = any(axis.hyper.name == SEED for axis in axes)
    if by_seed and replicates > 1:
        raise AttrsensError("the seed is swept, so that its values are the draws; leave --replicates out")
    settings = list(product(*(axis.values for axis in axes)))
    reference = settings.index(tuple(axis.reference for axis in axes))
    points = []
    for i, setting in enumerate(settings):
        call = base
        for axis, value in zip(axes, setting, strict=True):
            call = axis.set(call, value)
        values = {axis.name: value for axis, value in zip(axes, setting, strict=True)}
        points.append(_point(values, call, i == reference, draws, 1 if by_seed else replicates, by_seed))
    strides = [math.prod(len(a.values) for a in axes[k + 1 :]) for k in range(len(axes))]
    neighbours = [
        (i, i + stride)
        for axis, stride in zip(axes, strides, strict=True)
        for i in range(len(settings))
        if i // stride % len(axis.values) < len(axis.values) - 1
    ]
    told = _told(base, draws, replicates, by_seed)
    return Study(base, tuple(axes), tuple(points), reference, tuple(sorted(neighbours)), draws=told)


def one_at_a_time(
    base: Call,
    draws: Draws,
    replicates: int,
    span: int,
    works: Callable[[Call], str | None],
    names: Sequence[str] | None = None,
) -> Study:
    """Every knob of the method and its wrappers by itself, around the base: octaves both ways, a tenth of a bounded
    span, every other choice.

    Args:
        span: octaves each way. works: why a call cannot run, or None. names: these knobs alone.
    """
    points = [_point({}, base, True, draws, replicates, False)]
    axes, unmeasured, neighbours = [], {}, []
    entries = [(METHODS[base.name], base), *((WRAPPERS[w.name], w) for w in base.wrappers)]
    for spec, entry in entries:
        for hyper in spec.own():
            if hyper.name == SEED:
                continue
            name = hyper.name if spec.kind == METHODS.kind else f"{spec.name}.{hyper.name}"
            if names is not None and not {name, f"{spec.name}.{hyper.name}"} & set(names):
                continue
            start = entry.parameters[hyper.name]
            around, reason = surroundings(hyper, start, span)
            axis = Axis(name, spec.kind, spec.name, hyper, (), start)
            found: dict[Value, Point] = {}
            for value in around:
                call = axis.set(base, value)
                fault = works(call)
                if fault is None:
                    found[value] = _point({name: value}, call, False, draws, replicates, False)
                else:
                    reason = fault
            if not found:
                unmeasured[name] = reason or "no other value"
                continue
            order = [*found, start] if _nominal(hyper) else sorted([*found, start], key=float)
            axes.append(Axis(name, spec.kind, spec.name, hyper, tuple(order), start))
            places = {start: 0}
            for value, point in found.items():
                places[value] = len(points)
                points.append(point)
            if not _nominal(hyper):
                neighbours += [(places[a], places[b]) for a, b in pairwise(order)]
    told = _told(base, draws, replicates, False)
    return Study(base, tuple(axes), tuple(points), 0, tuple(neighbours), True, unmeasured, told)


def with_shares(study: Study, bases: int, replicates: int, works: Callable[[Call], str | None]) -> Study:
    """The study with the cells of a radial design over the practice ranges of its knobs (science 2.3): the same cells
    for every image.

    Raises:
        AttrsensError: no knob has a practice range.
    """
    own = {axis.name: axis for axis in study.axes if axis.hyper.name != SEED}
    ranges = [replace(r, knob=name) for name, axis in own.items() if (r := PracticeRange.of(axis.hyper))]
    if not ranges:
        raise AttrsensError(f"{study.title}: no range in use is declared for {', '.join(own) or 'any knob'}")
    design = radial_design(ranges, bases)
    points = list(study.points)
    for values in design.cells:
        call = study.base
        for name, value in values.items():
            call = own[name].set(call, value)
        fault = works(call)
        if fault:
            raise AttrsensError(f"{study.title}: a cell for shares cannot run: {fault}")
        point = _point(values, call, False, "nested", replicates, False)
        points.append(replace(point, main=0))
    return replace(study, points=tuple(points), design=design, cells=len(study.points))


def surroundings(hyper: Hyper, start: Value, span: int = 1) -> tuple[list[Value], str | None]:
    """The values that measure a knob's effect from `start` (science 2.2), ascending; and why one side, or all, lacks.

    A ratio knob: 2^-span ... 2^span times the start; bounded: up to span tenths of its admissible range either way; an
    integer takes both neighbours of what falls between. Nominal: every other choice.
    """
    p = hyper.param
    if _nominal(hyper):
        choices: tuple[Value, ...] = (False, True) if hyper.type is bool else p.choices
        return [c for c in choices if c != start], None if choices else "its values are not counted"
    here = float(start)
    if p.scale == "ratio":
        if here <= 0:
            return [], f"{start} has no octave"
        wanted = [here * 2.0**k for k in range(-span, span + 1) if k]
    else:
        whole = span_of(hyper)
        if whole is None:
            return [], "its span is not declared"
        wanted = [here + k * STEP * whole for k in range(-span, span + 1) if k]
    found: dict[Value, None] = {}
    least, most = ends_of(hyper)
    reason = None
    for number in wanted:
        ends = sorted({math.floor(number), math.ceil(number)}) if hyper.type is int else [float(f"{number:.12g}")]
        fits = [e for e in ends if (least is None or e >= least) and (most is None or e <= most)]
        if len(fits) < len(ends):
            reason = f"{number:g} is not admissible"
        for value in fits:
            if value != start:
                found[value] = None
    return sorted(found, key=float), reason


def _point(
    values: Mapping[str, Value], call: Call, reference: bool, draws: Draws, replicates: int, fixed: bool
) -> Point:
    """A setting with its draws: successive seeds. Disjoint: the reference's first draw is nobody else's main one."""
    if fixed or not seeded(call):
        return Point(values, (call,))
    apart = draws == "disjoint" and not reference
    if replicates == 1:
        return Point(values, (reseeded(call) if apart else call,))
    calls = [call]
    for _ in range(replicates - 1):
        calls.append(reseeded(calls[-1]))
    return Point(values, tuple(calls), int(apart))


def _told(base: Call, draws: Draws, replicates: int, by_seed: bool) -> str:
    if not seeded(base):
        return "the method draws nothing"
    if by_seed:
        return "every seed has draws of its own, which its settings share"
    several = f", {replicates} seeds of each setting" if replicates > 1 else ""
    if draws == "nested":
        return f"nested: all settings share one seed's draws, fewer being the first of more{several}"
    return f"disjoint: the reference has draws of its own, the other settings share the next seed's{several}"


def _nominal(hyper: Hyper) -> bool:
    return hyper.param.scale == "nominal" or hyper.type not in (int, float)
