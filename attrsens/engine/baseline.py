"""A report against an earlier one: did explanations move, did predictions move, and what may have moved them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from attrsens.engine.baseline_file import OPTIONS, Baseline, clean, prior, read, slim
from attrsens.engine.drift import (
    DEFINITIONS,
    LEVEL,
    MARGINS,
    Entry,
    Finding,
    Row,
    judge,
    map_rows,
    match,
    prediction_rows,
)
from attrsens.engine.floor import Floor
from attrsens.engine.gates import whose
from attrsens.engine.report import Comparison, Gate, Report
from attrsens.errors import AttrsensError

__all__ = ["Baseline", "Overall", "causes", "check", "check_margin", "prior", "read", "slim"]
GATED = ("l2", "probability", "top1")  # cosine is there to tell pattern from size
NUMERICS = ("threads", "folding", "layout")
PACKAGES = ("torchvision", "pillow", "numpy", "scipy")  # whose versions can move a map, after torch
OVERALL = ("moved", "cannot tell", "equivalent")  # the first that any row says


@dataclass(frozen=True)
class Overall:
    """The verdicts on all rows.

    Attributes:
        explanations, predictions: moved, equivalent or cannot tell.
        causes: what differs between the runs and may be why, likeliest first.
    """

    explanations: str
    predictions: str
    causes: list[str] = field(default_factory=list)


def check(
    report: Report,
    baseline: str | Path | Baseline,
    margin: float | None = None,
    floor: Sequence[Floor] = (),
    gate: bool = True,
) -> Overall:
    """Compare with an earlier report and write what was found into this one: `comparisons`, `gates` and
    `config["baseline"]`.

    A mean over images is held against a margin: `margin` if given (the same number for l2, probability and top1, and
    margin^2 / 2 for cosine, which is the same angle), else the largest of the floors that were measured, and at least
    0.001 (l2: what two half-precision sketches resolve; probability) and 0.01 (top1). `drift.judge` says how.

    Args:
        floor: what `noise_floor` measured. gate: False adds no gates, for a change that is accepted.

    Raises:
        AttrsensError: as `read`; or a margin that is not a number above 0 and below 2.
    """
    check_margin(margin)
    check_names({r.model.id: r.model.name for r in report.records})
    old = baseline if isinstance(baseline, Baseline) else read(baseline)
    new = [Entry.of(r) for r in report.records]
    matched = match(old.records, new)
    maps, predictions = map_rows(matched), prediction_rows(old.records, new)
    tests = sum(row.quantity in GATED for row in (*maps, *predictions))
    found: list[tuple[Row, float, Finding]] = []
    for row in (*maps, *predictions):
        limit = _margin(row, margin, floor)
        finding = judge(row.values, limit, max(tests, 1), row.quantity == "top1")
        found.append((row, limit, finding))
    comparisons = [_comparison(*one, found, floor) for one in found]
    overall = Overall(
        _overall(f.verdict for row, _, f in found if row.quantity == "l2"),
        _overall(f.verdict for row, _, f in found if row.quantity in ("probability", "top1")),
        causes(old, report),
    )
    report.comparisons += comparisons
    report.config["baseline"] = {
        "path": old.path,
        "sha256": old.sha256,
        "margin": margin,
        "smallest_margins": MARGINS,
        "level": LEVEL,
        **asdict(overall),
        "matched": len(matched.pairs),
        "only_in_baseline": _listed(matched.before),
        "only_here": _listed(matched.after),
        "floor": [asdict(row) for row in floor],
        "definitions": DEFINITIONS,
    }
    if gate:
        report.gates += _gates(found, overall)
    return overall


def check_names(models: Mapping[str, str]) -> None:
    """Raise if two models, by id, have one name: a baseline knows them by it.

    Raises:
        AttrsensError: they have.
    """
    names = list(models.values())
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise AttrsensError(f"baseline: two models are called {twice[0]}; a baseline tells models by name")


def check_margin(margin: float | None) -> None:
    """Raise unless it is None or above 0 and below 2.

    Raises:
        AttrsensError: it is not.
    """
    if margin is not None and not 0 < margin < 2:
        raise AttrsensError(f"margin must be above 0 and below 2, such as 0.05 for five per cent; got {margin}")


def _margin(row: Row, given: float | None, floor: Sequence[Floor]) -> float:
    if given is not None:
        return given**2 / 2 if row.quantity == "cosine" else given
    return max([MARGINS[row.quantity], *(f.value for f in _measured(row, floor))])


def _measured(row: Row, floor: Sequence[Floor]) -> list[Floor]:
    mine = (row.group["model"], row.group.get("expression"), row.quantity)
    return [f for f in floor if (f.model, f.method, f.quantity) == mine]


def _comparison(
    row: Row, margin: float, finding: Finding, found: Sequence[tuple[Row, float, Finding]], floor: Sequence[Floor]
) -> Comparison:
    reasons = [finding.reason] if finding.reason else []
    if row.quantity == "l2" and finding.verdict == "moved":
        angle = next(f for r, _, f in found if r.quantity == "cosine" and r.group == row.group)
        reasons += ["the size alone: the pattern is equivalent"] if angle.verdict == "equivalent" else []
    if row.quantity == "l2" and finding.verdict == "equivalent" and floor:
        quiet = max([MARGINS["l2"], *(f.value for f in _measured(row, floor) if f.change in NUMERICS)])
        if finding.mean and finding.mean > quiet:
            reasons.append(f"less than other seeds move it, more than threads and folding do ({quiet:.2g})")
    side = {"model": row.group["model"]}
    return Comparison(
        f"baseline.{row.quantity}", {"report": "baseline", **side}, {"report": "this run", **row.group},
        finding.mean, finding.ci95, None, None, None, len(row.images), None, row.missing,
        {"another class, or an image that is not in the baseline": row.missing} if row.missing else {},
        DEFINITIONS[row.quantity], margin, finding.verdict, "; ".join(reasons) or None,
    )  # fmt: skip


def _gates(found: Sequence[tuple[Row, float, Finding]], overall: Overall) -> list[Gate]:
    """One a row that can fail; and one that fails where nothing was met again, so that it cannot pass unseen."""
    gates = []
    for row, margin, finding in found:
        if row.quantity in GATED:
            moved = finding.verdict == "moved"
            named = "; ".join(overall.causes) or "nothing that the reports record"
            reason = f"moved; differs between the runs: {named}" if moved else finding.verdict
            expression = f"baseline.{row.quantity}>{margin:.4g}: {whose(row.group)}"
            gates.append(Gate(expression, not moved, finding.mean, 1, int(moved), row.group, reason))
    met = {row.quantity for row, _, _ in found}
    if not met:
        gates.append(Gate("baseline", False, None, reason="no record of the baseline was met again"))
    elif "l2" not in met and all(gate.passed for gate in gates):
        gates.append(Gate("baseline.l2", False, None, reason="no map of the baseline was met again"))
    return gates


def _overall(verdicts: Any) -> str:
    said = set(verdicts)
    return next((verdict for verdict in OVERALL if verdict in said), "cannot tell")


def _listed(entries: Sequence[Entry]) -> list[str]:
    return [clean(str(entry)) for entry in entries]


def causes(old: Baseline, report: Report) -> list[str]:
    """What differs between the runs and can move maps and predictions, likeliest first; for records that both have."""
    new, out = report.provenance, []
    then = {entry.model.name: entry.model.id for entry in old.records}
    for name, now in {r.model.name: r.model.id for r in report.records}.items():
        if name in then and then[name] != now:
            a, b = old.provenance.weights.get(then[name], ""), new.weights.get(now, "")
            if a and a == b:
                out.append(f"architecture, preprocessing or classes of {name} (its weights are the same)")
            elif a and b:
                out.append(f"weights of {name}: sha256 {clean(a[:12])} before, {b[:12]} now")
            else:
                out.append(f"weights, architecture or preprocessing of {name}: {clean(then[name])} before, {now} now")
    before_now = _versions(old.records), _versions([Entry.of(r) for r in report.records])
    for title in [t for t in before_now[1] if t in before_now[0]]:
        a, b = (", ".join(sorted(side[title])) for side in before_now)
        if a != b:
            out.append(f"method {clean(title)}: version {a} before, {b} now")
    for package, digits in (("attrsens", 9), ("torch", 2), *((p, 9) for p in PACKAGES)):
        a, b = old.provenance.versions.get(package, ""), new.versions.get(package, "")
        if a and b and a.split(".")[:digits] != b.split(".")[:digits]:
            out.append(f"{package} {clean(a)} before, {b} now")
    for option in OPTIONS:
        before, after = old.config.get(option), report.config.get(option)
        if option in old.config and option in report.config and before != after:
            out.append(f"{option} {clean(str(before))} before, {after} now")
    if old.provenance.threads != new.threads:
        out.append(f"threads {old.provenance.threads} before, {new.threads} now")
    return out


def _versions(entries: Sequence[Entry]) -> dict[str, set[str]]:
    out: dict[str, set[str]] = {}
    for entry in entries:
        parts = [entry.method.version, *(w.version for w in entry.method.wrappers)]
        out.setdefault(entry.method.title, set()).add("+".join(map(str, parts)))
    return out
