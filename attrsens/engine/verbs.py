"""The commands as functions: the Python API, and what the command line calls."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

from attrsens.engine import gates
from attrsens.engine.compute import Tally
from attrsens.engine.inputs import printable
from attrsens.engine.prepare import Prepared, prepare, prepare_score
from attrsens.engine.prepare_attack import prepare_attack
from attrsens.engine.prepare_compare import prepare_compare
from attrsens.engine.prepare_sweep import prepare_sweep
from attrsens.engine.report import Aggregate, Comparison, PassInfo, Provenance, Record, Report
from attrsens.engine.run import Result, Sink, run
from attrsens.engine.stats import aggregates
from attrsens.engine.throughput import peak_memory
from attrsens.engine.together import width_of
from attrsens.errors import AttrsensError

if TYPE_CHECKING:
    import torch

    from attrsens.engine.judge import Judge
    from attrsens.engine.sweep.mover import Mover
    from attrsens.models.classifier import Classifier

Progress = Callable[[int, int, int], None]
PACKAGES = ("attrsens", "torch", "torchvision", "numpy", "scipy", "pillow", "safetensors")


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run; `report` holds what was finished."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report


def explain(images: Any = (), **options: Any) -> Report:
    """Heatmaps of images.

    Args:
        images: paths, folders, patterns, "sample:NAME", "FILE.npz", uint8 arrays (H, W, 3) or Pillow images; one or a
            list. Nothing means the first packaged sample.
        model: name, file, `Classifier`, or several of them.
        method: method expressions such as "sg:n=50"; without any, the method that has the parameters given, else grad.
        target: "top1", "true", a class index or name, or several of them.
        labels: "folders" or a csv file of (file, class); npz archives carry their own.
        only_correct: leave out images whose top-1 is not their label.
        arch, preprocess, classes, sha256: for models from files (see `attrsens.load`).
        device, precision, fold, batch: how passes are run (see `Classifier`).
        limit: use only the first images. frame: of animated files.
        offline: never download weights.
        cache, cache_dir, cache_limit: the store of finished results.
        fail_if: conditions such as "gini<0.5" on the aggregates, which `score` has; outcomes are in `report.gates`.
        **parameters: of the methods, such as n=50; each goes to every method that has it.

    Returns:
        The report; `report.attributions` holds the maps in the order of `report.records`.

    Raises:
        AttrsensError: unknown names, bad values, missing files, models that cannot be loaded: before any work.
        Interrupted: Ctrl-C; it carries the report of what was finished.
    """
    return execute(prepare(images, **options))


def score(images: Any = (), **options: Any) -> Report:
    """Scores of explanations: faithfulness, localisation, sensitivity, sparseness, randomisation.

    Args:
        images, and all other options of `explain`.
        metrics: score and similarity expressions, or comma lists of names; without any, insertion, deletion, srg, gini,
            and with annotations pointing, eg, loc and wsl.
        metric_parameters: parameters by metric, for expressions that do not give them: {"deletion": {"fill": "black"}}.
        annotations: COCO JSON, PASCAL VOC XML (a file or a folder), or a folder of mask PNGs.
        calibrate: floors and ceilings beside the scores: True for all, False for none; by default for those that need
            no pass of their own.

    Returns:
        The report; `records[i].scores` by expression, `aggregates` over images.

    Raises:
        AttrsensError, Interrupted: as `explain`.
    """
    return execute(prepare_score(images, **options))


def compare(images: Any = (), **options: Any) -> Report:
    """Who agrees with whom: methods, models, and inputs with and without noise or an object, on the same images.

    All models explain the same class of an image; `top1` is the first model's, on the unchanged image, also where a
    changed input or another model shows another one.

    Args:
        images, and all other options of `explain`.
        noise: sds of Gaussian noise on the pixels (see `engine.changes.Change`); the input without it is always there.
            noise_at: crop (what the model sees) or picture (at its own size, in 8 bits).
        erase: a mask PNG for all images, or a folder of masks named as they are: everything is repeated without what
            it marks. fill: what stands there instead: mean, black, grey, white or blur.
        metrics, metric_parameters, annotations: as for `score`; without any, spearman, hog, ssim and sign_agreement.
        calibrate: False: only those floors of similarities that need no pass.

    Returns:
        The report: `records[i].similarities` to every later map of its image and class, `aggregates` over images of
        every pair, `comparisons` of models, methods and inputs.

    Raises:
        AttrsensError, Interrupted: as `explain`.
    """
    return execute(prepare_compare(images, **options))


def attack(images: Any = (), **options: Any) -> Report:
    """How far an explanation can be moved while the prediction stays, and where the nearest decision boundary is.

    Args:
        images, and all other options of `explain`, but that methods take their parameters by expression.
        kind: an attack; see `ATTACKS`.
        attack: its parameters: {"eps": [2 / 255, 8 / 255], "steps": 100}; several eps give a curve and its area.
        metrics, metric_parameters: similarities of the attacked maps to the clean ones.
        lpips_backbone: a file of torchvision's VGG16 weights, for the score lpips; lpips_range: "11" or, as SMO, "01".

    Returns:
        The report: after every clean record those of its attacks, with `attack`, the scores that the claim rests on and
        noise of the same norm as their floor; `aggregates` over images, `comparisons` of methods, models and noise.

    Raises:
        AttrsensError, Interrupted: as `explain`.
    """
    return execute(prepare_attack(images, **options))


def sweep(images: Any = (), **options: Any) -> Report:
    """Hyperparameters varied: how far maps and their scores move, and which knob matters.

    Args:
        images, and all other options of `explain`.
        param: knobs: "patch_size", "smooth.radius", "deletion.fill", several for every combination of their values; or
            "all": every knob of the method, one at a time, an octave both ways.
        values: of each knob in turn, "5,17,29", "1:10", "1:10:2", "log:1:1000:7"; without any, the published sweep.
        reference: of each knob in turn, one of its values: what the others are held against.
        apart: each knob by itself, as with "all", instead of every combination.
        draws: "disjoint": the reference has draws of its own; "nested": all settings share theirs.
        replicates: draws of every setting, 2 for "all", else 1; effects of methods that draw need two.
        span: octaves (tenths of a bounded span) each way, for "all".
        until: "ssim=0.95" (of the maps of two halves of a sample) or "gini.width=0.02" (of the interval of a score's
            mean over draws): sample every image until then, instead of a sweep; `most` draws (of a half) end it anyway.
        shares: base points of a design for the knobs' shares of variance; 0 for none.
        metrics, metric_parameters, annotations: as for `score`; without any, spearman, hog and ssim.
        calibrate: True: also floors and ceilings that need further maps.

    Returns:
        The report: `records[i].swept` says where in the sweep a map stands, `records[i].similarities` hold it against
        the reference and its neighbour, `aggregates` are rows over images, `effects` what science calls the effect of a
        knob.

    Raises:
        AttrsensError, Interrupted: as `explain`.
    """
    return execute(prepare_sweep(images, **options))


def execute(prepared: Prepared, *, sink: Sink | None = None, progress: Progress | None = None) -> Report:
    """Run a prepared request.

    Args:
        sink: is handed the results of each image as they are ready, instead of the report's `attributions`.
        progress: called with (images x models done, all of them, passes made) after every batch.

    Raises:
        Interrupted: Ctrl-C; it carries the report of what was finished.
        AttrsensError: the sink could not take a result; `report` holds what was finished before.
    """
    request = prepared.request
    tally = Tally()
    judge: Judge | None = None
    if prepared.judging:
        from attrsens.engine.judge import Judge

        judge = Judge(prepared.judging, partial(width_of, request), prepared.store, tally)
    parts = run(request, prepared.store, tally, judge)
    size = len(request.views) if prepared.judging and prepared.judging.across else 1  # views whose maps are compared
    total = len(request.sources) * len(request.views) // size
    mover: Mover | None = None
    if judge and prepared.sweep and prepared.sweep.goal:
        from attrsens.engine.sweep.until import Sampler

        sampler = Sampler(judge, prepared.sweep.goal, prepared.sweep.counted, prepared.store, tally)
        parts = run(replace(request, sample=sampler.calls), prepared.store, tally, sampler)
    elif judge and prepared.sweep:
        from attrsens.engine.sweep.mover import Mover

        mover = Mover.around(judge, prepared.sweep)
        parts = run(request, prepared.store, tally, mover)
    elif judge and prepared.attacks:
        from attrsens.engine.attack import Attacker

        attacker = Attacker.around(prepared, tally)
        parts = attacker.grouped(run(request, prepared.store, tally, attacker), request.classifiers)
    elif judge:
        from attrsens.engine.compare import Comparer

        comparer = Comparer.around(judge)
        parts = comparer.grouped(run(request, prepared.store, tally, comparer), size)
    planned: PassInfo | None = None
    if prepared.attacks or (prepared.sweep and not prepared.sweep.goal):
        from attrsens.engine.plan import plan, plan_of

        whole = prepared.attacks
        expected = plan_of(prepared, timed=False) if whole else plan(request, prepared.store, timed=False)
        planned = PassInfo(expected.forward, expected.backward)
    results: list[Result] = []
    records = []
    done, passes = 0, 0
    stopped: KeyboardInterrupt | AttrsensError | None = None

    def tick(images: int) -> None:
        nonlocal passes
        passes += images
        if progress:
            progress(done, total, passes)

    for classifier in request.classifiers:
        classifier.on_batch(tick)
    try:
        for part in parts:
            if sink:
                sink(part)
            else:
                results += part
            records += [record for record, _ in part]
            done += 1
            tick(0)
    except (KeyboardInterrupt, AttrsensError) as error:
        stopped = error
    finally:
        for classifier in request.classifiers:
            classifier.on_batch(None)
    if prepared.store:
        prepared.store.trim()
    provenance = Provenance(
        versions=versions(),
        weights={c.id: c.sha256 or "" for c in request.classifiers},
        device=device_name(request.classifiers[0].device),
        threads=threads(),
        argv=[printable(word) for word in sys.argv],
        started=prepared.started.isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - prepared.begin, 3),
        cached_cells=tally.cached_cells,
        damaged_cells=prepared.store.damaged if prepared.store else 0,
        passes_run=PassInfo(tally.passes.forward, tally.passes.backward),
        peak_memory_mb=peak_memory(request.classifiers),
        passes_planned=planned,
        interrupted=stopped is not None,
    )
    rows: list[Aggregate] = []
    comparisons: list[Comparison] = []
    effects: list[Any] = []
    try:
        rows, comparisons = _tables(prepared, records)
        if prepared.sweep and mover:
            from attrsens.engine.sweep.findings import findings

            effects = findings(prepared.sweep, mover.grams, records, distinct(request.classifiers))
    except KeyboardInterrupt as error:  # the results are there, without what is said of them together
        stopped = stopped or error
        provenance.interrupted = True
    report = Report(
        prepared.command,
        prepared.config,
        records,
        tally.failures,
        provenance,
        skipped=tally.skipped,
        aggregates=rows,
        comparisons=comparisons,
        effects=effects,
        attributions=[attribution for _, attribution in results],
    )
    gates.judge(report, prepared.gates)
    if isinstance(stopped, AttrsensError):
        stopped.report = report
        raise stopped
    if stopped:
        raise Interrupted(report)
    return report


def _tables(prepared: Prepared, records: list[Record]) -> tuple[list[Aggregate], list[Comparison]]:
    """The rows over images."""
    names = distinct(prepared.request.classifiers)
    if prepared.sweep and prepared.sweep.goal:
        from attrsens.engine.sweep.until import enough

        return enough(prepared.sweep.goal, records, [base for base, _ in prepared.sweep.counted], names), []
    if prepared.sweep:
        from attrsens.engine.sweep.tables import Tables as Sweeps

        swept = Sweeps(records, prepared.sweep, names)
        return swept.aggregates(), swept.comparisons()
    if prepared.attacks:
        from attrsens.engine.attack_tables import Tables as Attacks

        attacked = Attacks(records, names)
        return attacked.aggregates(), attacked.comparisons()
    if prepared.judging and prepared.judging.across:
        from attrsens.engine.agreement import Tables

        tables = Tables(records, prepared.request.calls[0].expression)
        return tables.aggregates(), tables.comparisons()
    return (aggregates(records) if prepared.judging else []), []


def distinct(classifiers: Sequence[Classifier]) -> dict[str, str]:
    """What models are called in rows, by id: their names; where two share one, their ids."""
    names = [c.name for c in classifiers]
    return {c.id: c.name if names.count(c.name) == 1 else c.id for c in classifiers}


def versions() -> dict[str, str]:
    """Of Python and of what results may depend on."""
    return {"python": platform.python_version()} | {p: metadata.version(p) for p in PACKAGES}


def device_name(device: torch.device) -> str:
    """The device with the model of a GPU."""
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def threads() -> int:
    """How many torch works with."""
    import torch

    return torch.get_num_threads()
