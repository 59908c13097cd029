"""`attrsens score`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attrsens.cli import console, options
from attrsens.cli.running import go
from attrsens.engine.prepare import prepare_score
from attrsens.spec import SCORES, SIMILARITIES

if TYPE_CHECKING:
    from attrsens.engine.report import Report


Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metrics",
        metavar="NAME,...|NAME:PARAM=VALUE,...",
        help="Scores and similarities; repeatable. Default: insertion,deletion,srg,gini; with --annotations also "
        "pointing,eg,loc,wsl. 'attrsens list metrics' names them.",
        autocompletion=options.names(lambda: [*SCORES, *SIMILARITIES]),
    ),
]
Calibrate = Annotated[
    bool | None,
    typer.Option(
        "--calibrate/--no-calibrate",
        help="Floors and ceilings for all scores, or for none. Default: for those that need no pass of their own.",
        show_default=False,
    ),
]


@options.runs(metrics=True)
def score(
    values: dict[str, Any],
    flags: options.Flags,
    metric_flags: dict[str, options.Flags],
    metrics: Metrics = None,
    annotations: options.AnnotationsOption = None,
    calibrate: Calibrate = None,
) -> int:
    """Faithfulness, localisation, sensitivity, sparseness, randomisation of explanations.

    attrsens score img.jpg --method sg --metrics insertion,deletion,max_sensitivity
    """
    more = {"metric_parameters": metric_flags, "annotations": annotations, "calibrate": calibrate}
    return go(values, prepare_score, _show, metrics=metrics, **more, **flags)


def _show(report: Report, out: Path) -> None:
    """A line a score: image, method, class, score, value, floor, ceiling; then the means over images."""
    for record in report.records:
        head = record.image.path, record.model.name, record.method.title, str(record.target.index)
        rows = [(name, s.value, s.floor, s.ceiling, s.reason) for name, s in record.scores.items()]
        rows += [(f"{s.name} to {s.to[:8]}", s.value, s.floor, s.ceiling, s.reason) for s in record.similarities]
        for name, value, floor, ceiling, reason in rows:
            note = [reason] if value is None and reason else []
            console.row(*head, name, _number(value), _number(floor), _number(ceiling), *note)
    many = len({record.image.sha256 for record in report.records}) > 1
    for row in report.aggregates if many else []:
        interval = f"{row.ci95[0]:.4g} to {row.ci95[1]:.4g}" if row.ci95 else "-"
        whose = f"mean of {row.n}", row.group["model"], row.group["method"], "-", row.quantity
        console.row(*whose, _number(row.mean), f"sd {_number(row.sd)}", f"95 % {interval}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
