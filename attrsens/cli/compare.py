"""`attrsens compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attrsens.cli import baseline as since
from attrsens.cli import console, options
from attrsens.cli.running import go
from attrsens.engine.agreement import CHANGE, FLIP, RESCALED, Matrix, labels, matrices
from attrsens.engine.changes import FILLS
from attrsens.engine.prepare_compare import prepare_compare
from attrsens.render.agreement import CompareWriter, colour_of, says
from attrsens.spec import SCORES, SIMILARITIES

if TYPE_CHECKING:
    from attrsens.engine.report import Report

Noise = Annotated[
    list[str] | None,
    typer.Option(
        "--noise",
        metavar="SD",
        help="Sd of Gaussian noise on the pixels, in units of their range, cut to it; repeatable. 0 is always there.",
    ),
]
NoiseAt = Annotated[
    str,
    typer.Option(
        "--noise-at",
        metavar="crop|picture",
        help="What noise is added to: what the model sees, or the picture at its own size, rounded to 8 bits.",
    ),
]
Erase = Annotated[
    Path | None,
    typer.Option(
        "--erase",
        metavar="MASK.png|DIR",
        help="Repeat everything without what a mask marks: one mask for all images, or a folder of masks named as the "
        "images.",
    ),
]
Fill = Annotated[
    str | None,
    typer.Option("--fill", metavar="|".join(FILLS), help="What stands in its place. Default: mean."),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metrics",
        metavar="NAME,...|NAME:PARAM=VALUE,...",
        help="Similarities and scores; repeatable. Default: spearman,hog,ssim,sign_agreement.",
        autocompletion=options.names(lambda: [*SCORES, *SIMILARITIES]),
    ),
]
Calibrate = Annotated[
    bool | None,
    typer.Option(
        "--calibrate/--no-calibrate",
        help="--no-calibrate: no floors and ceilings that need further maps; --calibrate: also those of scores.",
        show_default=False,
    ),
]


@options.runs(metrics=True)
def compare(
    values: dict[str, Any],
    flags: options.Flags,
    metric_flags: dict[str, options.Flags],
    noise: Noise = None,
    noise_at: NoiseAt = "crop",
    erase: Erase = None,
    fill: Fill = None,
    metrics: Metrics = None,
    annotations: options.AnnotationsOption = None,
    calibrate: Calibrate = None,
    baseline: since.BaselineOption = None,
    margin: since.MarginOption = None,
    update: since.UpdateOption = False,
) -> int:
    """Who agrees with whom: methods, models, and inputs with and without noise or an object.

    attrsens compare img.jpg --method grad --method sg --noise 0.1
    attrsens compare img.jpg --method sg --baseline baseline.json
    """
    then = since.checked(baseline, margin, update, values["quiet"])
    more: dict[str, Any] = {"noise": noise or [], "noise_at": noise_at, "erase": erase, "fill": fill}
    more["metrics"] = metrics
    more |= {"metric_parameters": metric_flags, "annotations": annotations, "calibrate": calibrate}
    more["against"] = str(baseline) if baseline else None
    return go(values, prepare_compare, _show, CompareWriter, then, **more, **flags)


def _show(report: Report, out: Path) -> None:
    """A matrix a similarity, the methods in order, what a changed input does to predictions, scores, differences."""
    for matrix in matrices(report):
        _matrix(matrix)
    singles = [row for row in report.aggregates if "to" not in row.group]
    for quantity in dict.fromkeys(row.quantity for row in singles):
        if quantity.endswith(RESCALED):
            continue
        rows = [row for row in singles if row.quantity == quantity]
        if quantity not in (FLIP, CHANGE):
            found = [r.scores[quantity].direction for r in report.records if quantity in r.scores]
            up = 1 if found[:1] == ["lower"] else -1
            rows.sort(key=lambda row: (row.mean is None, up * (row.mean or 0)))
        console.out(says(quantity))
        for name, row in zip(labels([row.group for row in rows]), rows, strict=True):
            interval = f"{row.ci95[0]:.3g} to {row.ci95[1]:.3g}" if row.ci95 else "-"
            console.row(f"  {_number(row.mean):>8}  95 % {interval:<20} n {row.n:<4} {name}")
        console.out("")
    _comparisons(report)
    since.show(report)


def _matrix(matrix: Matrix) -> None:
    names, size = labels(matrix.groups), len(matrix.groups)
    console.out(f"{matrix.quantity}, mean over {_count(matrix.images, 'image')}; {TRIANGLES}")
    wide = max(len(name) for name in names)
    console.out(" " * (wide + 5) + "".join(f"{j + 1:>7}" for j in range(size)))
    for i, name in enumerate(names):
        cells: list[tuple[str, tuple[int, int, int] | None]] = [(f"{i + 1:>3}  {name:<{wide}}", None)]
        for j in range(size):
            place = min(i, j), max(i, j)
            value = matrix.mean.get(place) if i < j else matrix.rescaled.get(place)
            text = "." if i == j else _number(value, 2)
            cells.append((f"{text:>7}", None if i == j else colour_of(matrix, *place)))
        console.painted(cells)
    console.out("")


TRIANGLES = "above the diagonal raw, below it rescaled: 0 is the floor, 1 the best there is"


def _comparisons(report: Report) -> None:
    """Those of at least six images; the report has the others."""
    for quantity in dict.fromkeys(c.quantity for c in report.comparisons):
        rows = [c for c in report.comparisons if c.quantity == quantity and c.p is not None]
        if not rows:
            continue
        console.out(f"{quantity}: differences over images; p by Holm over {_count(len(rows), 'row')}")
        for c in rows:
            a, b = (_pair(side) for side in (c.a, c.b))
            interval = f"{c.ci95[0]:+.3g} to {c.ci95[1]:+.3g}" if c.ci95 else "-"
            p = f"{c.p_holm:.3g}" if c.p_holm is not None else "-"
            console.row(f"  {c.difference:+8.3g}  95 % {interval:<20} p {p:<8} n {c.n:<4} {a}  minus  {b}")
        console.out("")


def _pair(group: dict[str, Any]) -> str:
    """A place, or a pair of them, with its model."""
    if "to" not in group:
        (name,) = labels([group])
        return name if name.startswith(group["model"]) else f"{group['model']} {name}"
    names = labels([{k: v for k, v in group.items() if k != "to"}, group["to"]])
    model = "" if names[0].startswith(group["model"]) else f"{group['model']} "
    return f"{model}{names[0]} ~ {names[1]}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _number(value: float | None, digits: int | None = None) -> str:
    return "-" if value is None else f"{value:.4g}" if digits is None else f"{value:.{digits}f}"
