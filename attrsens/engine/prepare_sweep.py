"""Checking a sweep, cheapest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from attrsens.engine.cell import Call, choose_method, parse_calls
from attrsens.engine.controls import reseeded, seeded
from attrsens.engine.gates import quantities
from attrsens.engine.metrics import Flags, Judging, short
from attrsens.engine.plan import cost
from attrsens.engine.prepare import Prepared, asked, judging_config, prepare
from attrsens.engine.sweep.axes import ALL, Axis, addressed, axes_of, check_names, method_for, metric_axes, named_method
from attrsens.engine.sweep.design import Draws, Study, Sweep, grid, one_at_a_time, with_shares
from attrsens.engine.sweep.tables import quantities_of
from attrsens.engine.sweep.until import DRAWS, REACHED, parse_goal
from attrsens.errors import AttrsensError
from attrsens.spec import METHODS, SCORES, SIMILARITIES

USUAL = "spearman,hog,ssim"
MOST = 2000  # maps of an image


def prepare_sweep(
    images: Any = (),
    *,
    param: str | Sequence[str] = (),
    values: str | Sequence[str] = (),
    reference: Any = (),
    apart: bool = False,
    draws: str = "disjoint",
    replicates: int | None = None,
    span: int = 1,
    shares: int = 0,
    until: str | None = None,
    most: int = 1024,
    metrics: str | Sequence[str] | None = None,
    metric_parameters: Flags = MappingProxyType({}),
    annotations: str | Path | None = None,
    calibrate: bool | None = None,
    method: str | Sequence[str] | None = None,
    **options: Any,
) -> Prepared:
    """As `prepare`, for sweeps.

    Raises:
        AttrsensError: see `sweep`.
    """
    names, texts, references = _texts(param), _texts(values), _texts(reference)
    if until is not None:
        if texts or references or shares or replicates:
            raise AttrsensError(
                "sweep: --until samples by itself; leave --values, --reference, --replicates, --shares out"
            )
        judged = {"metrics": metrics, "metric_parameters": metric_parameters, "annotations": annotations}
        return _until(images, until, most, names, method, judged | {"calibrate": calibrate}, options)
    if not names:
        raise AttrsensError("sweep: no knob named; give --param NAME, or --param all for every knob of the method")
    if len(set(names)) < len(names):
        raise AttrsensError("sweep: a --param is given twice")
    if ALL in names and len(names) > 1:
        raise AttrsensError("sweep: --param all takes every knob; leave other --param out")
    apart = apart or ALL in names
    if apart and (texts or references):
        raise AttrsensError("sweep: one knob at a time takes values around the method's own; leave --values out")
    for what, given in (("--values", texts), ("--reference", references)):
        if len(given) > len(names):
            raise AttrsensError(f"sweep: {len(given)} {what} for {len(names)} --param")
    if draws not in get_args(Draws):
        raise AttrsensError(f"draws must be one of {', '.join(get_args(Draws))}; got {draws!r}")
    kind: Draws = "nested" if draws == "nested" else "disjoint"
    if replicates is not None and not 1 <= replicates <= 100:
        raise AttrsensError(f"replicates must be from 1 to 100; got {replicates}")
    if not 1 <= span <= 8:
        raise AttrsensError(f"span must be from 1 to 8 octaves; got {span}")
    if shares and not 2 <= shares <= 1000:
        raise AttrsensError(f"shares must be from 2 to 1000 base points; got {shares}")
    flags = {k: v for k, v in options.items() if k not in _OPTIONS}
    expressions = _texts(method) or [_chosen(names, flags)]
    bases = parse_calls(expressions, flags)
    check_names(names, bases)
    judging = asked(_metrics(_texts(metrics), names), USUAL, metric_parameters, annotations, calibrate)
    knobs = metric_axes([*judging.scores, *judging.similarities], names, texts, references)
    judging = replace(_varied(judging, knobs), frugal=True)
    several = 2 if replicates is None and apart else replicates or 1
    if apart:
        studies: list[Study] = []
    else:
        studies = [grid(base, axes_of(base, names, texts, references), kind, several) for base in bases]
    known = [*quantities(judging), *quantities_of(short(call) for call in judging.similarities)]
    first = [c.expression for s in studies for c in s.calls] or [b.expression for b in bases]
    prepared = prepare(images, method=first, **{"known": known} | _plain(options))
    if apart:
        only, works = None if ALL in names else names, _works(prepared)
        studies = [one_at_a_time(base, kind, several if seeded(base) else 1, span, works, only) for base in bases]
    if shares:
        studies = [with_shares(s, shares, max(2, several) if seeded(s.base) else 1, _works(prepared)) for s in studies]
    studies = list({repr([c.expression for c in s.calls]): s for s in studies}.values())  # each once
    sweep = Sweep(tuple(studies), tuple(knobs))
    if len(sweep.calls) > MOST:
        raise AttrsensError(f"sweep: {len(sweep.calls):,} maps of every image; at most {MOST:,}")
    request = replace(prepared.request, calls=tuple(sweep.calls))
    held = {s.base.expression: s.axes for s in studies} | ({"metrics": tuple(knobs)} if knobs else {})
    config = {
        **prepared.config,
        **judging_config(judging, annotations),
        "method": [base.expression for base in bases],
        "param": names,
        "values": {who: {a.name: list(a.values) for a in axes} for who, axes in held.items()},
        "reference": {who: {a.name: a.reference for a in axes} for who, axes in held.items()},
        "unmeasured": {s.base.expression: dict(s.unmeasured) for s in studies if s.unmeasured},
        "draws": {s.base.expression: s.draws for s in studies},
        "replicates": several,
        "apart": apart,
        "span": span,
        "shares": shares,
    }
    return replace(prepared, request=request, config=config, command="sweep", judging=judging, sweep=sweep)


def _until(
    images: Any,
    until: str,
    most: int,
    names: Sequence[str],
    method: str | Sequence[str] | None,
    judged: dict[str, Any],
    options: dict[str, Any],
) -> Prepared:
    """Sampling until a goal is reached, instead of a sweep."""
    if not 4 <= most <= 100_000:
        raise AttrsensError(f"most must be from 4 to 100,000 draws; got {most:,}")
    goal = parse_goal(until, most)
    flags = {k: v for k, v in options.items() if k not in _OPTIONS}
    bases = parse_calls(_texts(method) or [_chosen(names, flags)], flags)
    check_names(names, bases)
    counted: list[tuple[Call, Axis | None]] = []
    for base in bases:
        if not seeded(base):
            raise AttrsensError(f"until: {base.name} draws nothing: its map does not depend on a sample")
        axis = _count(base, names) if goal.halves else None
        if axis and axis.hyper.name in flags:
            raise AttrsensError(f"until: it chooses {axis.name} itself; leave it out")
        counted.append((axis.set(base, most) if axis else base, axis))
    own = [] if goal.halves else [goal.metric.expression]
    wanted = [*_texts(judged["metrics"]), *own]
    judging = (
        asked(wanted, "", judged["metric_parameters"], judged["annotations"], judged["calibrate"])
        if wanted
        else Judging()
    )
    if judging.similarities:
        raise AttrsensError(f"until: besides, it takes scores; {judging.similarities[0].name} is a similarity")
    judging = replace(judging, frugal=True)
    known = [DRAWS, REACHED, goal.quantity, *quantities(judging)]
    prepared = prepare(images, method=[b.expression for b, _ in counted], **{"known": known} | _plain(options))
    calls = [call for base, axis in counted for call in ((base, reseeded(base)) if axis else (base,))]
    config = {
        **prepared.config,
        **judging_config(judging, judged["annotations"]),
        "method": [base.expression for base in bases],
        "until": goal.text,
        "most": most,
        "definition": goal.definition,
    }
    sweep = Sweep((), (), goal, tuple((_least(b, a), a) for b, a in counted))
    request = replace(prepared.request, calls=calls)
    return replace(prepared, request=request, config=config, command="sweep", judging=judging, sweep=sweep)


def _least(base: Call, axis: Axis | None) -> Call:
    """The call that stands for a method whatever its sample size."""
    return axis.set(base, int(axis.hyper.param.min or 1)) if axis else base


def _count(base: Call, names: Sequence[str]) -> Axis:
    """The knob that counts a method's draws: the named one, else n, of the outermost wrapper that has it."""
    wanted = list(names) or [*(f"{w.name}.n" for w in reversed(base.wrappers)), "n"]
    for name in wanted:
        spec, hyper = addressed(base, name)
        if spec and hyper and spec.traits.get("counts") == hyper.name:
            return Axis(name, spec.kind, spec.name, hyper, (), hyper.default)
    counted = [f"{m}.{METHODS[m].traits['counts']}" for m in METHODS if "counts" in METHODS[m].traits]
    raise AttrsensError(
        f"until: {', '.join(wanted)} counts no draws of {base.name}; knobs that do: {', '.join(counted)}"
    )


_OPTIONS = frozenset(
    "model target labels only_correct arch preprocess classes sha256 device precision fold batch limit frame offline "
    "cache cache_dir cache_limit fail_if known".split()
)


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """The options without parameters of methods, which the expressions have taken up."""
    return {k: v for k, v in options.items() if k in _OPTIONS}


def _chosen(names: Sequence[str], flags: dict[str, Any]) -> str:
    """The method that is meant where none is named."""
    named = named_method(names)
    if named:
        return named
    wanted = method_for(names)
    if not wanted and not all(map(_metric_of, names)):
        raise AttrsensError("sweep: name the method with --method")
    return choose_method(dict.fromkeys(wanted) | flags)


def _metrics(wanted: list[str], names: Sequence[str]) -> list[str]:
    """The metrics that are asked for, and those whose knobs are swept."""
    owners = [owner for owner in map(_metric_of, names) if owner]
    mentioned = {part.strip() for text in wanted for part in text.partition(":")[0].split(",")}
    usual = [] if wanted or len(owners) == len(names) else [USUAL]
    return [*usual, *wanted, *(owner for owner in dict.fromkeys(owners) if owner not in mentioned)]


def _metric_of(name: str) -> str | None:
    """The metric whose knob a name is."""
    owner, dot, _ = name.partition(".")
    return owner if dot and (owner in SCORES or owner in SIMILARITIES) else None


def _varied(judging: Judging, knobs: Sequence[Axis]) -> Judging:
    """What is to be judged, with every value of the metrics' knobs."""
    lists: dict[str, list[Call]] = {"scores": list(judging.scores), "similarities": list(judging.similarities)}
    for axis in knobs:
        for kind, calls in lists.items():
            own = [c.name == axis.owner for c in calls]
            varied = [[axis.set(c, v) for v in axis.values] if o else [c] for c, o in zip(calls, own, strict=True)]
            lists[kind] = [call for group in varied for call in group]
    scores, similarities = (tuple({c.expression: c for c in lists[kind]}.values()) for kind in lists)
    return replace(judging, scores=scores, similarities=similarities)


def _works(prepared: Prepared) -> Callable[[Call], str | None]:
    """Why a call cannot run on the first classifier's crop, found without a pass."""
    classifier = prepared.request.classifiers[0]
    side = classifier.preprocess.crop or 224

    def fault(call: Call) -> str | None:
        try:
            cost(classifier, call, (side, side))
        except AttrsensError as error:
            return str(error)
        return None

    return fault


def _texts(value: Any) -> list[str]:
    if value is None or value == "":
        return []
    return [str(item) for item in (value if isinstance(value, (list, tuple)) else [value])]
