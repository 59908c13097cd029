"""`attrsens doctor`."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from attrsens.cli import console, options

if TYPE_CHECKING:
    from attrsens.engine.diagnosis import Diagnosis


def doctor(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name or file, as for --model.")] = "lite0",
    arch: options.Arch = None,
    preprocess: options.PreprocessOption = None,
    classes: options.Classes = None,
    sha256: options.Sha256 = None,
    offline: options.Offline = False,
    device: options.Device = "auto",
    cache_dir: options.CacheDir = None,
    no_cache: options.NoCache = False,
    json: options.JsonList = None,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> int:
    """Can this model be explained, by which methods, and why not.

    attrsens doctor checkpoint.pt --arch resnet50
    """
    from attrsens.images import Preprocess
    from attrsens.models import zoo
    from attrsens.models.devices import check_device
    from attrsens.models.labels import load_labels

    console.set_up_logging(quiet, verbose)
    console.check_file(json)
    check_device(device)
    zoo.check_name(model, arch)
    if preprocess:
        Preprocess().updated(preprocess)
    if classes:
        load_labels(classes)
    if sha256 is not None:
        zoo.check_sha256(sha256)
    from attrsens.engine.doctor import doctor as examine

    gc.enable()
    with console.only_data():
        found = examine(
            model,
            arch=arch,
            preprocess=preprocess,
            classes=classes,
            sha256=sha256,
            device=device,
            offline=offline,
            cache=not no_cache,
            cache_dir=cache_dir,
            step=console.steps("doctor", quiet),
        )
    if json:
        console.write_json(found, json)
    if json != "-":
        show(found)
    return 0


def show(found: Diagnosis, out: Callable[[str], None] = console.out) -> None:
    """The diagnosis as text, line by line; by default on stdout."""
    m, p = found.model, found.model.preprocess
    out(f"model        {m.name}  ({m.id})")
    if m.source:
        out(f"file         {m.source}")
    out(f"sha256       {m.sha256 or 'none: a module in memory'}")
    out(f"architecture {m.architecture}, {m.parameters:,} parameters; {'; '.join(m.layout)}")
    numbers = {k: ", ".join(f"{v:g}" for v in p[k]) for k in ("mean", "std")}
    steps = f"resize {p['resize']}{' squashed' if p['squash'] else ''}, crop {p['crop']}, {p['interp']}"
    out(f"input        {steps}, mean {numbers['mean']}, std {numbers['std']}{', clamped' if p['clamp'] else ''}")
    names = f"{m.class_names[0]}, {m.class_names[1]}, ..." if m.class_names and len(m.class_names) > 1 else "no names"
    out(f"classes      {m.classes or 'unknown'} ({names})")
    _show_network(found, out)
    _show_numerics(found, out)
    out("")
    for name, lines in (("PROBLEM", found.problems), ("note", found.notes)):
        for line in lines:
            out(f"{name:<12} {line}")
    if not found.problems:
        out("no problem found")
    out("")
    width = max(len(v.method) for v in found.methods)
    for v in found.methods:
        passes = "" if v.forward is None else f"{v.forward:>6} F {v.backward:>6} B"
        seconds = "" if v.seconds is None else f"{v.seconds:>8.1f} s"
        verdict = "works" if v.works else "no"
        out(f"{v.method:<{width}}  {verdict:<6}{passes:<18}{seconds:<11}{v.reason or ''}".rstrip())


def _show_network(found: Diagnosis, out: Callable[[str], None]) -> None:
    census, sanity = found.census, found.sanity
    if census:
        relus = f"{census.relus} ReLU calls ({census.functional} functional, {census.in_place} in place, "
        relus += f"{len(census.reused)} modules reused)" if census.relus else ""
        others = ", ".join(f"{n} {name}" for name, n in (census.others | census.attention | census.pools).items())
        calls = f"{relus if census.relus else 'no ReLU'}{'; ' + others if others else ''}"
        out(f"calls        {calls}; returns a {census.output}")
    if found.batch_difference is not None:
        same = "repeats to the bit" if found.repeatable else "does NOT repeat"
        out(
            f"mode         eval; {same}; others in the batch move logits by {found.batch_difference:.1e} of their range"
        )
    if found.gradients:
        out(f"gradients    {found.gradients.state}; at most {found.gradients.zeros:.1%} of an image's are exactly zero")
    for r in sanity.readings if sanity else ():
        parts = [] if r.divergence is None else [f"KL(pictures | first BatchNorm) {r.divergence:.3f} nats"]
        if sanity and r.log_probability is not None:
            parts.append(f"{r.right} of {sanity.pictures} pictures right, mean log-probability {r.log_probability:.2f}")
        if parts:
            out(f"{'trained on' if r is sanity.readings[0] else '':<12} {r.name}: {'; '.join(parts)}")  # type: ignore[union-attr]


def _show_numerics(found: Diagnosis, out: Callable[[str], None]) -> None:
    if found.form:
        form = found.form
        left = f", {len(form.left)} left" if form.left else ""
        out(f"form         {form.folded} BatchNorms folded{left}; {form.memory_layout} memory order")
    if found.speed:
        s = found.speed
        kinds = (("forward", s.forward, s.floor_forward), ("with gradient", s.gradient, s.floor_gradient))
        known = ((kind, ours, best) for kind, ours, best in kinds if ours and best)
        rates = ", ".join(f"{ours:.1f} passes a second {kind} (floor {best:.1f})" for kind, ours, best in known)
        out(f"speed        {rates}")
    for i, move in enumerate(found.noise_floor):
        head = "noise floor" if i == 0 else ""
        if move.l2 is None or move.cosine is None or move.spearman is None:
            out(f"{head:<12} {move.change}: {move.reason}")
        else:
            out(
                f"{head:<12} {move.change}: relative L2 {move.l2:.1e}, 1 - cosine {move.cosine:.1e}, "
                f"1 - Spearman {move.spearman:.1e}"
            )
