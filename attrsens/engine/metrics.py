"""Which scores and similarities are asked for, and what each of their numbers means."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from attrsens.engine.cell import Call, parse_call
from attrsens.errors import AttrsensError, unknown
from attrsens.spec import SCORES, SIMILARITIES, Registry, Spec, write_expression

if TYPE_CHECKING:
    from attrsens.engine.annotations import Annotations

DEFAULT = ("insertion", "deletion", "srg", "gini")
DEFAULT_WITH_ANNOTATIONS = ("pointing", "eg", "loc", "wsl")
BOTH: tuple[Registry, ...] = (SCORES, SIMILARITIES)
Flags = Mapping[str, Mapping[str, object]]
NO_FLAGS: Flags = MappingProxyType({})


@dataclass(frozen=True)
class Judging:
    """What is to be judged.

    Attributes:
        scores, similarities: calls, in the order in which they were asked for.
        annotations: where the objects are, or None.
        calibrate: floors and ceilings: True of everything, None of what needs no pass of its own, False of nothing.
        across: similarities are of all maps of an image, whatever their models and inputs (see `compare`).
        frugal: no floor or ceiling needs a pass, unless `calibrate` is True.
    """

    scores: tuple[Call, ...] = ()
    similarities: tuple[Call, ...] = ()
    annotations: Annotations | None = None
    calibrate: bool | None = None
    across: bool = False
    frugal: bool = False

    @property
    def spares(self) -> bool:
        """Whether controls that need a pass are left out."""
        return self.frugal and self.calibrate is None


def parse_metrics(
    texts: Iterable[str], flags: Flags = MappingProxyType({})
) -> tuple[tuple[Call, ...], tuple[Call, ...]]:
    """(scores, similarities) from texts that are each a comma list of names, or one `name:parameter=value,...`.

    Args:
        flags: parameters by metric, for those that the text does not give.

    Raises:
        AttrsensError: no name, an unknown name or parameter, a value outside its range, or a flag of a metric that is
            not asked for.
    """
    calls: dict[str, Call] = {}
    for text in texts:
        for part in [text] if ":" in text else [name for name in text.split(",") if name.strip()]:
            name = part.partition(":")[0].strip()
            if "," in name:
                last = name.rpartition(",")[2].strip()
                raise AttrsensError(f"a metric with parameters stands alone; give --metrics {last}:... apart")
            registry = registry_of(name)
            call = parse_call(part, flags.get(name, {}), registry)
            calls[call.expression] = call
    if not calls:
        raise AttrsensError("metrics: no name given; 'attrsens list metrics' names them")
    for name, given in flags.items():
        if name not in {call.name for call in calls.values()}:
            option = next(iter(given))
            raise AttrsensError(f"{name} has {option!r} set but is not among the metrics; add --metrics {name}")
    found = list(calls.values())
    return tuple(c for c in found if c.kind == SCORES.kind), tuple(c for c in found if c.kind == SIMILARITIES.kind)


def registry_of(name: str) -> Registry:
    """Scores or similarities: where the name is.

    Raises:
        AttrsensError: in neither.
    """
    for registry in BOTH:
        if name in registry:
            return registry
    raise unknown("metric", name, [n for registry in BOTH for n in registry])


def spec_of(call: Call) -> Spec:
    return SCORES[call.name] if call.kind == SCORES.kind else SIMILARITIES[call.name]


def short(call: Call) -> str:
    """The expression without parameters that are at their defaults: a score's name in the report."""
    defaults = {h.name: h.default for h in spec_of(call).hypers}
    return write_expression(call.name, {k: v for k, v in call.parameters.items() if v != defaults[k]})


def free(call: Call) -> bool:
    """Whether the metric needs no pass of its own."""
    return bool(spec_of(call).traits.get("cost", "none") == "none")


def definition(call: Call, method: Call, target: int | None = None, other: Call | None = None) -> str:
    """What a number means, in one line: formula with parameters, the map that was judged (of a similarity both, where
    they are not of one kind), the class, the source."""
    spec = spec_of(call)
    values: dict[str, Any] = dict(call.parameters)
    p = method.parameters
    text = str(spec.traits["formula"]).format_map(values)
    own = {h.name for h in spec.own()}
    stated = ", ".join(f"{k}={v}" for k, v in values.items() if k in own)
    parts = [text, stated, f"map: {_map(values, p)}"]
    if other is not None and (second := _map(values, other.parameters)) != _map(values, p):
        parts.append(f"other map: {second}")
    if target is not None:
        parts.append(f"class {target}")
    if spec.traits.get("unit"):
        parts.append(f"unit: {spec.traits['unit']}")
    return "; ".join([*(part for part in parts if part), str(spec.traits["source"])])


def _map(metric: Mapping[str, Any], method: Mapping[str, Any]) -> str:
    """Which map of a method a metric judges."""
    sign, reduce = (method[k] if metric.get(k, "method") == "method" else metric[k] for k in ("sign", "reduce"))
    if method["sign"] == "abs_sample" != sign:  # taken by the method, whatever is done afterwards
        sign = "abs_sample" + (", then abs" if sign == "abs" else "")
    return f"sign={sign}, reduce={reduce}, of the {method['output']} in {method['space']} space"


def rescaled(call: Call, value: float | None, floor: float | None) -> float | None:
    """(value - floor) / (best - floor), best the end of the metric's range that its direction points to: 0 is what the
    control reaches, 1 the best there can be. None where one of them does not exist, as of an unbounded metric (its
    trait `bounded` says for which parameters alone the range holds)."""
    traits = spec_of(call).traits
    held = all(call.parameters[k] == v for k, v in traits.get("bounded", {}).items())
    low, high = traits["range"] if held else (None, None)
    best = high if traits["direction"] == "higher" else low if traits["direction"] == "lower" else None
    if value is None or floor is None or best is None or abs(best - floor) < 1e-9:
        return None
    return float((value - floor) / (best - floor))


def mean_of(values: Sequence[float | None]) -> float | None:
    """Of the numbers that exist; None without any."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def attainable(retests: Sequence[float | None], direction: str) -> float | None:
    """What two noisy maps can reach at most: the geometric mean of both reliabilities (science 2), which attenuate
    alike; of distances the mean."""
    known = [r for r in retests if r is not None]
    if len(known) < len(retests):
        return None
    if direction == "higher":
        return float(math.prod(max(r, 0.0) for r in known) ** (1 / len(known)))
    return mean_of(retests)
