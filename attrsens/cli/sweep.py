"""`attrsens sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attrsens.cli import console, options
from attrsens.cli.running import go
from attrsens.engine.prepare_sweep import prepare_sweep
from attrsens.engine.sweep.tables import FLOOR, MEAN, NEIGHBOUR, RESCALED
from attrsens.render.markdown import labels, verdict
from attrsens.render.sweep import SweepWriter
from attrsens.spec import METHODS, SCORES, SIMILARITIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from attrsens.engine.report import Aggregate, Report

PAIRS = 6  # of knobs that are named where verdicts say the same

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
    several, said = len(report.config["model"]) > 1, labels(report)
    if "until" in report.config:
        console.out(f"until {report.config['until']}: {report.config['definition']}")
    for quantity in dict.fromkeys(row.quantity for row in rows):
        console.out(quantity + ("" if "until" in report.config else _over(quantity)))
        for row in rows:
            if row.quantity == quantity:
                console.row(_line(row, several, said[row.group["base"]]))
        console.out("")
    _effects(report)


def _effects(report: Report) -> None:
    """Which knob matters: effects, the largest first, with verdicts; shares; then methods, and metrics as knobs."""
    found, said = report.effects, labels(report)
    kinds = ("knob_effect", "seed_effect", "knob_verdict", "share")
    groups = dict.fromkeys((e.group["model"], e.group["base"]) for e in found if e.kind in kinds)
    for model, base in groups:
        own = [e for e in found if (e.group.get("model"), e.group.get("base")) == (model, base)]
        _knobs(own, said[base], model, said)
    for model in dict.fromkeys(e.group["model"] for e in found if e.kind == "method_rank"):
        console.row(f"whose most effective knob moves its maps most, {model}")
        for e in found:
            if e.kind == "method_rank" and e.group["model"] == model:
                name = said.get(e.method, e.method)
                console.row(f"  {e.rank}. {_measured(e)} {name}, by {e.knob}" if e.rank else f"  -  {name}: {e.reason}")
        _verdicts([e for e in found if e.kind == "method_verdict" and e.group["model"] == model], said)
        console.out("")
    _conventions(found, said)


def _knobs(own: Sequence[Any], label: str, model: str, said: Mapping[str, str]) -> None:
    """One method in one model."""
    known = [e for e in own if e.kind == "knob_effect" and e.effect is not None]
    known.sort(key=lambda e: -e.effect)
    seeds = [e for e in own if e.kind == "seed_effect"]
    if known or seeds or any(e.kind == "knob_effect" for e in own):
        console.row(f"which knob of {label} matters, {model}: effect one step away (0: nothing, 1: another map)")
    for e in [*known, *(e for e in seeds if e.effect is not None)]:
        name = "seed" if e.kind == "seed_effect" else f"{e.knob} (from {e.reference})"
        reach = f"  reaches 0.1 {_reach(e)}" if e.kind == "knob_effect" and e.tolerance else ""
        console.row(f"  {_measured(e)} {name}{reach}{f'  ({e.reason})' if e.reason else ''}")
    for e in own:
        if e.kind in ("knob_effect", "seed_effect") and e.effect is None:
            ways = [("down", e.down), ("up", e.up)] if e.kind == "knob_effect" else []
            sides = [f"{way} {side:.4f}" for way, side in ways if side is not None]
            name = "seed" if e.kind == "seed_effect" else e.knob
            console.row(f"  {'-':>8}  {name}: {', '.join([*sides, e.reason or 'not measured'])}")
    _verdicts([e for e in own if e.kind == "knob_verdict"], said)
    for e in own:
        if e.kind == "share" and e.share is not None:
            console.row(f"  share of variance {e.share:.3f}  {e.knob}")
    console.out("")


def _verdicts(told: Sequence[Any], said: Mapping[str, str]) -> None:
    """What matters more; the pairs that are measured and not separable; those that are not measured."""
    for e in told:
        if e.more:
            console.row(f"  {verdict(e, said)} (p {e.p_holm:.2g})")
    for what, part in (
        ("not separable", [e for e in told if e.verdict and not e.more]),
        ("not compared", [e for e in told if not e.verdict]),
    ):
        for reason in dict.fromkeys(e.reason for e in part):
            pairs = [f"{said.get(e.a, e.a)} and {said.get(e.b, e.b)}" for e in part if e.reason == reason]
            rest = f"; {len(pairs) - PAIRS} more pairs" if len(pairs) > PAIRS else ""
            console.row(f"  {what}, {reason}: {'; '.join(pairs[:PAIRS])}{rest}")


def _conventions(found: Sequence[Any], said: Mapping[str, str]) -> None:
    """Whether the order of methods survives another convention of a metric, and SAM's spreads of scores."""
    ranks = [e for e in found if e.kind == "rank_stability"]
    if ranks:
        console.out("the order of methods under another convention: Kendall's tau (1: the same order)")
    for e in ranks:
        taus = f"of means {_number(e.of_means)}, of mean ranks {_number(e.of_mean_ranks)}"
        inside = f"within images {_number(e.per_image)}, 95 % {_interval(e.ci95)}"
        why = f"  ({e.reason})" if e.reason else ""
        console.row(f"  {e.a} and {e.b}, {e.group['model']}: {taus}, {inside}, n {e.n}{why}")
    for e in found:
        if e.kind == "specification_curve":
            held = f"holds in {e.holds} of {e.of} conventions of {e.group['knob']}, {e.group['model']}"
            console.row(f"  {said.get(e.a, e.a)} better than {said.get(e.b, e.b)}: {held}")
    spreads = [e for e in found if e.kind == "stability"]
    if spreads:
        console.out("spread of scores over the values of a knob: within an image; of the mean over images")
    for e in spreads:
        for model, n in e.n.items():
            inside = f"{_number(e.mean_std[model])} (root mean square {_number(e.rms_std[model])})"
            hidden = f"hidden by the mean {_number(e.hidden[model])}, 95 % {_interval(e.hidden_ci95[model])}"
            where = f"{e.quantity} over {e.knob} of {said[e.group['base']]}, {model}"
            console.row(f"  {where}: {inside}; {_number(e.marginal[model])}; {hidden}, n {n}")


def _measured(e: Any) -> str:
    return f"{_number(e.effect):>8}  95 % {_interval(e.ci95):<20} n {e.n:<4}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _interval(ends: tuple[float, float] | None) -> str:
    return f"{ends[0]:.3g} to {ends[1]:.3g}" if ends else "-"


def _reach(effect: Any) -> str:
    """How far from the reference the effect is no longer small."""
    unit = "octaves" if effect.scale == "ratio" else "steps"
    far = effect.tolerance.at is None
    return f"beyond {effect.tolerance.beyond:g} {unit}" if far else f"at {effect.tolerance.text} {unit}"


def _over(quantity: str) -> str:
    name = quantity.removesuffix(MEAN).partition(":")[0]
    return ", to the reference" if name in SIMILARITIES and not quantity.endswith(MEAN) else ""


def _line(row: Aggregate, several: bool, label: str) -> str:
    interval = _interval(row.ci95)
    mean = "-" if row.mean is None else f"{row.mean:.4g}"
    model = f"{row.group['model']}  " if several else ""
    if "until" in row.group:
        return f"  {mean:>8}  95 % {interval:<20} n {row.n:<4} {model}{label}"
    told = ", ".join(f"{k}={v}" for k, v in row.group.get("parameters", {}).items())
    told = told or ("over " + ", ".join(row.group["knobs"]) if "knobs" in row.group else "reference")
    star = " *" if row.group.get("reference") and told != "reference" else ""
    return f"  {mean:>8}  95 % {interval:<20} n {row.n:<4} {model}{label}  {told}{star}"
