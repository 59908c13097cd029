"""Gates: conditions on the rows about all images, such as `ssim<0.6`, that make a run fail when they are true."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from attrsens.engine.metrics import Judging, free, parse_metrics, short, spec_of
from attrsens.engine.report import Aggregate, Gate, Report
from attrsens.engine.stats import LOCALISATION
from attrsens.errors import AttrsensError, unknown

OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
RESCALED = " (rescaled)"
_FORM = re.compile(
    r"(?P<quantity>\S.*?)(?:\.(?P<end>low|high))?\s*(?P<sign><=|>=|<|>)\s*(?P<bound>[^\s<>=]+)",
)


@dataclass(frozen=True)
class Threshold:
    """A condition that fails the run.

    Attributes:
        expression: as it was given.
        quantity: of the rows that are tested, as it stands in `aggregates`.
        end: "low" or "high" of the 95 % interval; None is the mean.
        sign, bound: the row fails where `value sign bound` is true.
        known: whether the run is known to have this quantity, though perhaps no value of it.
    """

    expression: str
    quantity: str
    end: str | None
    sign: str
    bound: float
    known: bool = False

    def value(self, row: Aggregate) -> float | None:
        """What is compared with the bound."""
        if self.end is None:
            return row.mean
        return None if row.ci95 is None else row.ci95[self.end == "high"]

    def fails(self, value: float | None) -> bool:
        """Whether a row with this value fails; one without a value does."""
        return value is None or OPERATORS[self.sign](value, self.bound)

    def why_null(self, row: Aggregate) -> str:
        """Why a row has no value."""
        if self.end and row.mean is not None:
            return "no interval: too few images, or all values are equal"
        return "; ".join(row.reasons) or "no value"


def parse_gates(texts: str | Iterable[str] | None) -> tuple[Threshold, ...]:
    """Conditions from texts such as `ssim<0.6`, `max_sensitivity:n=7>=2` and `ssim.low<0.5`; repeats are dropped.

    Raises:
        AttrsensError: not a quantity, one of < <= > >= and a finite number.
    """
    given = [texts] if isinstance(texts, str) else texts or ()
    return tuple({text: _parsed(text) for text in (" ".join(str(g).split()) for g in given)}.values())


def _parsed(text: str) -> Threshold:
    found = _FORM.fullmatch(text)
    try:
        bound = float(found["bound"]) if found else math.nan
    except ValueError:
        bound = math.nan
    if found is None or not math.isfinite(bound):
        raise AttrsensError(
            f"fail-if {text!r} is no condition; write a quantity, one of < <= > >= and a number: 'ssim<0.6', or "
            "'ssim.low<0.5' for the lower end of the interval"
        )
    return Threshold(text, found["quantity"], found["end"], found["sign"], bound)


def quantities(judging: Judging) -> list[str]:
    """The quantities that the rows about all images can have, given what is asked for."""
    names = []
    for call in judging.scores:
        names.append(short(call))
        low, high = spec_of(call).traits["range"]
        best = {"higher": high, "lower": low}.get(spec_of(call).traits["direction"])
        controls = judging.calibrate or (judging.calibrate is None and free(call))
        if best is not None and controls and spec_of(call).traits["judges"] != "none":
            names.append(short(call) + RESCALED)
    names += [short(call) for call in judging.similarities]
    aligned = [short(call) for call in judging.scores if call.name == "alignment"]
    places = [short(call) for call in judging.scores if call.name in LOCALISATION]
    return names + [f"correlation(-{a}, {b})" for a in aligned for b in places]


def resolve(gates: Sequence[Threshold], known: Sequence[str] | None) -> tuple[Threshold, ...]:
    """The conditions with their quantities spelled as the report spells them (defaults left out).

    Args:
        known: every quantity that the run can have; None where that is not known beforehand.

    Raises:
        AttrsensError: a quantity that the run will not have.
    """
    out = []
    for gate in gates:
        name = gate.quantity if gate.quantity in (known or ()) else _short(gate.quantity)
        if known is not None and name not in known:
            if not known:
                raise AttrsensError(
                    f"fail-if {gate.expression!r}: maps alone have no quantity to test; 'attrsens score' has, with "
                    f"--metrics {gate.quantity.partition(':')[0]}"
                )
            raise _no_such(gate, known)
        out.append(replace(gate, quantity=name, known=known is not None))
    return tuple(out)


def _short(name: str) -> str:
    """A metric's expression as the report names it; anything else as it is."""
    base = name.removesuffix(RESCALED)
    try:
        scores, similarities = parse_metrics([base])
    except AttrsensError:
        return name
    calls = scores + similarities
    return short(calls[0]) + name[len(base) :] if len(calls) == 1 else name


def _no_such(gate: Threshold, known: Sequence[str]) -> AttrsensError:
    error = unknown("quantity", gate.quantity, known, hint=f"quantities of this run: {', '.join(known)}")
    return AttrsensError(f"fail-if {gate.expression!r}: {error}")


def judge(report: Report, gates: Sequence[Threshold]) -> None:
    """Test the conditions on the report's rows and note the outcomes in its `gates`, before those of other kinds.

    May be called again when rows were added. Of an interrupted run nothing is tested: its gates fail.
    """
    own = {gate.expression for gate in gates}
    others = [gate for gate in report.gates if gate.expression not in own]
    if report.provenance.interrupted:
        reason = "not tested: the run was interrupted"
        report.gates = [Gate(g.expression, False, None, reason=reason) for g in gates] + others
    else:
        report.gates = [outcome(gate, report.aggregates) for gate in gates] + others


def outcome(gate: Threshold, rows: Iterable[Aggregate]) -> Gate:
    """What came of a condition: it fails if it is true of a row of its quantity, if such a row has no value, or if
    there is none. Observed is the worst row's value, null if only rows without a value fail."""
    mine = [row for row in rows if row.quantity == gate.quantity]
    failed = sum(gate.fails(gate.value(row)) for row in mine)
    numbers = [(value, row) for row in mine if (value := gate.value(row)) is not None]
    worst = (min if "<" in gate.sign else max)(numbers, key=lambda pair: pair[0], default=None)
    empty = next((row for row in mine if gate.value(row) is None), None)
    if worst and (gate.fails(worst[0]) or empty is None):
        return Gate(gate.expression, not failed, worst[0], len(mine), failed, worst[1].group)
    if empty:
        return Gate(gate.expression, False, None, len(mine), failed, empty.group, gate.why_null(empty))
    return Gate(gate.expression, False, None, reason="there is no row of this quantity")


def check_found(report: Report, gates: Sequence[Threshold]) -> None:
    """Raise, after the work, for a quantity that turned out not to exist.

    Raises:
        AttrsensError: rows there are, but none of that quantity.
    """
    names = list(dict.fromkeys(row.quantity for row in report.aggregates))
    for gate in gates:
        if names and not gate.known and gate.quantity not in names:
            raise _no_such(gate, names)


def in_words(gate: Gate) -> str:
    """A gate's outcome without its expression: `0.41 (2 of 3 rows fail; the worst: lite0, sg:n=2)`."""
    seen = "no value" if gate.observed is None else f"{gate.observed:.6g}"
    if gate.reason:
        seen += f": {gate.reason}"
    if not gate.rows:
        return seen
    count = "1 row" if gate.rows == 1 else f"{gate.rows} rows"
    if gate.failed and gate.rows > 1:
        count = f"{gate.failed} of {count} fail{'s' if gate.failed == 1 else ''}"
    return f"{seen} ({count}; {'the worst: ' if gate.rows > 1 else ''}{whose(gate.group or {})})"


def whose(group: dict[str, Any]) -> str:
    """What numbers of a row have in common, in short: model, method with parameters, and what else is set."""
    method = group.get("expression") or group.get("method")
    parameters = group.get("parameters")
    if method and parameters and "expression" not in group:
        method = f"{method}:{','.join(f'{k}={v}' for k, v in parameters.items())}"
    rest = [
        f"{name}={value}"
        for name, value in group.items()
        if name not in ("model", "method", "expression", "base", "parameters")
        and value not in (None, 0.0)
        and not isinstance(value, dict)
    ]
    if parameters and not method:
        rest += [f"{name}={value}" for name, value in parameters.items()]
    own = ", ".join([str(word) for word in (group.get("model"), method) if word] + rest)
    return f"{own} ~ {whose(group['to'])}" if isinstance(group.get("to"), dict) else own
