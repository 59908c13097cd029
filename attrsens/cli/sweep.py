"""`attrsens sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attrsens.cli import console, options
from attrsens.cli.running import go
from attrsens.engine.prepare_sweep import prepare_sweep
from attrsens.engine.sweep.tables import FLOOR, MEAN, NEIGHBOUR, RESCALED
from attrsens.render.sweep import SweepWriter
from attrsens.spec import METHODS, SCORES, SIMILARITIES

if TYPE_CHECKING:
    from attrsens.engine.report import Aggregate, Report

Parameter = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        metavar="NAME|OWNER.NAME|all",
        help="Knob to vary: of the method (patch_size), a wrapper (smooth.radius) or a metric (deletion.fill); "
        "repeatable: every combination. all: each knob of the method by itself.",
        autocompletion=options.names(lambda: ["all", *METHODS.parameters()]),
    ),
]
Values = Annotated[
    list[str] | None,
    typer.Option(
        "--values",
        metavar="LIST|FROM:TO[:STEP]|log:FROM:TO:COUNT",
        help="Values of each --param in turn. Default: the published sweep.",
    ),
]
Reference = Annotated[
    list[str] | None,
    typer.Option(
        "--reference",
        metavar="VALUE",
        help="Of each --param in turn, one of its values. Default: the published reference, else the first.",
    ),
]
Apart = Annotated[
    bool,
    typer.Option(
        "--apart",
        help="Each --param by itself, an octave both ways or every choice, as with all, instead of every combination.",
    ),
]
Draws = Annotated[
    str,
    typer.Option(
        "--draws",
        metavar="disjoint|nested",
        help="disjoint: the reference has draws of its own; nested: all settings share theirs, as published sweeps do.",
    ),
]
Replicates = Annotated[
    int | None,
    typer.Option(
        "--replicates",
        metavar="N",
        help="Draws of every setting; effects of methods that draw need two. Default: 1; with all or --apart: 2.",
    ),
]
Span = Annotated[
    int, typer.Option("--span", metavar="OCTAVES", help="Of --param all and --apart: how far each way, at most 8.")
]
Shares = Annotated[
    int,
    typer.Option(
        "--shares",
        metavar="N",
        help="Also each knob's share of variance over its range in use, from N base points (N x (1 + knobs) settings). "
        "Default: 0, none.",
        show_default=False,
    ),
]
Until = Annotated[
    str | None,
    typer.Option(
        "--until",
        metavar="SIMILARITY=X|SCORE.width=X",
        help="Instead of a sweep: sample every image until the maps of two halves agree (ssim=0.95), or the interval "
        "of a score's mean over draws is this wide (gini.width=0.02).",
    ),
]
Most = Annotated[int, typer.Option("--most", metavar="N", help="Of --until: draws of a half at which it ends anyway.")]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metrics",
        metavar="NAME,...|NAME:PARAM=VALUE,...",
        help="Similarities to the reference, and scores of every map; repeatable. Default: spearman,hog,ssim.",
        autocompletion=options.names(lambda: [*SCORES, *SIMILARITIES]),
    ),
]
Calibrate = Annotated[
    bool | None,
    typer.Option(
        "--calibrate/--no-calibrate",
        help="--calibrate: also floors and ceilings that need further maps; --no-calibrate: none of scores.",
        show_default=False,
    ),
]


@options.runs(metrics=True)
def sweep(
    values: dict[str, Any],
    flags: options.Flags,
    metric_flags: dict[str, options.Flags],
    param: Parameter = None,
    values_: Values = None,
    reference: Reference = None,
    apart: Apart = False,
    draws: Draws = "disjoint",
    replicates: Replicates = None,
    span: Span = 1,
    shares: Shares = 0,
    until: Until = None,
    most: Most = 1024,
    metrics: Metrics = None,
    annotations: options.AnnotationsOption = None,
    calibrate: Calibrate = None,
) -> int:
    """Hyperparameters varied: how far maps and their scores move, and which knob matters.

    attrsens sweep img.jpg --param patch_size
    attrsens sweep img.jpg --method mp --param all
    """
    more: dict[str, Any] = {"param": param or [], "values": values_ or [], "reference": reference or []}
    more |= {
        "apart": apart,
        "draws": draws,
        "replicates": replicates,
        "span": span,
        "shares": shares,
        "metrics": metrics,
    }
    more |= {"until": until, "most": most}
    more |= {"metric_parameters": metric_flags, "annotations": annotations, "calibrate": calibrate}
    return go(values, prepare_sweep, _show, SweepWriter, None, **more, **flags)


def _show(report: Report, out: Path) -> None:
    """A table a quantity: setting by setting, the means over them; then which knob matters."""
    rows = [row for row in report.aggregates if not row.quantity.endswith((RESCALED, NEIGHBOUR, FLOOR))]
    several = len(report.config["model"]) > 1
    if "until" in report.config:
        console.out(f"until {report.config['until']}: {report.config['definition']}")
    for quantity in dict.fromkeys(row.quantity for row in rows):
        console.out(quantity + ("" if "until" in report.config else _over(quantity)))
        for row in rows:
            if row.quantity == quantity:
                console.row(_line(row, several))
        console.out("")
    _effects(report)


def _effects(report: Report) -> None:
    """Which knob matters: effects, the largest first, with verdicts; shares; what was not measured."""
    found = report.effects
    groups = list(
        dict.fromkeys((e.group.get("model"), e.group.get("method")) for e in found if e.kind == "knob_effect")
    )
    for group in groups:
        own = [e for e in found if (e.group.get("model"), e.group.get("method")) == group]
        known = [e for e in own if e.kind == "knob_effect" and e.effect is not None]
        known.sort(key=lambda e: -e.effect)
        seeds = [e for e in own if e.kind == "seed_effect"]
        console.out(f"which knob of {group[1]} matters, {group[0]}: effect one step away (0: nothing, 1: another map)")
        for e in [*known, *seeds]:
            name = "seed" if e.kind == "seed_effect" else f"{e.knob} (from {e.reference})"
            reach = f"  reaches 0.1 {_reach(e)}" if e.kind == "knob_effect" and e.tolerance else ""
            interval = f"{e.ci95[0]:.3g} to {e.ci95[1]:.3g}" if e.ci95 else "-"
            value = "-" if e.effect is None else f"{e.effect:.4f}"
            console.row(f"  {value:>8}  95 % {interval:<20} n {e.n:<4} {name}{reach}")
        for e in own:
            if e.kind == "knob_effect" and e.effect is None:
                sides = [f"{way} {side:.4f}" for way, side in (("down", e.down), ("up", e.up)) if side is not None]
                console.row(f"         -  {e.knob}: {', '.join([*sides, e.reason or 'not measured'])}")
        for e in own:
            if e.kind == "knob_verdict" and e.more:
                console.row(f"  {e.verdict}")
        told = [e for e in own if e.kind == "knob_verdict"]
        if told and not any(e.more for e in told):
            console.out(
                f"  no two of them are separable ({told[0].reason or 'the intervals of their differences hold 0'})"
            )
        for e in own:
            if e.kind == "share" and e.share is not None:
                console.row(f"  share of variance {e.share:.3f}  {e.knob}")
        console.out("")
    for e in found:
        if e.kind == "method_rank" and e.rank:
            console.row(f"  {e.rank}. {e.method}: largest effect {e.effect:.4f}, of {e.knob}")
        if e.kind == "specification_curve":
            console.row(f"  {e.text} of {e.group['knob']}")


def _reach(effect: Any) -> str:
    """How far from the reference the effect is no longer small."""
    unit = "octaves" if effect.scale == "ratio" else "steps"
    far = effect.tolerance.at is None
    return f"beyond {effect.tolerance.beyond:g} {unit}" if far else f"at {effect.tolerance.text} {unit}"


def _over(quantity: str) -> str:
    name = quantity.removesuffix(MEAN).partition(":")[0]
    return ", to the reference" if name in SIMILARITIES and not quantity.endswith(MEAN) else ""


def _line(row: Aggregate, several: bool) -> str:
    interval = f"{row.ci95[0]:.3g} to {row.ci95[1]:.3g}" if row.ci95 else "-"
    mean = "-" if row.mean is None else f"{row.mean:.4g}"
    model = f"{row.group['model']}  " if several else ""
    if "until" in row.group:
        return f"  {mean:>8}  95 % {interval:<20} n {row.n:<4} {model}{row.group['method']}"
    told = ", ".join(f"{k}={v}" for k, v in row.group.get("parameters", {}).items())
    told = told or ("over " + ", ".join(row.group["knobs"]) if "knobs" in row.group else "reference")
    star = " *" if row.group.get("reference") and told != "reference" else ""
    return f"  {mean:>8}  95 % {interval:<20} n {row.n:<4} {model}{row.group['method']}  {told}{star}"
