"""Pixel values of a preset on another input: lengths go with the side of the crop, areas with its square."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attrsens.engine.sweep.axes import parse_values
from attrsens.errors import AttrsensError
from attrsens.spec import METHODS, SCORES, SIMILARITIES, WRAPPERS, Hyper, Registry, Spec, Value, split_expression

if TYPE_CHECKING:
    from attrsens.models.classifier import Classifier

METRICS = (SCORES, SIMILARITIES)


def crop_of(classifiers: Sequence[Classifier], preset: str) -> int:
    """The side that all of the classifiers see.

    Raises:
        AttrsensError: they see several, or crop nothing.
    """
    sides = {c.name: c.preprocess.crop for c in classifiers}
    if len({*sides.values()}) > 1:
        told = ", ".join(f"{name} {side or 'no crop'}" for name, side in sides.items())
        raise AttrsensError(f"preset {preset} scales its pixel values to one side, and the models see several: {told}")
    (side,) = {*sides.values()}
    if side is None:
        raise AttrsensError(
            f"preset {preset} scales its pixel values to the crop, and {next(iter(sides))} has none; give --preprocess "
            "crop=SIDE"
        )
    return side


@dataclass(frozen=True)
class Scale:
    """From values meant for inputs of one side to those for another.

    Attributes:
        side: that the values are meant for. crop: that the classifiers have.
        used: by parameter, as in `sp:patch_size`, what each value became.
    """

    side: int
    crop: int
    used: dict[str, dict[str, Value]] = field(default_factory=dict)

    @property
    def factor(self) -> float:
        return self.crop / self.side

    def facts(self) -> dict[str, Any]:
        """What the report states of it."""
        return {"side": self.side, "crop": self.crop, "factor": round(self.factor, 6), "values": self.used}

    def request(self, given: Mapping[str, Any], typed: Callable[[str], bool]) -> dict[str, Any]:
        """The options of a run with those scaled that the preset gives.

        Args:
            typed: whether the command line itself gives an option, by its name in Python.
        """
        out = dict(given)
        for name in ("method", "metrics"):
            if out.get(name) and not typed(name):
                out[name] = [self.expression(text) for text in out[name]]
        for name, owners in METHODS.parameters().items():
            counted = [owner for owner, hyper in owners.items() if hyper.param.pixels]
            if counted and out.get(name) is not None and not typed(name):
                out[name] = self._text(METHODS[counted[0]], name, out[name])
        flags: Mapping[str, Mapping[str, Any]] = out.get("metric_parameters") or {}
        if flags:
            out["metric_parameters"] = {
                metric: {
                    name: value if typed(f"{metric}__{name}") else self._text(_find(METRICS, metric), name, value)
                    for name, value in values.items()
                }
                for metric, values in flags.items()
            }
        if out.get("param") and not typed("param") and not typed("values_"):
            references = None if typed("reference") else out.get("reference") or []
            out |= self._sweep(out["param"], out.get("values") or [], references, out["method"] or [])
        return out

    def expression(self, text: str) -> str:
        """A method or metric expression with its pixel values scaled; of those that it does not state, none."""
        parts = []
        for i, part in enumerate(split_expression(text)):
            name, colon, rest = part.partition(":")
            registries = (METHODS, *METRICS) if i == 0 else (WRAPPERS,)
            if not colon or not any(name.strip() in registry for registry in registries):
                parts.append(part)
                continue
            spec = _find(registries, name.strip())
            pairs = [pair.partition("=") for pair in rest.split(",")]
            parts.append(f"{name}:{','.join(f'{k}={self._text(spec, k.strip(), v)}' for k, _, v in pairs)}")
        return "+".join(parts)

    def value(self, hyper: Hyper, value: Value) -> Value:
        """One value. Integers are rounded; what is not zero stays so, and nothing leaves its range."""
        p = hyper.param
        if not p.pixels or not value or isinstance(value, (str, bool)):
            return value
        scaled = value * self.factor**p.pixels
        if hyper.type is int:
            scaled = max(1, int(scaled + 0.5))
        low, high = p.min if p.min is not None else scaled, p.max if p.max is not None else scaled
        return hyper.type(float(f"{min(max(scaled, low), high):.6g}"))  # type: ignore[no-any-return]

    def values(self, hyper: Hyper, values: Sequence[Value], reference: Value) -> dict[Value, Value]:
        """Of each value of a sweep what it becomes. Where rounding leaves one integer only, the next ones stand for
        what lay below and above the reference.

        Raises:
            AttrsensError: there are no two values.
        """
        found = {value: self.value(hyper, value) for value in values}
        if len({*found.values()}) < 2 <= len(values) and hyper.type is int:
            middle = int(found[reference])
            if any(float(v) < float(reference) for v in values):
                middle = max(middle, int(hyper.param.min or 0) + 1)
            found = {v: middle + (float(v) > float(reference)) - (float(v) < float(reference)) for v in values}
        if len({*found.values()}) < 2:
            told = ", ".join(map(str, values))
            raise AttrsensError(f"{hyper.name}: {told} at {self.side} pixels are one value at {self.crop}")
        return found

    def _sweep(
        self, names: Sequence[str], texts: Sequence[str], references: Sequence[str] | None, methods: Sequence[str]
    ) -> dict[str, list[str]]:
        """`values` and `reference` of the knobs that are swept; a reference that was typed (None) stays.

        Raises:
            AttrsensError: values or reference of a knob that counts pixels are left to what is published.
        """
        out_texts, out_references = list(texts), list(references or [])
        for i, name in enumerate(names):
            spec, hyper = _addressed(name, methods)
            if not hyper.param.pixels:
                continue
            if i >= len(texts) or (references is not None and i >= len(references)):
                raise AttrsensError(f"param {name}: a preset with a side states the knob's values and reference")
            values = parse_values(texts[i], hyper, spec.name)
            start = hyper.check(references[i], spec.name) if references is not None else values[len(values) // 2]
            if start not in values:
                raise AttrsensError(f"param {name}: reference {start} is none of the values {texts[i]}")
            found = self.values(hyper, values, start)
            self._note(spec, hyper, found)
            out_texts[i] = ",".join(dict.fromkeys(str(found[v]) for v in values))
            if references is not None:
                out_references[i] = str(found[start])
        return {"values": out_texts} | ({"reference": out_references} if references is not None else {})

    def _text(self, spec: Spec, name: str, text: str) -> str:
        """A value as text; what cannot be read is left to those who complain of it."""
        hyper = next((h for h in spec.hypers if h.name == name), None)
        if hyper is None or not hyper.param.pixels:
            return text
        try:
            value = hyper.check(text.strip(), spec.name)
        except AttrsensError:
            return text
        scaled = self.value(hyper, value)
        self._note(spec, hyper, {value: scaled})
        return str(scaled)

    def _note(self, spec: Spec, hyper: Hyper, found: Mapping[Value, Value]) -> None:
        self.used.setdefault(f"{spec.name}:{hyper.name}", {}).update({str(v): new for v, new in found.items()})


def _find(registries: Sequence[Registry], name: str) -> Spec:
    return next(registry[name] for registry in registries if name in registry)


def _addressed(name: str, methods: Sequence[str]) -> tuple[Spec, Hyper]:
    """The entry and the parameter that a knob's name means.

    Raises:
        AttrsensError: there is none.
    """
    owner, dot, parameter = name.rpartition(".")
    here = [split_expression(text)[0].partition(":")[0].strip() for text in methods]
    owners = [m for m in here if m in METHODS.owners(parameter)] or METHODS.owners(parameter)
    for registry in (METHODS, WRAPPERS, *METRICS):
        if dot and owner in registry:
            return registry[owner], registry[owner].hyper(parameter)
    if dot or not owners:
        raise AttrsensError(f"param {name}: nothing has such a parameter")
    return METHODS[owners[0]], METHODS[owners[0]].hyper(parameter)
