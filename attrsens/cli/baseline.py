"""`--baseline`: options, and what a command does with them between the run and the writing of its report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attrsens.cli import console
from attrsens.engine.gates import whose
from attrsens.errors import AttrsensError

if TYPE_CHECKING:
    from attrsens.engine.prepare import Prepared
    from attrsens.engine.report import Report

PANEL = "Baseline"
BaselineOption = Annotated[
    Path | None,
    typer.Option(
        "--baseline",
        metavar="REPORT.json",
        help="Earlier report: did explanations or predictions move since? Exit 1 if they did. (A method takes its own "
        "baseline by expression: ig:baseline=white.)",
        rich_help_panel=PANEL,
    ),
]
MarginOption = Annotated[
    float | None,
    typer.Option(
        "--margin",
        metavar="X",
        help="Mean change that is none: relative L2 of maps, probability, share of changed top classes. "
        "Default: what other seeds, threads and folding do, measured on up to 8 images.",
        rich_help_panel=PANEL,
    ),
]
UpdateOption = Annotated[
    bool,
    typer.Option("--update", help="Accept this run: write it, slimmed, as the baseline.", rich_help_panel=PANEL),
]


def check_options(path: Path | None, margin: float | None, update: bool) -> None:
    """Before any work: the baseline can be read, or made.

    Raises:
        AttrsensError: it cannot; or --margin or --update without --baseline.
    """
    from attrsens.engine import baseline

    if path is None:
        if margin is not None or update:
            raise AttrsensError(f"{'margin' if margin is not None else 'update'} goes with --baseline REPORT.json")
        return
    baseline.check_margin(margin)
    baseline.prior(path, update)
    if update:
        console.check_file(str(path))


def checked(
    path: Path | None, margin: float | None, update: bool, quiet: bool
) -> Callable[[Report, Prepared], None] | None:
    """`check_options`, and what to do after the run; None without a baseline."""
    check_options(path, margin, update)
    if path is None:
        return None
    return lambda report, prepared: add_baseline(report, path, margin, update, prepared, quiet)


def show(report: Report) -> None:
    """A line a row: mean change, interval, images, margin, verdict, of what, and why."""
    rows = [c for c in report.comparisons if c.verdict is not None]
    if not rows:
        return
    console.out("since the baseline: mean change, 95 % interval, images, margin, verdict")
    for c in rows:
        mean = "-" if c.difference is None else f"{c.difference:.3g}"
        interval = f"{c.ci95[0]:.3g} to {c.ci95[1]:.3g}" if c.ci95 else "-"
        name = c.quantity.removeprefix("baseline.")
        line = f"  {mean:>8}  95 % {interval:<20} n {c.n:<4} margin {c.margin:<8.3g} {c.verdict:<12} {name:<12} "
        console.row(line + whose(c.b | {"report": None}) + (f" ({c.reason})" if c.reason else ""))
    console.out("")


def add_baseline(
    report: Report,
    path: Path,
    margin: float | None = None,
    update: bool = False,
    prepared: Prepared | None = None,
    quiet: bool = False,
) -> None:
    """Compare with the baseline and add what was found to the report, before it is written; say it on stderr.

    Args:
        update: write the report, slimmed, over the baseline instead of failing gates.
        prepared: what was run, to measure the noise floor where no margin is given.

    Raises:
        AttrsensError: the baseline cannot be read; with `update`, the run is no whole one.
        OutputError: the baseline cannot be written.
    """
    from attrsens.engine import baseline
    from attrsens.engine.compute import Tally
    from attrsens.engine.floor import noise_floor
    from attrsens.render import write_file

    say = (lambda text: None) if quiet else console.note
    old = baseline.prior(path, update)
    slimmed = baseline.slim(report) if update else b""
    if old:
        floor, tally = [], Tally()
        if margin is None and prepared:
            floor = noise_floor(prepared.request, report.records, prepared.store, tally)
        report.provenance.passes_run.forward += tally.passes.forward
        report.provenance.passes_run.backward += tally.passes.backward
        found = baseline.check(report, old, margin, floor, gate=not update)
        say(f"since the baseline: explanations {found.explanations}, predictions {found.predictions}")
        if gone := report.config["baseline"]["only_in_baseline"]:
            say(f"{len(gone)} records of the baseline have no counterpart in this run, the first of them: {gone[0]}")
        if "moved" in (found.explanations, found.predictions):
            named = "; ".join(found.causes) or "nothing that the reports record differs"
            say(f"differs between the runs: {named}")
    if update:
        write_file(path, slimmed)
        say(f"baseline {path}: {len(slimmed) / 1000:.0f} kB, {len(report.records)} records")
