"""`attrsens attack`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attrsens.cli import console, options
from attrsens.cli.running import go
from attrsens.engine.aims import MAPS
from attrsens.engine.attack_tables import AREA, NOISE
from attrsens.engine.prepare_attack import BESIDE, USUAL, prepare_attack
from attrsens.render.attack import AttackWriter
from attrsens.spec import ATTACKS, SIMILARITIES

if TYPE_CHECKING:
    from attrsens.engine.report import Aggregate, Report

Kind = Annotated[
    str,
    typer.Option(
        "--kind",
        metavar="|".join(ATTACKS),
        help="What is tried. 'attrsens list attacks' says what each does.",
        autocompletion=options.names(lambda: ATTACKS),
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metrics",
        metavar="NAME,...|NAME:PARAM=VALUE,...",
        help="Similarities to the clean maps, for boundary of the maps to each other; repeatable. Default: "
        f"{USUAL}; for boundary {BESIDE}.",
        autocompletion=options.names(lambda: SIMILARITIES),
    ),
]


Backbone = Annotated[
    Path | None,
    typer.Option(
        "--lpips-backbone", metavar="FILE", help="torchvision's VGG16 weights, for LPIPS; needs the extra 'lpips'."
    ),
]
Range = Annotated[
    str, typer.Option("--lpips-range", metavar="11|01", help="What LPIPS is fed: [-1, 1], or [0, 1] as SMO.")
]


@options.runs(metrics=True, registry=ATTACKS, panel="Attack parameters")
def attack(
    values: dict[str, Any],
    flags: options.Flags,
    metric_flags: dict[str, options.Flags],
    kind: Kind = "manipulate",
    metrics: Metrics = None,
    lpips_backbone: Backbone = None,
    lpips_range: Range = "11",
) -> int:
    """How far an explanation can be moved while the prediction stays, and where the nearest decision boundary is.

    attrsens attack img.jpg --method grad --target-shape ring --eps 4/255,8/255
    """
    more: dict[str, Any] = {"kind": kind, "attack": flags, "metrics": metrics, "metric_parameters": metric_flags}
    more |= {"lpips_backbone": lpips_backbone, "lpips_range": lpips_range}
    return go(values, prepare_attack, _show, AttackWriter, **more)


def _show(report: Report, out: Path) -> None:
    """A line an attack, with its claim; then the means over images."""
    told: set[tuple[str, str, str]] = set()
    for record in report.records:
        attack = record.attack
        if attack is None:
            continue
        search = record.image.sha256, record.model.id, attack.expression
        if attack.stages and search in told:
            continue  # one search for all methods
        told.add(search)
        method = "-" if attack.stages else record.method.title
        console.row(record.image.path, record.model.name, method, attack.title, attack.claim)
        for stage in attack.stages:
            console.row(record.image.path, record.model.name, "-", stage.name, _number(stage.distance))
        for warning in attack.warnings:
            console.note(f"warning: {record.image.path}, {record.method.title}, {attack.title}: {warning}")
    many = len({record.image.sha256 for record in report.records}) > 1
    for row in report.aggregates if many else []:
        if row.quantity.removesuffix(NOISE) in (*MAPS, AREA, "prediction_kept"):
            console.row(f"mean of {row.n}", row.group["model"], row.group["method"], *_mean(row))


def _mean(row: Aggregate) -> tuple[str, ...]:
    interval = f"95 % {row.ci95[0]:.4g} to {row.ci95[1]:.4g}" if row.ci95 else "95 % -"
    eps = row.group["budget"].get("eps")
    return f"eps={eps:.4g}" if eps is not None else "all eps", row.quantity, _number(row.mean), interval


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
