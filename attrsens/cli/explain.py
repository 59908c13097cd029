"""`attrsens explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrsens.cli import console, options
from attrsens.cli.running import go
from attrsens.engine.prepare import prepare

if TYPE_CHECKING:
    from attrsens.engine.report import Report


@options.runs()
def explain(values: dict[str, Any], flags: options.Flags, metric_flags: dict[str, options.Flags]) -> int:
    """One heatmap per image, model, target and method.

    attrsens explain img.jpg --method sg --n 50
    """
    return go(values, prepare, _show, **flags)


def _show(report: Report, out: Path) -> None:
    for record in report.records:
        t = record.target
        where = out / record.heatmap.png if record.heatmap.png else out / "report.json"
        label = t.label if t.label else "class"
        console.row(str(where), record.method.title, f"{label} ({t.index})", f"{t.probability:.3f}")
