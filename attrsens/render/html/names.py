"""How rows, records and inputs are called on the page: short, and told apart."""

from __future__ import annotations

from typing import Any

from attrsens.engine.agreement import brief
from attrsens.engine.report import Record, Report
from attrsens.errors import AttrsensError

KNOWN = ("model", "noise", "erased", "method", "parameters", "expression", "base", "to", "attack_parameters", "budget")
DASH = "–"


def number(value: object, digits: int = 4) -> str:
    """A number in few digits, a dash where there is none; a word as it is."""
    if value is None:
        return DASH
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:.{digits}g}".replace("-", "−")


def interval(ends: Any) -> str:
    return f"{number(ends[0], 3)} to {number(ends[1], 3)}" if ends else DASH


def short(expression: str) -> str:
    """A method expression without what is at its default; as it is where it cannot be read."""
    try:
        return brief(expression)
    except (AttrsensError, ValueError, KeyError):
        return expression


class Names:
    """Names of a report's rows: the model stands in them only where there are several.

    Args:
        report: whose rows are named.
    """

    def __init__(self, report: Report) -> None:
        groups = [g for a in report.aggregates for g in (a.group, a.group.get("to")) if isinstance(g, dict)]
        models = {r.model.id for r in report.records} | {str(g["model"]) for g in groups if "model" in g}
        self.sweep = report.command == "sweep"  # whose rows carry the expression of the setting all others start from
        self.several = len(models - {r.model.name for r in report.records}) > 1

    def group(self, group: dict[str, Any]) -> str:
        """Of a row of aggregates, comparisons, gates or effects."""
        whole = bool(group.get("expression")) and not (self.sweep and group.get("method"))
        method = short(str(group["expression"])) if whole else str(group.get("method") or "")
        said = {
            k: v for k, v in group.items() if k not in KNOWN and v is not None and v is not False and v not in ({}, [])
        }
        rest = [f"{key} {_value(v)}" for key, v in said.items()]
        budget = group.get("budget") or {}
        rest += [f"eps {_value(budget['eps'])}"] if "eps" in budget else []
        rest = ["reference" if words == "reference True" else words for words in rest]
        if not whole and isinstance(group.get("parameters"), dict):
            rest += [f"{key}={_value(v)}" for key, v in group["parameters"].items()]
        words = [str(group["model"])] if "model" in group and (self.several or not (method or rest)) else []
        words += [method] if method else []
        words += [f"noise {group['noise']:g}"] if isinstance(group.get("noise"), float) and group["noise"] else []
        words += [f"without {group['erased']}"] if group.get("erased") else []
        own = ", ".join(words + rest) or "all"
        return f"{own} ~ {self.group(group['to'])}" if isinstance(group.get("to"), dict) else own

    def record(self, record: Record) -> str:
        """Of a map among those of its image and class."""
        words = [record.model.name] if self.several else []
        words += [short(record.method.expression), *change(record)]
        return ", ".join(words)


def change(record: Record) -> list[str]:
    """What was done to the input, in words."""
    i = record.input
    words = [f"noise {i.noise:g}"] if i.noise else []
    words += [f"without {i.erased.rsplit('/', 1)[-1]}"] if i.erased else []
    return words + ([f"attacked: {record.attack.title}"] if record.attack and attacked(record) else [])


def attacked(record: Record) -> bool:
    """Whether it is of an attacked map; a boundary search attacks none."""
    return record.attack is not None and record.attack.of != record.key


def target(record: Record) -> str:
    """`tiger cat (282)`."""
    t = record.target
    return f"{t.label} ({t.index})" if t.label else f"class {t.index}"


def matches(group: dict[str, Any], record: Record) -> bool:
    """Whether a record is one of those that a row about single maps is about."""
    erased = record.input.erased and f"{record.input.erased} ({record.input.fill})"
    own: dict[str, Any] = {"noise": record.input.noise, "erased": erased, "method": record.method.title}
    if group.get("model") not in (None, record.model.name, record.model.id):
        return False
    given = group.get("parameters") or {}
    parameters: dict[str, Any] = {**record.method.parameters}
    if set(given) == set(parameters):  # else the expression is that of a sweep's reference
        own["expression"] = record.method.expression
    if "attack" in group and (record.attack is None or record.attack.kind != group["attack"]):
        return False
    if record.attack and any(
        record.attack.parameters.get(k) != v for k, v in group.get("attack_parameters", {}).items()
    ):
        return False
    parameters |= {f"{w.name}.{key}": value for w in record.method.wrappers for key, value in w.parameters.items()}
    if any(parameters.get(key) != value for key, value in given.items()):
        return False
    return all(group[key] == value for key, value in own.items() if group.get(key) is not None)


class Members:
    """The records that rows are about."""

    def __init__(self, records: list[Record]) -> None:
        self._by_title: dict[str, list[Record]] = {}
        for record in records:
            self._by_title.setdefault(record.method.title, []).append(record)
        self._found: dict[str, list[Record]] = {}

    def of(self, group: dict[str, Any]) -> list[Record]:
        """Those of a row about single maps."""
        key = repr(group)
        if key not in self._found:
            title = group.get("method")
            among = [r for t, records in self._by_title.items() for r in records if title in (None, t)]
            self._found[key] = [record for record in among if matches(group, record)]
        return self._found[key]


def _value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}={_value(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(_value(v) for v in value)
    return number(value) if isinstance(value, float) else str(value)
