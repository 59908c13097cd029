"""From options to a run: what all commands that explain images have in common."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrsens.cli import console, published
from attrsens.cli.exports import announce, exit_code
from attrsens.engine.gates import check_found
from attrsens.engine.prepare import Prepared
from attrsens.engine.verbs import Interrupted, execute
from attrsens.errors import AttrsensError, OutputError
from attrsens.render import Writer, check_formats, write_file

if TYPE_CHECKING:
    from attrsens.engine.plan import Plan
    from attrsens.engine.report import Report


def go(
    values: dict[str, Any],
    prepare: Callable[..., Prepared],
    show: Callable[[Report, Path], None],
    writes: type[Writer] = Writer,
    after: Callable[[Report, Prepared], None] | None = None,
    /,
    **more: Any,
) -> int:
    """Check, load, run, write, show; returns the exit code.

    Args:
        values: the shared options.
        prepare: the verb's; it is given the request and `more`.
        show: prints the results as data. writes: the files.
        after: adds to a report that is whole, before it is written.
    """
    v = values
    quiet, out, json = v["quiet"], v["out"], v["json"]
    console.set_up_logging(quiet, v["verbose"])
    console.check_file(json)
    formats = [f.strip() for f in v["format"].split(",") if f.strip()]
    check_formats(formats)
    console.check_folder(out)
    if not math.isfinite(v["cache_limit"]):
        raise AttrsensError(f"cache-limit must be a finite number of GB; got {v['cache_limit']}")
    plain = "labels only_correct limit frame arch preprocess classes sha256 offline device precision batch cache_dir"
    request: dict[str, Any] = {name: v[name] for name in plain.split()}
    request |= {
        "images": v["images"] or [],
        "method": v["method"],
        "fail_if": v["fail_if"],
        "target": v["target"] or ["top1"],
        "model": v["model"] or ["lite0"],
        "fold": not v["no_fold"],
        "cache": not v["no_cache"],
        "cache_limit": int(v["cache_limit"] * 1e9),
        **more,
    }
    preset = None
    with console.only_data():
        if v["preset"]:
            request, preset = v["preset"].fitted(request)
        prepared = prepare(**request)
    gc.enable()
    gc.freeze()  # what was imported and loaded need not be looked at again
    if v["plan"]:
        from attrsens.engine.plan import plan_of

        _show_plan(plan_of(prepared), json)
        return 0
    if prepared.config.get("apart") and not quiet:
        from attrsens.engine.plan import plan_of

        told = plan_of(prepared)
        console.note(
            f"plan: {told.cells} maps, {told.cached} of them finished; {told.forward} forward and {told.backward} "
            f"backward passes, about {told.seconds:.0f} s"
        )
    prepared.config.update({"format": formats, "overlay": v["overlay"], "preset": preset})
    writer = writes(out, formats, force=v["force"], overlay=v["overlay"])
    code = 0
    try:
        silent = quiet or v["no_progress"]
        with console.progress(silent, prepared.command) as progress, console.only_data():
            report = execute(prepared, sink=writer.add, progress=progress)
    except Interrupted as stopped:
        report, code = stopped.report, 130
    except AttrsensError as error:
        if error.report:
            with suppress(AttrsensError):
                writer.finish(error.report)
        raise _advised(error, prepared) from None
    try:
        if after and not code:
            with console.only_data():
                after(report, prepared)
    finally:
        _finish(writer, report, prepared)
    _show(report, out, json, quiet, show)
    announce(report, formats, quiet)
    if code:
        console.error(f"interrupted; {len(report.records)} finished results are in {out}")
    else:
        check_found(report, prepared.gates)
    return code or exit_code(report)


def _finish(writer: Writer, report: Report, prepared: Prepared) -> None:
    """Write what belongs to the end; Ctrl-C while figures are drawn leaves the numbers."""
    try:
        writer.finish(report)
    except KeyboardInterrupt:
        report.provenance.interrupted = True
        writer.write_report(report)
        raise
    except AttrsensError as error:
        raise _advised(error, prepared) from None


def _advised(error: AttrsensError, prepared: Prepared) -> AttrsensError:
    """Where results cannot be written, what to try."""
    if not isinstance(error, OutputError):
        return error
    kept = prepared.store is not None and prepared.store.writable
    rest = "what is finished is in the cache, so the next run goes on from there" if kept else "nothing is kept"
    return OutputError(f"{error}; make room or choose another --out; {rest}")


def _show(report: Report, out: Path, json: str | None, quiet: bool, show: Callable[[Report, Path], None]) -> None:
    from attrsens.engine.report import json_parts

    for failure in report.failures:
        named = failure.message if failure.image in failure.message else f"{failure.image}: {failure.message}"
        console.error(f"{failure.stage} failed: {named}")
    if json == "-":
        console.out(b"".join(json_parts(report)).decode(), end="")
    elif json:
        write_file(Path(json), json_parts(report))
    if quiet or json == "-":
        return
    show(report, out)
    if report.config["preset"]:
        published.show(report)
    p = report.provenance
    console.note(
        f"{len(report.records)} maps, {p.cached_cells} from the cache, {p.passes_run.forward} forward and "
        f"{p.passes_run.backward} backward passes, {p.seconds:.1f} s, peak {p.peak_memory_mb or 0:.0f} MB; "
        f"{len(report.skipped)} images left out, {len(report.failures)} failures; report: {out / 'report.html'}"
    )


def _show_plan(plan: Plan, json: str | None) -> None:
    if json:
        console.write_json(asdict(plan), json)
        if json == "-":
            return
    settings = plan.methods if len(plan.methods) < 6 else [f"{len(plan.methods)} settings of {_names(plan.methods)}"]
    rows: dict[str, object] = {
        "images": plan.images,
        "models": plan.models,
        "methods": "; ".join(settings),
        "cells": f"{plan.cells}, {plan.cached} of them finished",
        "forward passes": plan.forward,
        "backward passes": plan.backward,
        "memory": f"{plan.memory_mb:.0f} MB" if plan.memory_mb else "not known",
        "expected time": f"{plan.seconds:.1f} s",
    }
    if plan.sharing:
        rows["without sharing"] = f"maps: {plan.unshared.forward} forward, {plan.unshared.backward} backward"
    for name, value in rows.items():
        console.out(f"{name:<16}{value}")
    for line in plan.sharing:
        console.out(f"{'shared':<16}{line}")


def _names(expressions: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(text.partition(":")[0] for text in expressions))
