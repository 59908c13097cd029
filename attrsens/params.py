"""A hyperparameter: what a signature says of it, and how a value of it is read and checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

from attrsens.errors import AttrsensError
from attrsens.samples import located

Value = int | float | str | bool
Scale = Literal["ratio", "bounded", "nominal"]


@dataclass(frozen=True)
class Param:
    """What is known of a hyperparameter besides its name, type and default.

    Attributes:
        help: one line, with the unit.
        min, max: admissible values, both included.
        choices: admissible words.
        sweep: the published sweep; `reference` is the published reference among its values.
        scale: how one step of the knob is measured: "ratio" an octave, "bounded" 10 % of the span from min to max (of
            `range` where one of them is missing), "nominal" a switch.
        range: the span in use in practice, for shares of variance.
        source: where default and sweep come from.
        pixels: what it counts: 1 lengths in pixels of the input, 2 pixels or entries of it (an area), 0 neither. A
            preset that says for which side its values are meant has them scaled by it.
    """

    help: str
    min: float | None = None
    max: float | None = None
    choices: tuple[str, ...] = ()
    sweep: tuple[Value, ...] = ()
    reference: Value | None = None
    scale: Scale = "nominal"
    range: tuple[float, float] | None = None
    source: str = ""
    pixels: int = 0


@dataclass(frozen=True)
class Hyper:
    """One hyperparameter: `type` is int, float, str, bool or Path (a file whose content counts, not its name)."""

    name: str
    type: type
    default: Value
    param: Param

    def check(self, value: object, owner: str) -> Value:
        """The value in this hyperparameter's type and range; text is parsed.

        Raises:
            AttrsensError: names the owner, the rule and the value.
        """
        p = self.param
        parsed = self._parse(value)
        if (
            parsed is None
            or (p.choices and parsed not in p.choices)
            or (p.min is not None and float(parsed) < p.min)
            or (p.max is not None and float(parsed) > p.max)
        ):
            raise AttrsensError(f"{owner}: {self.name} must be {self.rule()}; got {value!r}")
        if self.type is Path and parsed and not located(str(parsed)).is_file():
            raise AttrsensError(f"{owner}: {self.name}: no file {parsed}")
        return parsed

    def rule(self) -> str:
        """The admissible values in words: 'an integer of at least 1'."""
        p = self.param
        if p.choices:
            return "one of " + ", ".join(p.choices)
        if self.type is bool:
            return "true or false"
        if self.type not in (int, float):
            return "text" if self.type is str else "a file"
        noun = "an integer" if self.type is int else "a number"
        if p.min is not None and p.max is not None:
            return f"{noun} from {p.min:,} to {p.max:,}"
        if p.min is not None:
            return f"{noun} of at least {p.min:,}"
        return noun if p.max is None else f"{noun} of at most {p.max:,}"

    def _parse(self, value: object) -> Value | None:
        if self.type is bool:
            words = {"true": True, "yes": True, "on": True, "1": True}
            words |= {"false": False, "no": False, "off": False, "0": False}
            return value if isinstance(value, bool) else words.get(str(value).lower())
        if isinstance(value, bool):
            return None
        if self.type is Path:
            if not isinstance(value, (str, Path)):
                return None
            return "" if str(value) == "." else str(value)  # Path() means no file
        if self.type is str:
            return value if isinstance(value, str) else None
        try:
            if self.type is float and isinstance(value, str) and "/" in value:
                value = float(Fraction(value))  # 8/255
            number = float(value)  # type: ignore[arg-type]
            if not math.isfinite(number) or (self.type is int and number != int(number)):
                return None
            # an integer is read as one, so that large seeds keep every digit
            return int(value) if isinstance(value, (int, str)) and self.type is int else self.type(number)
        except (TypeError, ValueError, ZeroDivisionError):
            return None


def written(value: Value) -> str:
    """A value for people: grey levels as fractions of 255."""
    text = str(value)
    if not isinstance(value, float) or len(text) < 10:
        return text
    levels = value * 255
    return f"{levels:.0f}/255" if abs(levels - round(levels)) < 1e-9 else text
