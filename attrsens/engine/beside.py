"""What a preset's paper printed beside what the run found: the same quantity, of other models and images.

A row of `published` is {of = "sg, regular net", where = {...}, quantity = number or [mean, sd], ...}. `where` says
which of the run's aggregates a number is held against: `method` (a title; without it the name that `of` begins with),
`model` (1 is the first that was given), `target` (1 is an image's first), `noise`, `to` (the other place of a pair, a
table of the same keys), and parameters. With `over`, a second place, the number is the ratio of the first to it.
Quantities are named as in the report, with as many parameters as tell them apart; besides them `top1`, and
`NAME (sd / mean)` of a swept score.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attrsens.engine.metrics import registry_of
from attrsens.engine.report import Aggregate, Report
from attrsens.engine.stats import summary
from attrsens.spec import METHODS

TOP1, SPREAD = "top1", " (sd / mean)"
NOWHERE = "nothing in this run is of it"
HOLDS_ZERO = "no ratio: the interval of its denominator holds 0"
OWN = ("method", "model", "target", "noise", "to")


@dataclass(frozen=True)
class Beside:
    """A published number with this run's.

    Attributes:
        of: whose it is, in the preset's words. quantity: its name; of a ratio too, which `ratio` says.
        published, published_sd: None where the paper has words only, in `text`.
        mean, sd, ci95, n: this run's; mean is None with a reason.
        model, expression: of this run's row; of a ratio, of its numerator.
    """

    of: str
    quantity: str = ""
    published: float | None = None
    published_sd: float | None = None
    text: str = ""
    ratio: bool = False
    mean: float | None = None
    sd: float | None = None
    ci95: tuple[float, float] | None = None
    n: int = 0
    reason: str | None = None
    model: str = ""
    expression: str = ""


def beside(report: Report) -> list[Beside]:
    """Every published number of the run's preset in its order, with what this run has of it; [] without a preset."""
    preset = report.config.get("preset")
    published = preset["published"] if preset else ""
    if isinstance(published, str):
        return []
    out = []
    for row in published:
        of = str(row["of"])
        first = re.match(r"\w+(\+\w+)*", of)
        named = {"method": first[0]} if first and first[0].partition("+")[0] in METHODS else {}
        where = named | dict(row.get("where", {}))
        if "text" in row:
            out.append(Beside(of, text=str(row["text"])))
        for quantity, number in row.items():
            if quantity in ("of", "text", "where", "over"):
                continue
            value, spread = number if isinstance(number, list) and len(number) == 2 else (number, None)
            value = value[0] if isinstance(value, list) else value
            numbers = quantity, float(value), None if spread is None else float(spread)
            found = _found(report, quantity, where)
            if "over" in row:
                other = _found(report, quantity, named | dict(row["over"]))
                out.append(_ratio(Beside(of, *numbers, ratio=True), found, other))
            elif found:
                out += [_of(Beside(of, *numbers), a) for a in found]
            else:
                out.append(Beside(of, *numbers, reason=NOWHERE))
    return out


def _of(row: Beside, a: Aggregate) -> Beside:
    model, expression = str(a.group.get("model", "")), str(a.group.get("expression", ""))
    reason = None if a.mean is not None else next(iter(a.reasons), "no value")
    facts = row.of, row.quantity, row.published, row.published_sd, row.text, row.ratio
    return Beside(*facts, a.mean, a.sd, a.ci95, a.n, reason, model, expression)


def _ratio(row: Beside, above: Sequence[Aggregate], below: Sequence[Aggregate]) -> Beside:
    """The ratio of two means, where the second is not zero for all that is known (science C-14)."""
    facts = row.of, row.quantity, row.published, row.published_sd, row.text, True
    reason, ratio, n = NOWHERE, None, 0
    if len(above) == len(below) == 1 and above[0] is not below[0]:
        a, b, n = above[0].mean, below[0].mean, min(above[0].n, below[0].n)
        interval = below[0].ci95
        if a is None or b is None:
            reason = "one of the means does not exist"
        elif b == 0 or (interval and interval[0] <= 0 <= interval[1]):
            reason = f"{HOLDS_ZERO}; the difference is {a - b:+.3g}"
        else:
            reason, ratio = "", a / b
    model = str(above[0].group.get("model", "")) if above else ""
    return Beside(*facts, ratio, None, None, n, reason or None, model)


def _found(report: Report, quantity: str, where: Mapping[str, Any]) -> list[Aggregate]:
    models = [str(name) for name in report.config["model"]]
    if quantity == TOP1:
        return _accuracy(report, models, where)
    if quantity.endswith(SPREAD):
        return _spreads(report, quantity.removesuffix(SPREAD), models, where)
    if "target" in where:
        return _of_target(report, quantity, models, where)
    return [a for a in report.aggregates if _same(quantity, a.quantity) and _matches(a.group, where, models)]


def _matches(group: Mapping[str, Any], where: Mapping[str, Any], models: Sequence[str]) -> bool:
    """Whether a row is of the place, or of the pair of places in either order."""
    to, other = where.get("to"), group.get("to")
    if to is None:
        return other is None and _there(group, where, models)
    if not isinstance(other, Mapping):
        return False
    to = {"method": where["method"], **to} if "method" in where else to
    turned = _there(other, where, models) and _there(group, to, models)
    return turned or (_there(group, where, models) and _there(other, to, models))


def _there(group: Mapping[str, Any], where: Mapping[str, Any], models: Sequence[str]) -> bool:
    number = where.get("model")
    if number is not None and not (1 <= number <= len(models) and group.get("model") == models[number - 1]):
        return False
    if "method" in where and group.get("method") != where["method"]:
        return False
    if abs(float(group.get("noise") or 0) - float(where.get("noise", 0))) > 1e-6:
        return False
    parameters = group.get("parameters", {})
    return all(k in parameters and _equal(parameters[k], v) for k, v in where.items() if k not in OWN)


def _same(wanted: str, quantity: str) -> bool:
    """Whether a quantity of the report has the name, and the parameters that the preset states."""
    a, b = _parts(wanted), _parts(quantity)
    if len(a) != len(b) or [head for head, _ in a] != [head for head, _ in b]:
        return False
    for (name, asked), (_, stated) in zip(a, b, strict=True):
        for parameter, value in asked.items():
            spec = registry_of(name)[name]
            default = spec.hyper(parameter).default
            if spec.parse(parameter, value) != spec.parse(parameter, stated.get(parameter, default)):
                return False
    return True


def _parts(quantity: str) -> list[tuple[str, dict[str, str]]]:
    """The metrics that a quantity names, each with the parameters stated, and what is said of them."""
    out: list[tuple[str, dict[str, str]]] = []
    for part in re.split(r"( \(.*|correlation\(-|, |\)$)", quantity):
        name, _, rest = part.partition(":")
        out.append((name, dict(pair.split("=", 1) for pair in rest.split(",") if "=" in pair)))
    return [item for item in out if item[0]]


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, (int, float)) and isinstance(b, (int, float)) and not isinstance(a, bool):
        return abs(a - b) <= 1e-6 * max(abs(a), abs(b))
    return bool(a == b)


def _accuracy(report: Report, models: Sequence[str], where: Mapping[str, Any]) -> list[Aggregate]:
    """The share of images whose true class comes first, by model."""
    out = []
    for name in models:
        hits = {
            r.image.sha256 + r.image.path: float(r.target.rank == 1)
            for r in report.records
            if r.model.name == name and r.target.true is not None and r.target.index == r.target.true
        }
        row = summary(TOP1, {"model": name}, list(hits.values()))
        if hits and _there({"model": name}, {k: v for k, v in where.items() if k == "model"}, models):
            out.append(row)
    return out


def _of_target(report: Report, quantity: str, models: Sequence[str], where: Mapping[str, Any]) -> list[Aggregate]:
    """A score of the first, or second, class of every image, which the report's rows average."""
    classes: dict[str, list[int]] = {}
    for record in report.records:
        found = classes.setdefault(record.image.sha256, [])
        found += [record.target.index] if record.target.index not in found else []
    groups: dict[str, dict[str, Any]] = {}
    values: dict[str, dict[str, float]] = {}
    for r in report.records:
        place = {
            "model": r.model.name,
            "method": r.method.title,
            "noise": r.input.noise,
            "parameters": {**r.method.parameters},
            "expression": r.method.expression,
        }
        nth = classes[r.image.sha256].index(r.target.index) + 1
        for name, score in r.scores.items() if nth == where["target"] and _there(place, where, models) else ():
            if score.value is not None and _same(quantity, name):
                at = f"{r.model.id} {r.method.expression}"
                groups[at] = place
                values.setdefault(at, {})[r.image.sha256] = score.value
    return [summary(quantity, groups[at], list(found.values())) for at, found in values.items()]


def _spreads(report: Report, name: str, models: Sequence[str], where: Mapping[str, Any]) -> list[Aggregate]:
    """SAM's standard deviation of a score over a knob's values by its mean, averaged over the knobs of the run."""
    out: dict[str, list[float]] = {}
    images: dict[str, int] = {}
    for effect in report.effects:
        if effect.kind != "stability" or not _same(name, effect.quantity):
            continue
        for model in models:
            mean, spread = effect.mean.get(model), effect.mean_std.get(model)
            group = {"model": model, "method": effect.group.get("method"), "parameters": {"knob": effect.knob}}
            if mean and spread is not None and _there(group, where, models):
                out.setdefault(model, []).append(spread / mean)
                images[model] = effect.n.get(model, 0)
    quantity = name + SPREAD
    return [
        Aggregate(quantity, {"model": m}, sum(v) / len(v), None, None, images[m], 0, {}) for m, v in out.items() if v
    ]
