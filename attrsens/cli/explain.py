"""`attrsens explain`."""

from __future__ import annotations

import gc
import math
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrsens.cli import console, options
from attrsens.engine.store import DEFAULT_LIMIT
from attrsens.engine.verbs import Interrupted, execute, prepare
from attrsens.errors import AttrsensError
from attrsens.render import Writer, check_formats, write_file

if TYPE_CHECKING:
    from attrsens.engine.plan import Plan
    from attrsens.engine.report import Report


@options.with_method_flags
def explain(
    images: options.Images = None,
    method: options.Methods = None,
    target: options.Target = None,
    labels: options.Labels = None,
    only_correct: options.OnlyCorrect = False,
    limit: options.Limit = None,
    frame: options.Frame = None,
    model: options.Model = None,
    arch: options.Arch = None,
    preprocess: options.PreprocessOption = None,
    classes: options.Classes = None,
    sha256: options.Sha256 = None,
    offline: options.Offline = False,
    device: options.Device = "auto",
    precision: options.Precision = "fp32",
    no_fold: options.NoFold = False,
    batch: options.Batch = "auto",
    plan: options.PlanOnly = False,
    cache_dir: options.CacheDir = None,
    cache_limit: options.CacheLimit = DEFAULT_LIMIT / 1e9,
    no_cache: options.NoCache = False,
    out: options.Out = Path("attrsens-out"),
    json: options.Json = None,
    format: options.Formats = "png",
    overlay: options.Overlay = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    no_progress: options.NoProgress = False,
    debug: options.Debug = False,
    *,
    flags: dict[str, str],
) -> int:
    """One heatmap per image, model, target and method.

    attrsens explain img.jpg --method sg --n 50
    """
    console.set_up_logging(quiet, verbose)
    console.check_file(json)
    formats = [f.strip() for f in format.split(",") if f.strip()]
    check_formats(formats)
    console.check_folder(out)
    if not math.isfinite(cache_limit):
        raise AttrsensError(f"cache-limit must be a finite number of GB; got {cache_limit}")
    request: dict[str, Any] = {
        "images": images or [],
        "method": method,
        "target": target or ["top1"],
        "labels": labels,
        "only_correct": only_correct,
        "limit": limit,
        "frame": frame,
        "model": model or ["lite0"],
        "arch": arch,
        "preprocess": preprocess,
        "classes": classes,
        "sha256": sha256,
        "offline": offline,
        "device": device,
        "precision": precision,
        "fold": not no_fold,
        "batch": batch,
        "cache": not no_cache,
        "cache_dir": cache_dir,
        "cache_limit": int(cache_limit * 1e9),
        **flags,
    }
    with console.only_data():
        prepared = prepare(**request)
    gc.enable()
    gc.freeze()  # what was imported and loaded need not be looked at again
    if plan:
        from attrsens.engine.plan import plan as make_plan

        _show_plan(make_plan(prepared.request, prepared.store), json)
        return 0
    prepared.config.update({"format": formats, "overlay": overlay})
    writer = Writer(out, formats, force=force, overlay=overlay)
    code = 0
    try:
        with console.progress(quiet or no_progress, "explain") as progress, console.only_data():
            report = execute(prepared, sink=writer.add, progress=progress)
    except Interrupted as stopped:
        report, code = stopped.report, 130
    except AttrsensError as error:
        if error.report:
            with suppress(AttrsensError):
                writer.finish(error.report)
        raise
    writer.finish(report)
    _show(report, out, json, quiet)
    if code:
        console.error(f"interrupted; {len(report.records)} finished results are in {out}")
    return code or (3 if report.failures else 0)


def _show(report: Report, out: Path, json: str | None, quiet: bool) -> None:
    from attrsens.engine.report import to_json

    for failure in report.failures:
        named = failure.message if failure.image in failure.message else f"{failure.image}: {failure.message}"
        console.error(f"{failure.stage} failed: {named}")
    if json == "-":
        console.out(to_json(report).decode(), end="")
    elif json:
        write_file(Path(json), to_json(report))
    if quiet or json == "-":
        return
    for record in report.records:
        t = record.target
        where = out / record.heatmap.png if record.heatmap.png else out / "report.json"
        label = t.label if t.label else "class"
        console.out(f"{where}\t{record.method.title}\t{label} ({t.index})\t{t.probability:.3f}")
    p = report.provenance
    console.note(
        f"{len(report.records)} maps, {p.cached_cells} from the cache, {p.passes_run.forward} forward and "
        f"{p.passes_run.backward} backward passes, {p.seconds:.1f} s, peak {p.peak_memory_mb or 0:.0f} MB; "
        f"{len(report.skipped)} images left out, {len(report.failures)} failures; report: {out / 'report.json'}"
    )


def _show_plan(plan: Plan, json: str | None) -> None:
    if json:
        console.write_json(asdict(plan), json)
        if json == "-":
            return
    rows = {
        "images": plan.images,
        "models": plan.models,
        "methods": "; ".join(plan.methods),
        "cells": f"{plan.cells}, {plan.cached} of them finished",
        "forward passes": plan.forward,
        "backward passes": plan.backward,
        "memory": f"{plan.memory_mb:.0f} MB" if plan.memory_mb else "not known",
        "expected time": f"{plan.seconds:.1f} s",
    }
    for name, value in rows.items():
        console.out(f"{name:<16}{value}")
